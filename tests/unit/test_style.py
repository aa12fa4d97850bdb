"""The style of the tree as ratchets, and the import laws that keep deciding code away from brokers and clocks."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("streamer", "topologies", "load", "tests")

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
# Files that may be longer for now. An entry states today's length; it may shrink, and goes once the file fits.
LONGER_FOR_NOW: dict[str, int] = {}
# Whoever makes an object with more gives them names; ruff sees to it for functions, and does not see fields.
POSITIONAL_MAX = 5
# Names that say nothing about what is inside.
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}

# What decides about rows and state must give the same answer in a replay: no broker, no model, no clock.
DECIDING = (
    "streamer/codecs/*.py",
    "streamer/stages/decode/decode.py",
    "streamer/stages/produce/encode.py",
    "streamer/stages/produce/results.py",
    "streamer/features/*.py",
    "streamer/operators/**/*.py",
    "streamer/pipeline/*.py",
    "streamer/rows/*.py",
    "streamer/state/*.py",
)
OUTSIDE_WORLD = {"confluent_kafka", "onnxruntime", "time", "faust", "random"}
# The one Clock answers what time it is; durations of tools, tests and load may be taken where they are needed.
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
# `streamer --help` must answer at once.
SLOW_IMPORTS = ("faust", "onnxruntime", "numba", "sklearn")


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"no module under {folders}"
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def deciding() -> list[Path]:
    found = [path for pattern in DECIDING for path in sorted(ROOT.glob(pattern))]
    assert {"decode.py", "stage.py", "kernels.py", "index.py"} <= {path.name for path in found}
    return found


def long_functions(source: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.name, lines


def positional(source: str) -> Iterator[tuple[str, int]]:
    """Classes that are made with arguments by place, and how many: fields of a dataclass, or what `__init__` takes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        made = [ast.unparse(decorator) for decorator in node.decorator_list]
        if any(text.startswith("dataclass") and "kw_only=True" not in text for text in made):
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign) and _by_place(field)]
            yield node.name, len(fields)
        for function in node.body:
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                yield node.name, len(function.args.posonlyargs) + len(function.args.args) - 1


def _by_place(field: ast.AnnAssign) -> bool:
    value = ast.unparse(field.value) if field.value is not None else ""
    return "init=False" not in value and "kw_only=True" not in value and "ClassVar" not in ast.unparse(field.annotation)


