"""Compiled kernels of joins: rows of several inputs wait in queues and are merged by event time.

Every row waits in the queue of its stream, sorted by event time, ties in log order. A sample of stream s at time u comes out
at u - shift[s], the first moment of the source's time from which on a row may see it; a row of the source comes out at its
own time, after the samples that come out then. Out of its queue a sample enters the ring of its key, and a row of the source
looks at the rings. So what a row sees depends on event times alone, and not on which input was read first.

A row of a table that was deleted lines up as any other, with NaN in place of its fields. Where these may be without a value,
NaN too, one that never is stands before them.

Stream 0 is the source. Its rows enter a ring too, if they have a window of their own, each before it looks.
"""

from typing import NamedTuple

import numpy as np

from streamer.operators.aggregates import (
    FIRST,
    NEED_GAPS,
    NEED_MATRIX,
    NEED_ORDER,
    SPAN,
    SUM,
    VALUES,
    Answers,
    Ask,
    aggregate,
    in_order,
    with_gaps,
)
from streamer.operators.join.rows import HIDDEN, OFFSET, STREAM
from streamer.operators.rings import Operations
from streamer.state.compiled import (
    Float64Cube,
    Float64Matrix,
    Float64s,
    Int32,
    Int32Matrix,
    Int32s,
    Int64Matrix,
    Int64s,
    njit,
)
from streamer.topology.joins import FAR


class Streams(NamedTuple):
    """What is known of the streams beforehand.

    Attributes:
        shifts: (streams,) how much earlier than its time a row comes out; 0 for the source.
        reach: (streams,) where the looks of the stream begin, relative to a row; FAR where only counts are looked at.
        widths: (streams,) values of a row in the queue: the fields, and for the source offset and timestamp before them.
        layout: (streams, 4) samples, fields, first place in the rings' times and in their samples.
        own: (fields,) values of the source's rows that its own window keeps.
    """

    shifts: Int64s
    reach: Int64s
    widths: Int64s
    layout: Int64Matrix
    own: Int64s


class Queues(NamedTuple):
    """Rows that wait.

    Attributes:
        ends: (streams, 2) first row of each queue and the place behind the last.
        times, slots, values: (streams, capacity), and (streams, capacity, values).
        newest: (streams,) largest event time of each.
        waiting: (keys,) rows of a key in any queue.
    """

    ends: Int64Matrix
    times: Int64Matrix
    slots: Int32Matrix
    values: Float64Cube
    newest: Int64s
    waiting: Int64s


class Rings(NamedTuple):
    """Samples that rows look at.

    Attributes:
        times, samples: (keys, samples of all streams), (keys, fields times samples of all streams).
        starts, held: (keys, streams).
    """

    times: Int64Matrix
    samples: Float64Matrix
    starts: Int64Matrix
    held: Int64Matrix


class Out(NamedTuple):
    """Room for rows that come out.

    Attributes:
        times, slots, values: (rows,), (rows,), (rows, values).
        answers: what they saw; the newest sample stands in the last row of a block.
    """

    times: Int64s
    slots: Int32s
    values: Float64Matrix
    answers: Answers


class _Row(NamedTuple):
    """A row of the source: the how manieth that comes out, and its sample; one that came too late for its own ring is `alone`."""

    number: int
    slot: Int32
    time: int
    alone: bool
    sample: Float64s


@njit
def _line_up(queue: int, time: int, slot: Int32, queues: Queues) -> int:
    """Give a row its place in a queue: behind its ties, which came earlier in the log."""
    ends, q_time, q_slot, q_values = queues.ends, queues.times, queues.slots, queues.values
    place: int = ends[queue, 1]
    while place > ends[queue, 0] and q_time[queue, place - 1] > time:
        q_time[queue, place] = q_time[queue, place - 1]
        q_slot[queue, place] = q_slot[queue, place - 1]
        for v in range(q_values.shape[2]):
            q_values[queue, place, v] = q_values[queue, place - 1, v]
        place -= 1
    q_time[queue, place], q_slot[queue, place] = time, slot
    ends[queue, 1] += 1
    return place


@njit
def arrive(operations: Operations, streams: Streams, queues: Queues) -> None:
    """Line up samples, of which `values` are (HIDDEN + fields, n); operations of other kinds are passed over."""
    slots, times, values = operations
    widths, newest, waiting, q_values = streams.widths, queues.newest, queues.waiting, queues.values
    for i in range(slots.shape[0]):
        slot, time = slots[i], times[i]
        if slot < 0:
            continue
        stream = int(values[STREAM, i])
        newest[stream] = max(newest[stream], time)
        waiting[slot] += 1
        place = _line_up(stream, time, slot, queues)
        first = HIDDEN if stream > 0 else OFFSET
        for v in range(widths[stream]):
            q_values[stream, place, v] = values[first + v, i]


@njit
def _insert(slot: Int32, stream: int, time: int, sample: Float64s, layout: Int64s, rings: Rings) -> int:
    """Put a sample among those of its key and stream, sorted by time; the oldest goes when there is no room.

    Returns:
        Time of the sample that went, perhaps its own; -FAR when none did.
    """
    ring_t, ring, starts, held = rings.times[slot], rings.samples[slot], rings.starts[slot], rings.held[slot]
    size, fields, t_base, base = layout[0], layout[1], layout[2], layout[3]
    start, n = starts[stream], held[stream]
    place = n
    while place > 0 and ring_t[t_base + (start + place - 1) % size] > time:
        place -= 1
    went: int = -FAR
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


@njit
def _count_until(ring_t: Int64s, t_base: int, size: int, start: int, held: int, time: int) -> int:
    """How many of the sorted samples have a time of at most `time`."""
    low, high = 0, held
    while low < high:
        middle = (low + high) // 2
        if ring_t[t_base + (start + middle) % size] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@njit
