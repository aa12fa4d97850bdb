"""Compiled window kernels. One call advances every key of a batch, row after row, in the order of the log.

Aggregates are two-pass over the samples in the window, never running sums, and relative to one of the samples: they stay
right at a level of 1e9 and after a 1e200 has left, and a constant series has its value as mean and no deviation at all.
Four fixed lanes per sum let the compiler vectorise without reordering, so that a result depends on the samples alone and
not on how the input was cut into batches.

Signatures are eager and cached: importing this module compiles once per machine (NUMBA_CACHE_DIR moves the cache).
"""

import numpy as np
from numba import njit

# What a field of the window is asked for, as bits, so that a pass nobody reads is not made.
NEED_SUM, NEED_STD, NEED_RANGE, NEED_MATRIX = 1, 2, 4, 8
# Rows of the aggregate block.
SUM, MEAN, STD, MIN, MAX, FIRST = 0, 1, 2, 3, 4, 5
AGGREGATE_ROWS = 6


@njit("float64(float64[::1], int64)", cache=True, nogil=True)
def _excess(samples, n):  # type: ignore[no-untyped-def]
    """Sum of the differences to the first sample: exactly zero for a constant series, and small at a high level."""
    base = samples[0]
    a = b = c = d = 0.0
    whole = n - n % 4
    for j in range(0, whole, 4):
        a += samples[j] - base
        b += samples[j + 1] - base
        c += samples[j + 2] - base
        d += samples[j + 3] - base
    for j in range(whole, n):
        a += samples[j] - base
    return (a + b) + (c + d)


@njit("float64(float64[::1], int64, float64)", cache=True, nogil=True)
def _squares(samples, n, mean):  # type: ignore[no-untyped-def]
    a = b = c = d = 0.0
    whole = n - n % 4
    for j in range(0, whole, 4):
        x0, x1, x2, x3 = samples[j] - mean, samples[j + 1] - mean, samples[j + 2] - mean, samples[j + 3] - mean
        a += x0 * x0
        b += x1 * x1
        c += x2 * x2
        d += x3 * x3
    for j in range(whole, n):
        x0 = samples[j] - mean
        a += x0 * x0
    return (a + b) + (c + d)


@njit("UniTuple(float64, 2)(float64[::1], int64)", cache=True, nogil=True)
def _range(samples, n):  # type: ignore[no-untyped-def]
    # Comparisons instead of min() and max(): samples are never NaN, and the compiler then uses its vector forms.
    a = b = c = d = samples[0]
    e = f = g = h = samples[0]
    whole = n - n % 4
    for j in range(0, whole, 4):
        x0, x1, x2, x3 = samples[j], samples[j + 1], samples[j + 2], samples[j + 3]
        a = x0 if x0 < a else a
        b = x1 if x1 < b else b
        c = x2 if x2 < c else c
        d = x3 if x3 < d else d
        e = x0 if x0 > e else e
        f = x1 if x1 > f else f
        g = x2 if x2 > g else g
        h = x3 if x3 > h else h
    low, high = min(min(a, b), min(c, d)), max(max(e, f), max(g, h))
    for j in range(whole, n):
        low, high = min(low, samples[j]), max(high, samples[j])
    return low, high


@njit("void(float64[::1], int64, int64, float64[::1])", cache=True, nogil=True)
def _unroll(ring, oldest, n, row):  # type: ignore[no-untyped-def]
    """Copy the n samples of a ring, oldest first, to the right end of a matrix row: two runs, before and after the wrap."""
    size = ring.shape[0]
    tail = min(n, size - oldest)
    to, begin = np.uint64(size - n), np.uint64(oldest)
    for j in range(np.uint64(tail)):
        row[to + j] = ring[begin + j]
    to += np.uint64(tail)
    for j in range(np.uint64(n - tail)):
        row[to + j] = ring[j]


@njit("void(float64[::1], int64, uint8, float64[:, :, ::1], int64, int64)", cache=True, nogil=True)
def _aggregate(samples, n, need, out, field, row):  # type: ignore[no-untyped-def]
    if need & (NEED_SUM | NEED_STD):
        excess = _excess(samples, n)
        mean = samples[0] + excess / n
        out[field, SUM, row] = n * samples[0] + excess
        out[field, MEAN, row] = mean
        if need & NEED_STD:
            out[field, STD, row] = np.sqrt(_squares(samples, n, mean) / n)
    if need & NEED_RANGE:
        out[field, MIN, row], out[field, MAX, row] = _range(samples, n)


