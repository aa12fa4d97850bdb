"""Compiled window kernels. One call advances every key of a batch, row after row, in the order of the log.

Aggregates are two-pass over the samples in the window, never running sums, and relative to one of the samples: they stay
right at a level of 1e9 and after a 1e200 has left, and a constant series has its value as mean and no deviation at all.
Four fixed lanes per sum let the compiler vectorise without reordering, so that a result depends on the samples alone and
not on how the input was cut into batches.

What is asked is laid out in columns, one per look-back and field: column = look * fields + field.

Signatures are eager and cached: importing this module compiles once per machine (NUMBA_CACHE_DIR moves the cache).
"""

import numpy as np
from numpy.typing import NDArray

from streamer.state.kernel_cache import njit

# What a column is asked for, as bits, so that a pass nobody reads is not made.
NEED_SUM, NEED_STD, NEED_RANGE, NEED_MATRIX, NEED_FIRST, NEED_ORDER = 1, 2, 4, 8, 16, 32
# Rows of the aggregate block; the quantiles of a column stand below.
SUM, MEAN, STD, MIN, MAX, FIRST, DISTINCT = 0, 1, 2, 3, 4, 5, 6
AGGREGATE_ROWS = 7


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


@njit("void(float64[::1], int64, uint8, float64[:, :, ::1], int64, int64)", cache=True, nogil=True)
def _aggregate(samples, n, need, out, column, row):  # type: ignore[no-untyped-def]
    if need & (NEED_SUM | NEED_STD):
        excess = _excess(samples, n)
        mean = samples[0] + excess / n
        out[column, SUM, row] = n * samples[0] + excess
        out[column, MEAN, row] = mean
        if need & NEED_STD:
            out[column, STD, row] = np.sqrt(_squares(samples, n, mean) / n)
    if need & NEED_RANGE:
        out[column, MIN, row], out[column, MAX, row] = _range(samples, n)


@njit("void(float64[::1], int64, float64[::1], float64[::1], float64[:, :, ::1], int64, int64)", cache=True, nogil=True)
def _in_order(samples, n, quantiles, scratch, out, column, row):  # type: ignore[no-untyped-def]
    """NEED_ORDER: quantiles, interpolated exactly as numpy's default does it, and how many values differ.

    `scratch` has room for n samples and is used up; it may be `samples`.
    """
    scratch[:n] = samples[:n]
    scratch[:n].sort()
    distinct = 1
    for j in range(1, n):
        distinct += scratch[j] != scratch[j - 1]
    out[column, DISTINCT, row] = distinct
    for q in range(quantiles.shape[0]):
        if np.isnan(quantiles[q]):  # other columns have more of them
            break
        place = quantiles[q] * (n - 1)
        below = min(int(place), n - 1)
        low, high, part = scratch[below], scratch[min(below + 1, n - 1)], place - below
        value = high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part
        out[column, AGGREGATE_ROWS + q, row] = value


@njit("void(float64[::1], int64, int64, float64[::1])", cache=True, nogil=True)
def _unroll(ring: NDArray[np.float64], oldest: int, n: int, row: NDArray[np.float64]) -> None:
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
def _straight(ring, oldest, n, scratch):  # type: ignore[no-untyped-def]
    """The n samples of a ring from `oldest` on: where they lie, or copied when they are wrapped around its end."""
    if oldest + n <= ring.shape[0]:
        return ring[oldest : oldest + n]
    _unroll(ring, oldest, n, scratch[:n])
    return scratch[:n]


@njit(
    "void(float64[::1], int64, int64, uint8, float64[::1], float64[::1], float64[:, :, ::1], int64, int64)",
    cache=True,
    nogil=True,
)
def _run(ring, oldest, n, need, quantiles, scratch, out, column, row):  # type: ignore[no-untyped-def]
    """Aggregate n samples of a ring from `oldest` on, in their order."""
    samples = _straight(ring, oldest, n, scratch)
    _aggregate(samples, n, need, out, column, row)
    if need & NEED_ORDER:
        _in_order(samples, n, quantiles, scratch, out, column, row)


