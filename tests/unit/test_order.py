"""The way of a row is told in four places; they must tell the same one."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import streamer
from streamer import operators, stages
from streamer.pipeline.pipeline import Pipeline
from streamer.telemetry.steps import STAGES
from streamer.worker.worker import Worker

# The call by which `Worker.turn`, or the pipeline that it feeds, moves rows into a stage.
MOVES = {
    "self._consume.poll": "consume",
    "self.decode": "decode",
    "self.window": "window",
    "self.infer.submit": "infer",
    "self.flag": "flag",
    "self._produce.add": "produce",
    "self._commit.start": "commit",
}
# Of several operators that keep state, the one that stands for all.
OPERATORS = {"window": "rolling"}
HELPERS = ("self._polled", "self.pipeline.feed", "self._deliver", "self.pipeline.done", "self._settle_commit")


def in_order(function: ast.FunctionDef) -> list[str]:
    """Dotted names of the calls in a function, in the order of the text."""
    found = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    return [ast.unparse(node.func) for node in sorted(found, key=lambda node: (node.lineno, node.col_offset))]


def methods(source: str, of: str, name: str) -> dict[str, ast.FunctionDef]:
    """The methods of a class, by what they are called when it is called `name`."""
    (found,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == of]
    return {f"{name}.{node.name}": node for node in found.body if isinstance(node, ast.FunctionDef)}


def moves(source: str) -> list[str]:
    """Stages in the order in which a turn moves rows into them."""
    known = methods(source, "Worker", "self") | methods(source_of(Pipeline), "Pipeline", "self.pipeline")

    def moved(function: str) -> Iterator[str]:
        for call in in_order(known[function]):
            if call in HELPERS:
                yield from moved(call)
            elif call in MOVES:
                yield MOVES[call]

    return list(moved("self.turn"))


def source_of(made: type) -> str:
    path = inspect.getsourcefile(made)
    assert path is not None
    return Path(path).read_text("utf-8")


def test_the_package_tells_the_way() -> None:
    (line,) = [line for line in (streamer.__doc__ or "").splitlines() if "->" in line]
    assert tuple(stage.strip() for stage in line.split("->")) == STAGES


def test_the_turn_lists_the_way() -> None:
    listed = re.findall(r"^\s+(\d)\. (\w+) ", Worker.turn.__doc__ or "", re.MULTILINE)
    assert [(int(number), stage) for number, stage in listed] == list(enumerate(STAGES, start=1))


def test_the_turn_goes_the_way() -> None:
    assert moves(source_of(Worker)) == list(STAGES)


def test_each_stage_has_its_file() -> None:
    own, between = (Path(package.__path__[0]) for package in (stages, operators))
    for stage in STAGES:
        places = [own / stage / f"{stage}.py", between / OPERATORS.get(stage, stage) / "stage.py"]
        assert [path.is_file() for path in places].count(True) == 1, stage
    told = (stages.__doc__ or "").partition("station: ")[2].partition(".")[0]
    assert told.split(", ") == [stage for stage in STAGES if (own / stage).is_dir()]


def test_a_turn_in_another_order_is_seen() -> None:
    source = source_of(Worker)
    turned = source.replace("self._deliver(self._room.patience(behind=self._behind))\n", "self._settle_commit(0.0)\n", 1)
    turned = turned.replace("self._settle_commit(0.0)\n        except", "self._deliver(0.0)\n        except", 1)
    assert turned != source
    assert moves(turned) != list(STAGES)
