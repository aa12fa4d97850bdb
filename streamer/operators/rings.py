"""Rings: room for so many samples of a key, used round and round; compiled kernels that copy what lies in them."""

from typing import NamedTuple

import numpy as np

from streamer.state.compiled import Float64Cube, Float64Matrix, Float64s, Int32s, Int64Matrix, Int64s, njit


class Operations(NamedTuple):
    """What enters, as `state.delta.Delta` describes it.

    Attributes:
        slots: (n,) place of each row's key in the store.
        times: (n,) event times, microseconds.
        values: (fields, n) samples.
    """

    slots: Int32s
    times: Int64s
    values: Float64Matrix


@njit
def unroll(ring: Float64s, oldest: int, n: int, row: Float64s) -> None:
    """Copy n samples of a ring, oldest first, to the right end of a matrix row: two runs, before and after the wrap."""
    size = ring.shape[0]
    tail = min(n, size - oldest)
    to, begin = np.uint64(row.shape[0] - n), np.uint64(oldest)
    for j in range(np.uint64(tail)):
        row[to + j] = ring[begin + j]
    to += np.uint64(tail)
    for j in range(np.uint64(n - tail)):
        row[to + j] = ring[j]


@njit
def straight(ring: Float64s, oldest: int, n: int, scratch: Float64s) -> Float64s:
    """The n samples of a ring from `oldest` on: where they lie, or copied when they are wrapped around its end."""
    if oldest + n <= ring.shape[0]:
        return ring[oldest : oldest + n]
    unroll(ring, oldest, n, scratch[:n])
    return scratch[:n]


@njit
def straighten(
    starts: Int64s, held: Int64s, ring: Float64Cube, ring_t: Int64Matrix, out: Float64Cube, out_t: Int64Matrix
) -> None:
    """Copy what rings of times and samples hold to the beginning of others, whose other places are 0 and stay untouched."""
    fields, size = ring.shape[1:]
    for slot in range(len(starts)):
        start, n = starts[slot], held[slot]
        before = min(n, size - start)
        out_t[slot, :before], out_t[slot, before:n] = ring_t[slot, start : start + before], ring_t[slot, : n - before]
        for f in range(fields):
            unroll(ring[slot, f], start, n, out[slot, f, :n])
