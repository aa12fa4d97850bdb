"""Compiled kernels on disk: kept while no file with kernels differs, compiled anew when one does."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.state import kernel_cache

INNER = """
from streamer.state.kernel_cache import njit

@njit("int64(int64)", cache=True)
def inner(x):
    return x + {}
"""
OUTER = """
from inner import inner
from streamer.state.kernel_cache import njit

@njit("int64(int64)", cache=True)
def outer(x):
    return inner(x)
"""
RUN = """
import sys
from pathlib import Path
from streamer.state.kernel_cache import key_by_all
key_by_all(Path(sys.argv[1]), ["inner.py", "outer.py"])
sys.path.insert(0, sys.argv[1])
import outer
print(outer.outer(1), sum(outer.outer.stats.cache_hits.values()), outer.outer.stats.cache_path)
"""


def outer(folder: Path, **env: str) -> tuple[int, int, Path]:
    """What the outer kernel answers in a new process, how often it came from the cache, and where that is."""
    home = {"HOME": str(folder.parent), "XDG_CACHE_HOME": str(folder.parent / "home")}
    words = [sys.executable, "-c", RUN, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | home | env, timeout=120)
    answer, hits, place = done.stdout.split()
    return int(answer), int(hits), Path(place)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "inner.py").write_text(INNER.format(1), "ascii")
    (folder / "outer.py").write_text(OUTER, "ascii")
    return folder


def test_a_kernel_that_took_in_another_file_is_compiled_anew_when_that_changes(folder: Path) -> None:
    assert outer(folder)[:2] == (2, 0)
    assert outer(folder)[:2] == (2, 1)
    (folder / "inner.py").write_text(INNER.format(10), "ascii")
    assert outer(folder)[:2] == (11, 0)


def test_numba_chooses_the_place_as_ever(folder: Path, tmp_path: Path) -> None:
    """Where it is told, beside the file, and where that may not be written in the user's cache."""
    told = tmp_path / "told"
    assert told in outer(folder, NUMBA_CACHE_DIR=str(told))[2].parents
    assert outer(folder)[2] == folder / "__pycache__"


def test_a_folder_that_may_not_be_written_has_its_cache_in_the_users_own(folder: Path, tmp_path: Path) -> None:
    (folder / "__pycache__").write_text("no folder", "ascii")
    assert outer(folder)[:2] == (2, 0)
    answer, hits, place = outer(folder)
    assert (answer, hits) == (2, 1)
    assert tmp_path / "home" in place.parents


def borrowed(path: Path) -> set[str]:
    """Files of ours that kernels of this one, and the tuples that they take, have names from."""
    tree = ast.parse(path.read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("streamer.")]
    home = {name.name: f"{(node.module or '').partition('.')[2].replace('.', '/')}.py" for node in imports for name in node.names}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    kernels = [node for node in functions if any("njit" in ast.unparse(each) for each in node.decorator_list)]
    records = [node for node in tree.body if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases)]
    used = {node.id for each in (*kernels, *records) for node in ast.walk(each) if isinstance(node, ast.Name)}
    return {home[name] for name in used & set(home) if (kernel_cache.ROOT / home[name]).is_file()}


def test_every_file_with_kernels_and_what_they_take_from_others_is_in_the_key() -> None:
    files = [path for path in sorted(kernel_cache.ROOT.rglob("*.py")) if path.name != "kernel_cache.py"]
    with_kernels = [path for path in files if "njit" in path.read_text("utf-8")]
    lent = set().union(*map(borrowed, with_kernels))
    assert {"topology/joins.py", "state/compiled.py"} <= lent, "joining takes FAR and the types of its arguments from there"
    names = {path.relative_to(kernel_cache.ROOT).as_posix() for path in with_kernels}
    assert tuple(sorted(names | lent)) == kernel_cache.FILES
    assert [path.name for path in files if "import njit" in path.read_text("utf-8") and path not in with_kernels] == []
    elsewhere = [path.name for path in files if "from numba import njit" in path.read_text("utf-8")]
    assert elsewhere == [], "they would be keyed by one file"