def imports(source: str) -> set[str]:
    """Top-level packages imported anywhere in the source, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def imported_tests(source: str) -> set[str]:
    """Modules with tests that are imported anywhere in the source, also where it is text for another interpreter."""
    named = re.findall(r"\b(?:from|import)\s+tests\.([\w.]+)(?:\s+import\s+([\w, ()]+))?", source)
    return {word for path, what in named for word in re.findall(r"\btest_\w+", f"{path} {what}")}


def clock_reads(source: str) -> set[str]:
    """Calls of a real clock, whichever way its module was imported."""
    tree = ast.parse(source)
    origin: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            origin |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            head, dot, rest = ast.unparse(node).partition(".")
            full = (origin.get(head, "") + dot + rest).removeprefix("datetime.")
            if full in CLOCKS:
                read.add(full)
    return read


def test_every_file_is_python_of_the_oldest_version() -> None:
    for path in modules(*FOLDERS):
        ast.parse(path.read_text("utf-8"), filename=name(path), feature_version=(3, 11))


def test_modules_say_what_they_are() -> None:
    assert [name(path) for path in modules(*FOLDERS) if path.stem in NAMELESS] == []


def test_modules_fit_in_a_head() -> None:
    lengths = {name(path): len(path.read_text("utf-8").splitlines()) for path in modules(*FOLDERS)}
    allowed = {path: LONGER_FOR_NOW.get(path, MODULE_LINES_MAX) for path in lengths}
    assert {path: lines for path, lines in lengths.items() if lines > allowed[path]} == {}


def test_ratchet_only_turns_one_way() -> None:
    for path, lines in LONGER_FOR_NOW.items():
        actual = len((ROOT / path).read_text("utf-8").splitlines())
        assert MODULE_LINES_MAX < actual <= lines, f"{path}: {actual} lines; lower or remove its entry"


def test_functions_fit_on_a_screen() -> None:
    found = {
        f"{name(path)}:{function}": lines
        for path in modules(*FOLDERS)
        for function, lines in long_functions(path.read_text("utf-8"))
    }
    assert found == {}


def test_what_takes_many_arguments_takes_them_by_name() -> None:
    found = {
        f"{name(path)}:{made}": arguments
        for path in modules("streamer")
        for made, arguments in positional(path.read_text("utf-8"))
        if arguments > POSITIONAL_MAX
    }
    assert found == {}


def test_deciding_code_does_not_know_the_outside_world() -> None:
    guilty = {}
    for path in deciding():
        source = path.read_text("utf-8")
        guilty[name(path)] = imports(source) & OUTSIDE_WORLD | clock_reads(source)
    assert {path: found for path, found in guilty.items() if found} == {}


def test_deciding_code_does_not_reach_it_through_others() -> None:
    dotted = [name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in deciding()]
    loaded = modules_after("\n".join(f"import {module}" for module in dotted))
    assert "streamer.stages.decode.decode" in loaded
    assert {"confluent_kafka", "onnxruntime", "faust"} & loaded == set()


def test_only_the_clock_reads_time() -> None:
    guilty = {
        name(path): clock_reads(path.read_text("utf-8"))
        for path in modules("streamer", "topologies")
        if name(path) != "streamer/clock.py"
    }
    assert {path: found for path, found in guilty.items() if found} == {}


def test_help_is_quick() -> None:
    loaded = modules_after(
        "from streamer.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert "streamer.cli" in loaded
    assert [module for module in SLOW_IMPORTS if module in loaded] == []


def test_no_test_is_imported_by_another() -> None:
    found = {name(path): imported_tests(path.read_text("utf-8")) for path in modules("tests", "load")}
    assert {path: tests for path, tests in found.items() if tests} == {}, "what tests share goes to tests/kit"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"])
def test_locks_name_hashes_and_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    pinned = [line for line in text.splitlines() if "==" in line and not line.lstrip().startswith("#")]
    assert pinned
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text
    assert "--index" not in text.replace("--no-emit-index-url", "")


class TestTheTestsThemselves:
    """A rule that finds nothing anywhere proves nothing."""

    def test_long_functions_are_seen(self) -> None:
        body = "\n".join(["    x = 1"] * FUNCTION_LINES_MAX)
        assert list(long_functions(f"def f():\n{body}\n")) == [("f", FUNCTION_LINES_MAX + 1)]
        assert list(long_functions("def f():\n    x = 1\n")) == []

    @pytest.mark.parametrize(
        ("decorator", "found"),
        [("@dataclass", 2), ("@dataclass(slots=True)", 2), ("@dataclass(slots=True, kw_only=True)", None), ("@final", None)],
    )
    def test_fields_by_place_are_counted(self, decorator: str, found: int | None) -> None:
        fields = "    a: int\n    b: int = 0\n    c: int = field(init=False)\n    d: ClassVar[int] = 1\n    e = 2\n"
        assert list(positional(f"{decorator}\nclass A:\n{fields}")) == ([] if found is None else [("A", found)])

    def test_arguments_by_place_are_counted(self) -> None:
        source = "class A:\n    def __init__(self, a, /, b, c=1, *, d): ...\n    def other(self, a, b, c, d): ...\n"
        assert list(positional(source)) == [("A", 3)]

    def test_imports_are_seen_wherever_they_hide(self) -> None:
        source = "import a.b\nfrom c.d import e\ndef f():\n    import g\nfrom . import h\n"
        assert imports(source) == {"a", "c", "g"}

    @pytest.mark.parametrize(
        "source",
        [
            "from tests.unit.{} import b",
            "from tests.unit import flows, {}",
            "def f():\n    import tests.unit.{} as b",
            "code = 'from tests.unit import {}'",
        ],
    )
    def test_imports_of_tests_are_seen(self, source: str) -> None:
        assert imported_tests(source.format("test_a")) == {"test_a"}

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("import time\ntime.time()", {"time.time"}),
            ("import time as t\nx = t.time_ns", {"time.time_ns"}),
            ("from time import time as now\nnow()", {"time.time"}),
            ("from datetime import datetime, UTC\ndatetime.now(UTC)", {"datetime.now"}),
            ("import datetime\ndatetime.datetime.now()", {"datetime.now"}),
            ("import datetime as dt\ndt.date.today()", {"date.today"}),
            ("import time\ntime.sleep(1)\ntime.monotonic()", set()),
            ("clock.now()\nbatch.time", set()),
        ],
    )
    def test_clocks_are_seen_under_any_name(self, source: str, found: set[str]) -> None:
        assert clock_reads(source) == found


def modules_after(code: str) -> set[str]:
    """The modules a fresh interpreter has loaded after running `code`."""
    report = "\nimport sys\nprint('\\nMODULES', *sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].removeprefix("MODULES ").split())
