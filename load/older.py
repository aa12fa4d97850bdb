"""The tree of an older commit beside this one."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load.system import ROOT


@contextmanager
def older(revision: str) -> Iterator[Path]:
    """The tree of a commit, beside this one for the length of a `with` block; it uses this environment's packages.

    Raises:
        RuntimeError: the history does not hold it, or there is none.
    """
    with tempfile.TemporaryDirectory(prefix="load-older-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        added = subprocess.run([*git, "add", "--detach", "--quiet", str(tree), revision], check=False)
        if added.returncode:
            raise RuntimeError(f"no tree of {revision} here; it takes a clone with its history: git fetch --unshallow")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
