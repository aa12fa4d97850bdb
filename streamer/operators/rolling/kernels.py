"""Compiled window kernels. One call advances every key of a batch, row after row, in the order of the log.

What is asked is laid out in columns, one per look-back and field: column = look * fields + field.

Signatures are eager and cached: importing this module compiles once per machine (NUMBA_CACHE_DIR moves the cache).
"""

import numpy as np

from streamer.operators.aggregates import FIRST, NEED_MATRIX, NEED_ORDER, aggregate, in_order
from streamer.operators.rings import straight, unroll
from streamer.state.kernel_cache import njit


@njit(
    "void(float64[::1], int64, int64, uint8, float64[::1], float64[::1], float64[:, :, ::1], int64, int64)",
    cache=True,
    nogil=True,
)
def _run(ring, oldest, n, need, quantiles, scratch, out, column, row):  # type: ignore[no-untyped-def]
    """Aggregate n samples of a ring from `oldest` on, in their order."""
    samples = straight(ring, oldest, n, scratch)
    aggregate(samples, n, need, out, column, row)
    if need & NEED_ORDER:
        in_order(samples, n, quantiles, scratch, out, column, row)


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
                    unroll(ring[slot, f], oldest, n, matrix[places[column], row])
                # A full ring has no end: its samples are taken as they lie.
                if n == size and need & NEED_ORDER == 0:
                    aggregate(ring[slot, f], n, need, out, column, row)
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
                samples = straight(ring[f], begin, n, scratch)
            else:  # older than everything a full ring holds: it stands alone
                scratch[0] = values[f, i]
                samples = scratch[:1]
            out[column, FIRST, row] = samples[0]
            aggregate(samples, n, need, out, column, row)
            if need & NEED_MATRIX:
                unroll(samples, 0, n, matrix[places[column], row])
            if need & NEED_ORDER:
                in_order(samples, n, quantiles[column], scratch, out, column, row)


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
