"""Compiled kernels of joins: rows of several inputs wait in queues and are merged by event time.

Every row waits in the queue of its stream, sorted by event time, ties in log order. A sample of stream s at time u comes out
at u - shift[s], the first moment of the source's time from which on a row may see it; a row of the source comes out at its
own time, after the samples that come out then. Out of its queue a sample enters the ring of its key, and a row of the source
looks at the rings. So what a row sees depends on event times alone, and not on which input was read first.

A row of a table that was deleted lines up as any other, with NaN in place of its fields: no sample else is NaN.

Stream 0 is the source. Its rows enter a ring too, if they have a window of their own, each before it looks.
"""

import numpy as np

from streamer.operators.aggregates import FIRST, NEED_MATRIX, NEED_ORDER, SUM, aggregate, in_order
from streamer.operators.join.rows import HIDDEN, OFFSET, STREAM
from streamer.state.kernel_cache import njit
from streamer.topology.joins import FAR


@njit(
    "int64(int64, int64, int32, int64[:, ::1], int64[:, ::1], int32[:, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def _line_up(queue, time, slot, ends, q_time, q_slot, q_values):  # type: ignore[no-untyped-def]
    """Give a row its place in a queue: behind its ties, which came earlier in the log."""
    place = ends[queue, 1]
    while place > ends[queue, 0] and q_time[queue, place - 1] > time:
        q_time[queue, place] = q_time[queue, place - 1]
        q_slot[queue, place] = q_slot[queue, place - 1]
        for v in range(q_values.shape[2]):
            q_values[queue, place, v] = q_values[queue, place - 1, v]
        place -= 1
    q_time[queue, place], q_slot[queue, place] = time, slot
    ends[queue, 1] += 1
    return place


@njit(
    "void(int32[::1], int64[::1], float64[:, ::1], int64[::1], int64[:, ::1], int64[:, ::1], int32[:, ::1],"
    " float64[:, :, ::1], int64[::1], int64[::1])",
    cache=True,
    nogil=True,
)
def arrive(slots, times, values, widths, ends, q_time, q_slot, q_values, newest, waiting):  # type: ignore[no-untyped-def]
    """Line up samples; operations of other kinds are passed over.

    Args:
        slots, times, values: (n,), (n,) and (HIDDEN + fields, n), operations.
        widths: (streams,) values of a row in the queue: the fields, and for the source offset and timestamp before them.
        ends: (streams, 2) first row of each queue and the place behind the last.
        q_time, q_slot, q_values: (streams, capacity), and (streams, capacity, values).
        newest: (streams,) largest event time of each.
        waiting: (keys,) rows of a key in any queue.
    """
    for i in range(slots.shape[0]):
        slot, time = slots[i], times[i]
        if slot < 0:
            continue
        stream = np.int64(values[STREAM, i])
        newest[stream] = max(newest[stream], time)
        waiting[slot] += 1
        place = _line_up(stream, time, slot, ends, q_time, q_slot, q_values)
        first = HIDDEN if stream > 0 else OFFSET
        for v in range(widths[stream]):
            q_values[stream, place, v] = values[first + v, i]


@njit(
    "int64(int64[::1], float64[::1], int64, int64, int64, int64, int64, int64[::1], int64[::1], int64, float64[::1])",
    cache=True,
    nogil=True,
)
def _insert(ring_t, ring, stream, t_base, base, size, fields, starts, held, time, sample):  # type: ignore[no-untyped-def]
    """Put a sample among those of its key and stream, sorted by time; the oldest goes when there is no room.

    Returns:
        Time of the sample that went, perhaps its own; -FAR when none did.
    """
    start, n = starts[stream], held[stream]
    place = n
    while place > 0 and ring_t[t_base + (start + place - 1) % size] > time:
        place -= 1
    went = -FAR
    if n == size:
        if place == 0:
            return time
        went = ring_t[t_base + start]
        start = (start + 1) % size
        starts[stream], place, n = start, place - 1, n - 1
    for j in range(n, place, -1):
        to, source = (start + j) % size, (start + j - 1) % size
        ring_t[t_base + to] = ring_t[t_base + source]
        for f in range(fields):
            ring[base + f * size + to] = ring[base + f * size + source]
    to = (start + place) % size
    ring_t[t_base + to] = time
    for f in range(fields):
        ring[base + f * size + to] = sample[f]
    held[stream] = n + 1
    return went


@njit("int64(int64[::1], int64, int64, int64, int64, int64)", cache=True, nogil=True)
def _count_until(ring_t, t_base, size, start, held, time):  # type: ignore[no-untyped-def]
    """How many of the sorted samples have a time of at most `time`."""
    low, high = 0, held
    while low < high:
        middle = (low + high) // 2
        if ring_t[t_base + (start + middle) % size] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@njit(
    "void(int64, int64, int32, int64, boolean, float64[::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], float64[:, ::1],"
    " int64[:, ::1], int64[:, ::1], uint8[::1], float64[:, ::1], int64[::1], float64[::1], int64[:, ::1], int64[:, ::1],"
    " float64[:, :, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def _look(  # type: ignore[no-untyped-def]
    look, row, slot, time, alone, sample, looks, layout, ring_t, ring, starts, held, needs, quantiles, places, scratch, out_n,
    out_span, out, matrix
):  # fmt: skip
    """Aggregate what one look sees for one row; a row that came too late for its own ring sees itself `alone` there."""
    stream, column = looks[look, 0], looks[look, 4]
    size, fields, t_base, base = layout[stream, 0], layout[stream, 1], layout[stream, 2], layout[stream, 3]
    start, times = starts[slot, stream], ring_t[slot]
    end = _count_until(times, t_base, size, start, held[slot, stream], time + looks[look, 2])
    first = _count_until(times, t_base, size, start, end, time + looks[look, 1] - 1)
    if looks[look, 3] > 0:
        first = max(first, end - looks[look, 3])
    # The newest row of a table may say that there is none.
    if stream > 0 and looks[look, 3] == 1 and end > first and np.isnan(ring[slot, base + (start + end - 1) % size]):
        first = end
    alone = alone and stream == 0
    n = 1 if alone else end - first
    out_n[look, row] = n
    if n > 0 and not alone:
        out_span[look, row] = times[t_base + (start + end - 1) % size] - times[t_base + (start + first) % size]
    for f in range(fields):
        if n == 0:
            for a in range(out.shape[1]):
                out[column + f, a, row] = 0.0 if a == SUM else np.nan
            continue
        scratch[0] = sample[f]
        for j in range(0 if alone else n):
            scratch[j] = ring[slot, base + f * size + (start + first + j) % size]
        need = needs[column + f]
        out[column + f, FIRST, row] = scratch[0]
        out[column + f, out.shape[1] - 1, row] = scratch[n - 1]
        if need & NEED_MATRIX:
            width = matrix.shape[2]
            for j in range(n):
                matrix[places[column + f], row, width - n + j] = scratch[j]
        aggregate(scratch, n, need, out, column + f, row)
        if need & NEED_ORDER:
            in_order(scratch, n, quantiles[column + f], scratch, out, column + f, row)


@njit(
    "UniTuple(int64, 2)(int64, int64[::1], int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int32[:, ::1],"
    " float64[:, :, ::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], float64[:, ::1], int64[:, ::1],"
    " int64[:, ::1], uint8[::1], float64[:, ::1], int64[::1], boolean, int64[::1], int32[::1], float64[:, ::1],"
    " int64[:, ::1], int64[:, ::1], float64[:, :, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def release(  # type: ignore[no-untyped-def]
    limit, shifts, reach, own, ends, q_time, q_slot, q_values, waiting, looks, layout, ring_t, ring, starts, held, needs,
    quantiles, places, writes, out_time, out_slot, out_values, out_n, out_span, out, matrix
):  # fmt: skip
    """Merge the queues up to `limit`, exclusive: samples enter their rings, rows of the source look at them.

    Args:
        limit: in the source's time, microseconds.
        shifts: (streams,) how much earlier than its time a row comes out; 0 for the source.
        reach: (streams,) where the looks of the stream begin, relative to a row; FAR where only counts are looked at.
        own: (fields,) values of the source's rows that its own window keeps.
        ends, q_time, q_slot, q_values, waiting: as for `arrive`.
        looks: (looks, 5) stream, begin and end relative to the row's time (both inclusive), most samples or 0, first column.
        layout: (streams, 4) samples, fields, first place in ring_t and in ring.
        ring_t, ring: (keys, samples of all streams), (keys, fields times samples of all streams).
        starts, held: (keys, streams).
        needs, quantiles, places: of each column, as for the window kernels.
        writes: whether results are wanted; a restore wants none.
        out_time, out_slot, out_values: (rows,), (rows,), (rows, values): the rows that came out.
        out_n, out_span: (looks, rows).
        out: (columns, AGGREGATE_ROWS + q + 1, rows); the newest sample stands in the last row.
        matrix: (matrices, rows, samples).

    Returns:
        Rows that came out, and samples that went although a look still reached them.
    """
    scratch, sample = np.empty(max(1, layout[:, 0].max())), np.empty(max(1, q_values.shape[2]))
    streams = ends.shape[0]
    written = truncated = 0
    went = newest = -FAR
    while True:
        stream, due = -1, limit
        for turn in range(1, streams + 1):  # the source last
            s = turn % streams
            if ends[s, 0] < ends[s, 1] and q_time[s, ends[s, 0]] - shifts[s] < due:
                stream, due = s, q_time[s, ends[s, 0]] - shifts[s]
        if stream < 0:
            return written, truncated
        place = ends[stream, 0]
        ends[stream, 0] += 1
        time, slot = q_time[stream, place], q_slot[stream, place]
        waiting[slot] -= 1
        size, fields, t_base = layout[stream, 0], layout[stream, 1], layout[stream, 2]
        if size > 0:
            for f in range(fields):
                sample[f] = q_values[stream, place, f if stream > 0 else own[f]]
            went = _insert(
                ring_t[slot], ring[slot], stream, t_base, layout[stream, 3], size, fields, starts[slot], held[slot], time, sample,
            )  # fmt: skip
            newest = ring_t[slot, t_base + (starts[slot, stream] + held[slot, stream] - 1) % size]
            truncated += went >= newest - shifts[stream] + reach[stream]
        if stream > 0:
            continue
        alone = size > 0 and went == time and newest != time
        if writes:
            out_time[written], out_slot[written] = time, slot
            for v in range(out_values.shape[1]):
                out_values[written, v] = q_values[0, place, v]
            for look in range(looks.shape[0]):
                _look(
                    look, written, slot, time, alone, sample, looks, layout, ring_t, ring, starts, held, needs, quantiles,
                    places, scratch, out_n, out_span, out, matrix,
                )  # fmt: skip
        written += 1