@njit(
    "void(int32[::1], int64[::1], float64[:, ::1], int64[::1], int64[::1], int64[::1], float64[:, :, ::1], int64[:, ::1],"
    " uint8[::1], float64[:, ::1], int64[::1], int64[:, ::1], int64[:, ::1], float64[:, :, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def roll_by_count(  # type: ignore[no-untyped-def]
    slots, times, values, rows, looks, seen, ring, ring_t, needs, quantiles, places, out_n, out_span, out, matrix
):
    """Append each row to its key's ring and aggregate the last samples of that key in log order.

    Args:
        slots: (n,) place of each row's key in the store.
        times: (n,) event times, microseconds.
        values: (fields, n) samples.
        rows: (n,) where results go; empty to advance the state only (a restore).
        looks: (looks,) samples per look-back, none more than a ring has.
        seen: (keys,) samples ever appended to a key.
        ring: (keys, fields, samples).
        ring_t: (keys, samples) event times, or (keys, 0) when nobody asks for a rate.
        needs: (columns,) NEED_ bits.
        quantiles: (columns, q) asked of each column, NaN where it has fewer.
        places: (columns,) which matrix a column fills.
        out_n: (looks, batch) samples in the window.
        out_span: (looks, batch) event time between oldest and newest sample, microseconds.
        out: (columns, AGGREGATE_ROWS + q, batch).
        matrix: (matrices, batch, samples).
    """
    fields, size = ring.shape[1], ring.shape[2]
    keeps_time = ring_t.shape[1] > 0
    scratch = np.empty(size)
    for i in range(slots.shape[0]):
        slot = slots[i]
        # Sizes are mostly powers of two, and a division takes as long as a dozen samples.
        place = seen[slot] & (size - 1) if size & (size - 1) == 0 else seen[slot] % size
        for f in range(fields):
            ring[slot, f, place] = values[f, i]
        if keeps_time:
            ring_t[slot, place] = times[i]
        seen[slot] += 1
        if rows.shape[0] == 0:
            continue
        row = rows[i]
        for look in range(looks.shape[0]):
            n = min(seen[slot], looks[look])
            oldest = place + 1 - n
            if oldest < 0:
                oldest += size
            out_n[look, row] = n
            if keeps_time:
                out_span[look, row] = times[i] - ring_t[slot, oldest]
            for f in range(fields):
                column = look * fields + f
                need = needs[column]
                out[column, FIRST, row] = ring[slot, f, oldest]
                if need & NEED_MATRIX:
                    _unroll(ring[slot, f], oldest, n, matrix[places[column], row])
                # A full ring has no end: its samples are taken as they lie.
                if n == size and need & NEED_ORDER == 0:
                    _aggregate(ring[slot, f], n, need, out, column, row)
                else:
                    _run(ring[slot, f], oldest, n, need, quantiles[column], scratch, out, column, row)


@njit("int64(int64[::1], int64, int64, int64)", cache=True, nogil=True)
def _later_than(ring_t, start, held, time):  # type: ignore[no-untyped-def]
    """How many of the sorted times are at most `time`: the place of the first later one, halving the distance."""
    size = ring_t.shape[0]
    low, high = 0, held
    while low < high:
        middle = (low + high) >> 1
        at = start + middle
        if at >= size:
            at -= size
        if ring_t[at] > time:
            high = middle
        else:
            low = middle + 1
    return low


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
            _unroll(ring[slot, f], start, n, out[slot, f, :n])


@njit("void(int64[::1], float64[:, ::1], int64, int64, int64)", cache=True, nogil=True)
def _shift(ring_t, ring, first, count, step):  # type: ignore[no-untyped-def]
    """Move `count` samples from ring place `first` on by one place, up or down, to open a gap."""
    size, fields = ring_t.shape[0], ring.shape[0]
    source = first if step < 0 else first + count - 1
    for _ in range(count):
        if source >= size:
            source -= size
        elif source < 0:
            source += size
        to = source + step
        if to >= size:
            to -= size
        elif to < 0:
            to += size
        ring_t[to] = ring_t[source]
        for f in range(fields):
            ring[f, to] = ring[f, source]
        source -= step


