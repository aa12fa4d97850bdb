"""The tree of an older commit beside this one."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load.system import ROOT


@contextmanager
def older(revision: str) -> Iterator[Path]:
    """The tree of a commit, beside this one for the length of a `with` block; it uses this environment's packages."""
    with tempfile.TemporaryDirectory(prefix="load-older-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
