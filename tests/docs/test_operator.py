"""The operator that CONTRIBUTING shows is the one that runs, and the files it names are there."""

import re

from tests.docs.pages import ROOT, blocks, rows

PAGE = ROOT / "CONTRIBUTING.md"


def test_the_code_shown_is_that_of_the_operator() -> None:
    (block,) = blocks(PAGE, "python")
    assert block.text == (ROOT / "streamer/operators/filter/stage.py").read_text("utf-8")


def test_the_files_it_took_name_it() -> None:
    """A file that does not know of filters, or is not there, is none of those; a folder of operators has no other ones."""
    named = re.findall(r"`([^`]+/[^`]+|[A-Z]+\.md)`", " ".join(where for _, where in rows(PAGE, "what it took")))
    assert len(named) > 8
    others = {"streamer/planning/windows.py", "streamer/planning/shapes.py"}
    assert [path for path in named if "filter" not in (ROOT / path).read_text("utf-8").lower() and path not in others] == []
    folder = {path.relative_to(ROOT).as_posix() for path in (ROOT / "streamer/operators/filter").glob("[!_]*.py")}
    assert folder <= set(named)