@njit("int64(int64[::1], float64[:, ::1], int64, int64, int64)", cache=True, nogil=True)
def _open_gap(ring_t, ring, start, held, place):  # type: ignore[no-untyped-def]
    """Open a gap before the sample at `place` by moving the older or the younger ones, whichever are fewer.

    Returns:
        Where the ring starts now.
    """
    size = ring_t.shape[0]
    if held - place <= place:
        _shift(ring_t, ring, (start + place) % size, held - place, 1)
        return start
    _shift(ring_t, ring, start, place, -1)
    return start - 1 if start else size - 1


@njit(
    "void(int64[::1], int64, int64, int64, boolean, int64[::1], float64[:, ::1], float64[:, ::1], int64, uint8[::1],"
    " float64[:, ::1], int64[::1], int64, float64[::1], int64[:, ::1], int64[:, ::1], float64[:, :, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def _look_back(  # type: ignore[no-untyped-def]
    looks, time, start, place, stored, ring_t, ring, values, i, needs, quantiles, places, row, scratch, out_n, out_span, out,
    matrix,
):  # fmt: skip
    """Aggregate the samples of one key in (time - look, time], the one at `place` being the newest of them."""
    fields, size = ring.shape
    for look in range(looks.shape[0]):
        since = time - looks[look]
        first = place
        if stored:
            first = 0 if ring_t[start] > since else _later_than(ring_t, start, place, since)
        n, begin = place - first + 1, (start + first) % size
        out_n[look, row] = n
        out_span[look, row] = time - ring_t[begin] if stored else 0
        for f in range(fields):
            column = look * fields + f
            need = needs[column]
            if stored:
                samples = _straight(ring[f], begin, n, scratch)
            else:  # older than everything a full ring holds: it stands alone
                scratch[0] = values[f, i]
                samples = scratch[:1]
            out[column, FIRST, row] = samples[0]
            _aggregate(samples, n, need, out, column, row)
            if need & NEED_MATRIX:
                _unroll(samples, 0, n, matrix[places[column], row])
            if need & NEED_ORDER:
                _in_order(samples, n, quantiles[column], scratch, out, column, row)


@njit(
    "int64(int32[::1], int64[::1], float64[:, ::1], int64[::1], int64[::1], int64[::1], int64[::1], float64[:, :, ::1],"
    " int64[:, ::1], uint8[::1], float64[:, ::1], int64[::1], int64[:, ::1], int64[:, ::1], float64[:, :, ::1],"
    " float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def roll_by_time(  # type: ignore[no-untyped-def]
    slots, times, values, rows, looks, starts, held, ring, ring_t, needs, quantiles, places, out_n, out_span, out, matrix
):
    """Insert each row by event time and aggregate its key's samples in (time - look, time], for every look-back.

    The ring of a key is kept sorted by event time, ties in log order; when it is full the oldest sample goes.
    Arguments as for `roll_by_count`, with `looks` in microseconds, and `starts` and `held` (keys,): first place and number
    of samples held.

    Returns:
        How many windows lost samples that were still inside the widest look-back.
    """
    fields, size = ring.shape[1], ring.shape[2]
    scratch = np.empty(size)
    widest = looks.max()
    truncated = 0
    for i in range(slots.shape[0]):
        slot, time = slots[i], times[i]
        start, n = starts[slot], held[slot]
        newest = ring_t[slot, (start + n - 1) % size] if n else time
        place = n if newest <= time else _later_than(ring_t[slot], start, n, time)
        stored = True
        if n == size:
            truncated += min(time, ring_t[slot, start]) > max(time, newest) - widest
            stored = place > 0
            if stored:
                start, n, place = (start + 1) % size, n - 1, place - 1
        if stored:
            if place < n:
                start = _open_gap(ring_t[slot], ring[slot], start, n, place)
            at = (start + place) % size
            ring_t[slot, at] = time
            for f in range(fields):
                ring[slot, f, at] = values[f, i]
            starts[slot], held[slot] = start, n + 1
        if rows.shape[0] == 0:
            continue
        _look_back(
            looks, time, start, place, stored, ring_t[slot], ring[slot], values, i, needs, quantiles, places, rows[i],
            scratch, out_n, out_span, out, matrix,
        )  # fmt: skip
    return truncated
