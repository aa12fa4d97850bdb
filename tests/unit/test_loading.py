"""A topology is found by the name a person types, and may import what lies beside it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.errors import TopologyError
from streamer.topology.loading import load_topology
from tests.kit.declared import EVENT, FLOW

NEIGHBOUR = "from cards import *\n" + FLOW


@pytest.fixture
def _modules_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("_modules_as_before")
def test_a_topology_imports_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cards.py").write_text(EVENT)
    (tmp_path / "flow.py").write_text(NEIGHBOUR)
    monkeypatch.chdir(tmp_path.parent)
    flow, folder = load_topology(f"{tmp_path.name}/flow.py:flow")
    assert (flow.name, folder) == ("t", tmp_path)


@pytest.mark.usefixtures("_modules_as_before")
@pytest.mark.parametrize("name", ["fraud.flow:flow", "fraud.flow", "fraud/flow.py"])
def test_a_topology_in_a_package_is_found_from_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fraud").mkdir()
    (tmp_path / "fraud/__init__.py").write_text("")
    (tmp_path / "fraud/cards.py").write_text(EVENT)
    (tmp_path / "fraud/flow.py").write_text(("from .cards import *\n" if "." in name[:6] else "from cards import *\n") + FLOW)
    monkeypatch.chdir(tmp_path)
    flow, folder = load_topology(name)
    assert (flow.name, folder) == ("t", tmp_path / "fraud")


@pytest.mark.usefixtures("_modules_as_before")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1 / 0", "broken/flow.py:1 failed to import: ZeroDivisionError"),
        ("import no_such_module", "broken/flow.py:1 failed to import: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(0)", "ends the process (0) while it is imported"),
    ],
)
@pytest.mark.parametrize("name", ["broken.flow:flow", "broken/flow.py:flow"])
def test_a_package_that_fails_names_its_line(
    name: str, text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/flow.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TopologyError, match=re.escape(says)):
        load_topology(name)


@pytest.mark.usefixtures("_modules_as_before")
def test_a_relative_import_in_a_file_says_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text("from .cards import *\n")
    with pytest.raises(TopologyError, match=r"by its name alone \(from cards import ...\), or run package.flow:object"):
        load_topology(f"{tmp_path}/flow.py:flow")
