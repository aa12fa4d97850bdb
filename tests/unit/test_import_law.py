"""Who may import whom: one table over the folders of the package, which are read from the tree.

Lower floors know nothing of higher ones, so that what decides about rows can be run without a broker, a model or a clock. An
import counts wherever it stands: in a function and for types too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "streamer"

# Files beside the folders that every floor above them may use, each with what it may itself use.
GROUND: dict[str, set[str]] = {
    "errors": set(),
    "units": {"errors", "limits"},
    "limits": set(),
    "renamed": {"errors"},
    "clock": set(),
    "first_instant": set(),
}
_ALL_GROUND = set(GROUND)
_OPERATORS_MAY = {"features", "topology", "rows", "state", "telemetry", "settings"} | _ALL_GROUND
_STAGES_MAY = {"rows", "codecs", "changelog", "kafka", "topology", "state", "telemetry", "settings"} | _ALL_GROUND
_PLANNING_MAY = _OPERATORS_MAY | _STAGES_MAY | {"operators", "stages", "inference", "pipeline"}
_WORKER_MAY = _PLANNING_MAY | {"planning"}
# Each folder, and what it may import.
LAW: dict[str, set[str]] = {
    "state": set(),
    "rows": {"state"},
    "settings": {"errors", "renamed", "units", "limits"},
    "topology": {"errors", "limits", "renamed", "units"},
    "features": {"topology", "rows", "telemetry", "settings"} | _ALL_GROUND,
    "codecs": {"topology", "rows", "errors", "limits"},
    "telemetry": {"rows", "settings"} | _ALL_GROUND,
    "kafka": {"topology", "settings", "rows", "telemetry"} | _ALL_GROUND,
    "changelog": {"state", "kafka", "settings", "telemetry"} | _ALL_GROUND,
    "inference": {"topology", "telemetry", "settings"} | _ALL_GROUND,
    "operators": _OPERATORS_MAY,
    "stages": _STAGES_MAY,
    "pipeline": {"operators", "stages", "codecs", "rows", "state", "telemetry"} | _ALL_GROUND,
    "planning": _PLANNING_MAY,
    "worker": _WORKER_MAY,
    "web": {"telemetry", "settings"} | _ALL_GROUND,
    "live": {"telemetry", "settings"} | _ALL_GROUND,
    "feeding": {"topology"} | _ALL_GROUND,
    "dev_broker": {"errors"},
    "testing": _WORKER_MAY | {"worker", "feeding"},
    "demo": _WORKER_MAY | {"worker", "feeding", "live"},
    "cli": _WORKER_MAY | {"worker", "feeding", "live", "web", "demo", "dev_broker"},
}
# The doors: what a user imports or runs.
DOORS: dict[str, set[str]] = {
    "__init__": {"topology"} | _ALL_GROUND,
    "__main__": {"cli", "first_instant"},
}
MAY = GROUND | LAW | DOORS


def floors() -> set[str]:
    """Folders and loose files of the package."""
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    return folders | {path.stem for path in PACKAGE.glob("*.py")}


def floor(dotted: str) -> str:
    """Where a module of ours is: `streamer.state.index` is on the floor `state`."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(source: str) -> Iterator[str]:
    """The modules of ours that a source imports anywhere, dotted; names that are modules themselves with their package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "streamer")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "streamer":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows() -> set[tuple[str, str]]:
    """File and floor, for each import that goes to another floor."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        own = name.split("/")[0].removesuffix(".py")
        found |= {(name, floor(module)) for module in imported(path.read_text("utf-8")) if floor(module) != own}
    return found


def forbidden() -> set[tuple[str, str]]:
    return {(name, to) for name, to in arrows() if to not in MAY[name.split("/")[0].removesuffix(".py")]}


def test_every_floor_has_its_row() -> None:
    assert floors() <= set(MAY), "say in LAW what a new folder may import"


def test_nobody_reaches_up() -> None:
    assert sorted(forbidden()) == []


def test_the_law_has_no_circle() -> None:
    left = dict(MAY)
    while done := [name for name, may in left.items() if not may & set(left)]:
        for name in done:
            del left[name]
    assert left == {}


def test_operators_do_not_know_each_other() -> None:
    guilty = set()
    for path in (PACKAGE / "operators").rglob("*/*.py"):
        own = path.parent.name
        for module in imported(path.read_text("utf-8")):
            parts = module.split(".")
            other = parts[2] if parts[1:2] == ["operators"] and len(parts) > 2 else own
            if other != own and (PACKAGE / "operators" / other).is_dir():
                guilty.add((path.relative_to(PACKAGE).as_posix(), other))
    assert sorted(guilty) == []


class TestTheLawItself:
    """A law that nobody could break proves nothing."""

    def test_imports_are_seen_wherever_they_hide(self) -> None:
        source = "import streamer.a.b\nfrom streamer.c import d\ndef f():\n    from streamer import e\nimport numpy\n"
        assert {floor(module) for module in imported(source)} == {"a", "c", "e"}

    def test_the_package_has_arrows(self) -> None:
        assert ("worker/worker.py", "stages") in arrows()
