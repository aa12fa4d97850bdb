"""Rings: room for so many samples of a key, used round and round; compiled kernels that copy what lies in them."""

import numpy as np
from numpy.typing import NDArray

from streamer.state.kernel_cache import njit


@njit("void(float64[::1], int64, int64, float64[::1])", cache=True, nogil=True)
def unroll(ring: NDArray[np.float64], oldest: int, n: int, row: NDArray[np.float64]) -> None:
    """Copy n samples of a ring, oldest first, to the right end of a matrix row: two runs, before and after the wrap."""
    size = ring.shape[0]
    tail = min(n, size - oldest)
    to, begin = np.uint64(row.shape[0] - n), np.uint64(oldest)
    for j in range(np.uint64(tail)):
        row[to + j] = ring[begin + j]
    to += np.uint64(tail)
    for j in range(np.uint64(n - tail)):
        row[to + j] = ring[j]


@njit("float64[::1](float64[::1], int64, int64, float64[::1])", cache=True, nogil=True)
def straight(ring: NDArray[np.float64], oldest: int, n: int, scratch: NDArray[np.float64]) -> NDArray[np.float64]:
    """The n samples of a ring from `oldest` on: where they lie, or copied when they are wrapped around its end."""
    if oldest + n <= ring.shape[0]:
        return ring[oldest : oldest + n]
    unroll(ring, oldest, n, scratch[:n])
    return scratch[:n]


@njit(
    "void(int64[::1], int64[::1], float64[:, :, ::1], int64[:, ::1], float64[:, :, ::1], int64[:, ::1])", cache=True, nogil=True
)
def straighten(
    starts: NDArray[np.int64], held: NDArray[np.int64], ring: NDArray[np.float64], ring_t: NDArray[np.int64],
    out: NDArray[np.float64], out_t: NDArray[np.int64],
) -> None:  # fmt: skip
    """Copy what rings of times and samples hold to the beginning of others, whose other places are 0 and stay untouched."""
    fields, size = ring.shape[1:]
    for slot in range(len(starts)):
        start, n = starts[slot], held[slot]
        before = min(n, size - start)
        out_t[slot, :before], out_t[slot, before:n] = ring_t[slot, start : start + before], ring_t[slot, : n - before]
        for f in range(fields):
            unroll(ring[slot, f], start, n, out[slot, f, :n])
