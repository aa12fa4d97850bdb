"""Arrays that grow by the row, seldom and by a lot, and arrays of which little is used."""

import mmap
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

# numpy asks for huge pages from here on; below, it makes no difference.
_HUGE_BYTES = 4 * 2**20


def sparse(shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    """Zeros of which only few places will be used, here and there: memory is taken by 4 KiB and not by 2 MiB.

    With huge pages one sample in each of 16 rows of 128 KiB takes 2 MiB, and the kernel goes on to merge what lies beside them.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if size < _HUGE_BYTES or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def grown_capacity(capacity: int, keys: int, most: int) -> int:
    """Room for `keys`: doubled each time, but not beyond `most` unless that many there are."""
    return min(max(2 * capacity, keys), max(most, keys))


def grown(array: NDArray[Any], rows: int, filler: int = 0) -> NDArray[Any]:
    """The array with more rows."""
    longer = np.zeros((rows, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    if filler:
        longer[len(array) :] = filler
    return longer