@njit(
    "void(int32[::1], int64[::1], float64[:, ::1], int64[::1], int64[::1], float64[:, :, ::1], int64[:, ::1],"
    " uint8[::1], int64[::1], int64[::1], float64[:, :, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def roll_by_count(slots, times, values, rows, seen, ring, ring_t, needs, out_n, out_span, out, matrix):  # type: ignore[no-untyped-def]
    """Append each row to its key's ring and aggregate the last samples of that key in log order.

    Args:
        slots: (n,) place of each row's key in the store.
        times: (n,) event times, microseconds.
        values: (fields, n) samples.
        rows: (n,) where results go; empty to advance the state only (a restore).
        seen: (keys,) samples ever appended to a key.
        ring: (keys, fields, samples).
        ring_t: (keys, samples) event times, or (keys, 0) when nobody asks for a rate.
        needs: (fields,) NEED_ bits.
        out_n: (batch,) samples in the window.
        out_span: (batch,) event time between oldest and newest sample, microseconds.
        out: (fields, AGGREGATE_ROWS, batch).
        matrix: (fields, batch, samples) or empty.
    """
    fields, size = ring.shape[1], ring.shape[2]
    keeps_time = ring_t.shape[1] > 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        place = seen[slot] % size
        for f in range(fields):
            ring[slot, f, place] = values[f, i]
        if keeps_time:
            ring_t[slot, place] = times[i]
        seen[slot] += 1
        if rows.shape[0] == 0:
            continue
        row = rows[i]
        n = min(seen[slot], size)
        oldest = (place + 1) % size if n == size else 0
        out_n[row] = n
        if keeps_time:
            out_span[row] = times[i] - ring_t[slot, oldest]
        for f in range(fields):
            out[f, FIRST, row] = ring[slot, f, oldest]
            _aggregate(ring[slot, f], n, needs[f], out, f, row)
            if needs[f] & NEED_MATRIX:
                _unroll(ring[slot, f], oldest, n, matrix[f, row])


@njit("int64(int64[:, ::1], int32, int64, int64, int64)", cache=True, nogil=True)
def _place_in_time(ring_t, slot, start, held, time):  # type: ignore[no-untyped-def]
    """Where a sample at `time` belongs among the sorted ones: after its ties, which came earlier in the log."""
    size = ring_t.shape[1]
    place = held
    while place > 0 and ring_t[slot, (start + place - 1) % size] > time:
        place -= 1
    return place


@njit(
    "int64(int32[::1], int64[::1], float64[:, ::1], int64[::1], int64, int64[::1], int64[::1], float64[:, :, ::1],"
    " int64[:, ::1], uint8[::1], int64[::1], int64[::1], float64[:, :, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def roll_by_time(slots, times, values, rows, span, starts, held, ring, ring_t, needs, out_n, out_span, out, matrix):  # type: ignore[no-untyped-def]
    """Insert each row by event time and aggregate its key's samples in (time - span, time].

    The ring of a key is kept sorted by event time, ties in log order; when it is full the oldest sample goes.
    Arguments as for `roll_by_count`, with `starts` and `held` (keys,): first place and number of samples held.

    Returns:
        How many windows lost samples that were still inside the span.
    """
    fields, size = ring.shape[1], ring.shape[2]
    scratch = np.empty(size)
    truncated = 0
    for i in range(slots.shape[0]):
        slot, time = slots[i], times[i]
        place = _place_in_time(ring_t, slot, starts[slot], held[slot], time)
        stored = True
        if held[slot] == size:
            newest = max(time, ring_t[slot, (starts[slot] + size - 1) % size])
            oldest = min(time, ring_t[slot, starts[slot]])
            truncated += oldest > newest - span
            if place == 0:
                stored = False
            else:
                starts[slot] = (starts[slot] + 1) % size
                held[slot] -= 1
                place -= 1
        start = starts[slot]
        if stored:
            for j in range(held[slot], place, -1):
                to, source = (start + j) % size, (start + j - 1) % size
                ring_t[slot, to] = ring_t[slot, source]
                for f in range(fields):
                    ring[slot, f, to] = ring[slot, f, source]
            ring_t[slot, (start + place) % size] = time
            for f in range(fields):
                ring[slot, f, (start + place) % size] = values[f, i]
            held[slot] += 1
        if rows.shape[0] == 0:
            continue
        row = rows[i]
        first = place
        while first > 0 and stored and ring_t[slot, (start + first - 1) % size] > time - span:
            first -= 1
        n = place - first + 1
        out_n[row] = n
        out_span[row] = time - ring_t[slot, (start + first) % size] if stored else 0
        for f in range(fields):
            scratch[0] = values[f, i]
            if stored:
                for j in range(n):
                    scratch[j] = ring[slot, f, (start + first + j) % size]
            out[f, FIRST, row] = scratch[0]
            _aggregate(scratch, n, needs[f], out, f, row)
            if needs[f] & NEED_MATRIX:
                for j in range(n):
                    matrix[f, row, size - n + j] = scratch[j]
    return truncated
