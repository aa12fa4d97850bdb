"""ARCHITECTURE.md names every module of the package, and nothing that is not there."""

import inspect
import re

from streamer.worker.worker import Worker
from tests.docs.pages import ROOT

PAGE = ROOT / "ARCHITECTURE.md"


def code_map() -> list[str]:
    """Paths in the first column of the map, in its order."""
    part = PAGE.read_text("utf-8").partition("## Code map")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+\.py)` \|", part, re.MULTILINE)


def test_every_module_is_on_the_map() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "streamer").rglob("*.py")}
    said_by_their_folder = {path for path in there if path.endswith("__init__.py") and path != "streamer/__init__.py"}
    assert sorted(there - said_by_their_folder - set(code_map())) == []


def test_nothing_else_is_on_the_map() -> None:
    assert [path for path in code_map() if not (ROOT / path).is_file()] == []
    assert len(code_map()) == len(set(code_map()))


def test_files_named_in_the_text_exist() -> None:
    paths = re.findall(r"`((?:streamer|topologies|load|tests|docs)/[\w/.-]+)`", PAGE.read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_stages_stand_in_the_order_of_the_turn() -> None:
    turn = re.findall(r"^\s*\d\. (\w+) ", inspect.getdoc(Worker.turn) or "", re.MULTILINE)
    assert len(turn) == 7
    text = PAGE.read_text("utf-8")
    assert " -> ".join(turn) in text
    own = [re.fullmatch(r"streamer/stages/(\w+)/\1\.py", path) for path in code_map()]
    on_the_map = [match[1] for match in own if match]
    assert on_the_map == [stage for stage in turn if stage in on_the_map]
    assert len(on_the_map) == 4