def _seen(look: Int64s, slot: Int32, time: int, layout: Int64s, rings: Rings) -> tuple[int, int]:
    """The samples of a key that one look sees at a time: the place of the first, and behind the last."""
    stream, most = look[0], look[3]
    size, t_base, base = layout[0], layout[2], layout[3]
    start, times = rings.starts[slot, stream], rings.times[slot]
    end = _count_until(times, t_base, size, start, rings.held[slot, stream], time + look[2])
    first = _count_until(times, t_base, size, start, end, time + look[1] - 1)
    if most > 0:
        first = max(first, end - most)
    # The newest row of a table may say that there is none.
    if stream > 0 and most == 1 and end > first and np.isnan(rings.samples[slot, base + (start + end - 1) % size]):
        first = end
    return first, end


@njit
def _look(
    look: int, row: _Row, looks: Int64Matrix, streams: Streams, rings: Rings, ask: Ask, scratch: Float64s, out: Out
) -> None:
    """Aggregate what one look sees for one row; one that is alone sees itself in its own ring."""
    stream, column, slot, number = looks[look, 0], looks[look, 4], row.slot, row.number
    needs, quantiles, places = ask
    counts, span_us, block, matrix = out.answers
    layout, ring, times, start = streams.layout[stream], rings.samples, rings.times[slot], rings.starts[slot, stream]
    size, fields, t_base, base = layout[0], layout[1], layout[2], layout[3]
    first, end = _seen(looks[look], slot, row.time, layout, rings)
    alone = row.alone and stream == 0
    n = 1 if alone else end - first
    counts[look, number] = n
    if n > 0 and not alone:
        span_us[look, number] = times[t_base + (start + end - 1) % size] - times[t_base + (start + first) % size]
    for f in range(fields):
        if n == 0:
            for a in range(block.shape[1]):
                block[column + f, a, number] = 0.0 if a == SUM else np.nan
            if needs[column + f] & NEED_GAPS:
                block[column + f, block.shape[1] + VALUES, number] = 0.0
            continue
        scratch[0] = row.sample[f]
        for j in range(0 if alone else n):
            scratch[j] = ring[slot, base + f * size + (start + first + j) % size]
        need = needs[column + f]
        block[column + f, FIRST, number] = scratch[0]
        block[column + f, block.shape[1] - 1, number] = scratch[n - 1]
        if need & NEED_MATRIX:
            width = matrix.shape[2]
            for j in range(n):
                matrix[places[column + f], number, width - n + j] = scratch[j]
        if need & NEED_GAPS:
            older, newer = with_gaps(scratch, n, need, quantiles[column + f], scratch, block, column + f, number)
            between = times[t_base + (start + first + newer) % size] - times[t_base + (start + first + older) % size]
            block[column + f, block.shape[1] + SPAN, number] = 0 if alone else between
            continue
        aggregate(scratch, n, need, block, column + f, number)
        if need & NEED_ORDER:
            in_order(scratch, n, quantiles[column + f], scratch, block, column + f, number)


@njit
def _next(limit: int, shifts: Int64s, ends: Int64Matrix, times: Int64Matrix) -> int:
    """The stream whose first row comes out next, -1 when none does before `limit`."""
    streams = ends.shape[0]
    stream, due = -1, limit
    for turn in range(1, streams + 1):  # the source last
        s = turn % streams
        if ends[s, 0] < ends[s, 1] and times[s, ends[s, 0]] - shifts[s] < due:
            stream, due = s, times[s, ends[s, 0]] - shifts[s]
    return stream


@njit
def release(
    limit: int, streams: Streams, queues: Queues, rings: Rings, looks: Int64Matrix, ask: Ask, out: Out
) -> tuple[int, int]:
    """Merge the queues up to `limit`, exclusive: samples enter their rings, rows of the source look at them.

    Args:
        limit: in the source's time, microseconds.
        streams: what is known of them.
        queues: where rows wait.
        rings: what they look at.
        looks: (looks, 5) stream, begin and end relative to the row's time (both inclusive), most samples or 0, first column.
        ask: of each column.
        out: where results go; a restore has no room for them, and they are not made.

    Returns:
        Rows that came out, and samples that went although a look still reached them.
    """
    shifts, reach, _, layout, own = streams
    ends, q_times, q_slots, values, _, waiting = queues
    times, _, starts, held = rings
    out_times, out_slots, out_values, _ = out
    scratch, sample = np.empty(max(1, layout[:, 0].max())), np.empty(max(1, values.shape[2]))
    written = truncated = 0
    went = newest = -FAR
    while True:
        stream = _next(limit, shifts, ends, q_times)
        if stream < 0:
            return written, truncated
        place = ends[stream, 0]
        ends[stream, 0] += 1
        time, slot = q_times[stream, place], q_slots[stream, place]
        waiting[slot] -= 1
        size, t_base = layout[stream, 0], layout[stream, 2]
        if size > 0:
            for f in range(layout[stream, 1]):
                sample[f] = values[stream, place, f if stream > 0 else own[f]]
            went = _insert(slot, stream, time, sample, layout[stream], rings)
            newest = times[slot, t_base + (starts[slot, stream] + held[slot, stream] - 1) % size]
            truncated += went >= newest - shifts[stream] + reach[stream]
        if stream > 0:
            continue
        if out_times.shape[0] > 0:
            out_times[written], out_slots[written] = time, slot
            for v in range(out_values.shape[1]):
                out_values[written, v] = values[0, place, v]
            row = _Row(written, slot, time, size > 0 and went == time and newest != time, sample)
            for look in range(looks.shape[0]):
                _look(look, row, looks, streams, rings, ask, scratch, out)
        written += 1
