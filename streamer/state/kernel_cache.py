"""numba's cache on disk, keyed by all files with kernels: one that calls a kernel of another file is compiled with it.

numba keys what it compiled by the one file that a function is in. After an update in place of another file, kernels that had
taken functions of it in would go on with the old ones: wrong numbers, and no word. So every file with kernels takes `njit`
from `compiled`, which has it from here, and what they compiled counts only as long as none of them differs, nor a file that
they take numbers from.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import caching

__all__ = ["FILES", "ROOT", "key_by_all", "njit"]

# Older versions call it their own; none has another way to say what a cache depends on.
_IMPL: Any = vars(caching).get("CacheImpl") or vars(caching)["_CacheImpl"]
ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "operators/aggregates.py", "operators/closing/columns.py", "operators/closing/kernels.py", "operators/join/kernels.py",
    "operators/join/rows.py", "operators/rings.py", "operators/rolling/kernels.py", "operators/rolling/pane_gap_kernels.py",
    "operators/rolling/pane_kernels.py", "rows/partitions.py", "stages/produce/json_kernel.py",
    "stages/produce/record_kernel.py", "stages/produce/shortest.py",
    "state/bounds.py", "state/compiled.py", "state/index.py", "state/keys.py", "state/murmur2.py", "state/siphash.py",
    "state/timers.py", "state/watermarks.py", "topology/joins.py",
)  # fmt: skip


def key_by_all(root: Path, files: Sequence[str]) -> None:
    """Have numba key the kernels of files below a folder by all of these together.

    Where it keeps them stays its own choice: what `NUMBA_CACHE_DIR` says, `__pycache__`, or the user's cache.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in files:
            digest.update((root / name).read_bytes())
    except OSError:
        return  # no files, as in an archive: whoever updates that replaces all of it
    kinds = _IMPL._locator_classes  # noqa: SLF001
    _IMPL._locator_classes = [*(_keyed(kind, root, digest.digest()) for kind in kinds), *kinds]  # noqa: SLF001


def _keyed(kind: Any, root: Path, digest: bytes) -> Any:
    """A kind of place for the cache, for our files alone, whose stamp is that of all of them."""

    class Keyed(kind):  # type: ignore[misc]
        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Any:
            """None for files of others."""
            return super().from_function(py_func, py_file) if Path(py_file).resolve().is_relative_to(root) else None

        def get_source_stamp(self) -> Any:
            """What must be the same for a kernel to be taken from the cache."""
            return super().get_source_stamp(), digest

    return Keyed


key_by_all(ROOT, FILES)
