"""Compiled window kernels. One call advances every key of a batch, row after row, in the order of the log.

What is asked is laid out in columns, one per look-back and field: column = look * fields + field.

Signatures are eager and cached: importing this module compiles once per machine (NUMBA_CACHE_DIR moves the cache).
"""

from typing import NamedTuple

import numpy as np

from streamer.operators.aggregates import (
    FIRST,
    NEED_GAPS,
    NEED_MATRIX,
    NEED_ORDER,
    SPAN,
    Answers,
    Ask,
    aggregate,
    in_order,
    with_gaps,
)
from streamer.operators.rings import Operations, straight, unroll
from streamer.state.compiled import Float64Cube, Float64Matrix, Float64s, Int64Matrix, Int64s, njit


class CountRings(NamedTuple):
    """Samples of each key, the newest at place (seen - 1) % samples.

    Attributes:
        seen: (keys,) samples ever appended to a key.
        ring: (keys, fields, samples).
        ring_t: (keys, samples) event times, or (keys, 0) when nobody asks for a rate.
    """

    seen: Int64s
    ring: Float64Cube
    ring_t: Int64Matrix


class TimeRings(NamedTuple):
    """Samples of each key, sorted by event time, ties in log order.

    Attributes:
        starts, held: (keys,) place of the oldest, and how many there are.
        ring: (keys, fields, samples).
        ring_t: (keys, samples) event times.
    """

    starts: Int64s
    held: Int64s
    ring: Float64Cube
    ring_t: Int64Matrix


class _Row(NamedTuple):
    """An event of a key whose samples begin at `start`: its own has a `place` among them, unless it is not `stored`.

    `source` is where it stands in the input, `row` where its answers go.
    """

    time: int
    start: int
    place: int
    stored: bool
    source: int
    row: int


@njit
def _run(ring: Float64s, oldest: int, n: int, column: int, row: int, ask: Ask, scratch: Float64s, block: Float64Cube) -> None:
    """Aggregate n samples of a ring from `oldest` on, in their order."""
    samples, need = straight(ring, oldest, n, scratch), ask.needs[column]
    aggregate(samples, n, need, block, column, row)
    if need & NEED_ORDER:
        in_order(samples, n, ask.quantiles[column], scratch, block, column, row)


@njit
def _between(ring_t: Int64s, older: int, newer: int) -> int:
    """Time between two places of a ring, counted on beyond its end; 0 where no times are kept."""
    size = ring_t.shape[0]
    passed: int = ring_t[newer % size] - ring_t[older % size] if size else 0
    return passed


@njit
def roll_by_count(operations: Operations, rows: Int64s, looks: Int64s, rings: CountRings, ask: Ask, answers: Answers) -> None:
    """Append each row to its key's ring and aggregate the last samples of that key in log order.

    Args:
        operations: samples alone.
        rows: (n,) where answers go; empty to advance the state only (a restore).
        looks: (looks,) samples per look-back, none more than a ring has.
        rings: where they go.
        ask: of each column.
        answers: of each row.
    """
    slots, times, values = operations
    seen, ring, ring_t = rings
    needs, places = ask.needs, ask.places
    counts, span_us, block, matrix = answers
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
            counts[look, row] = n
            if keeps_time:
                span_us[look, row] = times[i] - ring_t[slot, oldest]
            for f in range(fields):
                column = look * fields + f
                need = needs[column]
                block[column, FIRST, row] = ring[slot, f, oldest]
                if need & NEED_MATRIX:
                    unroll(ring[slot, f], oldest, n, matrix[places[column], row])
                if need & NEED_GAPS:
                    samples = straight(ring[slot, f], oldest, n, scratch)
                    older, newer = with_gaps(samples, n, need, ask.quantiles[column], scratch, block, column, row)
                    block[column, block.shape[1] + SPAN, row] = _between(ring_t[slot], oldest + older, oldest + newer)
                # A full ring has no end: its samples are taken as they lie.
                elif n == size and need & NEED_ORDER == 0:
                    aggregate(ring[slot, f], n, need, block, column, row)
                else:
                    _run(ring[slot, f], oldest, n, column, row, ask, scratch, block)


@njit
def _later_than(ring_t: Int64s, start: int, held: int, time: int) -> int:
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


@njit
def _shift(ring_t: Int64s, ring: Float64Matrix, first: int, count: int, step: int) -> None:
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


@njit
def _open_gap(ring_t: Int64s, ring: Float64Matrix, start: int, held: int, place: int) -> int:
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


@njit
def _look_back(
    looks: Int64s, event: _Row, ring_t: Int64s, ring: Float64Matrix, values: Float64Matrix, ask: Ask, scratch: Float64s,
    answers: Answers,
) -> None:  # fmt: skip
    """Aggregate the samples of one key in (time - look, time], the one at `place` being the newest of them."""
    fields, size = ring.shape
    time, start, place, stored, source, row = event
    needs, quantiles, places = ask
    counts, span_us, block, matrix = answers
    for look in range(looks.shape[0]):
        since = time - looks[look]
        first = place
        if stored:
            first = 0 if ring_t[start] > since else _later_than(ring_t, start, place, since)
        n, begin = place - first + 1, (start + first) % size
        counts[look, row] = n
        span_us[look, row] = time - ring_t[begin] if stored else 0
        for f in range(fields):
            column = look * fields + f
            need = needs[column]
            if stored:
                samples = straight(ring[f], begin, n, scratch)
            else:  # older than everything a full ring holds: it stands alone
                scratch[0] = values[f, source]
                samples = scratch[:1]
            block[column, FIRST, row] = samples[0]
            if need & NEED_MATRIX:
                unroll(samples, 0, n, matrix[places[column], row])
            if need & NEED_GAPS:
                older, newer = with_gaps(samples, n, need, quantiles[column], scratch, block, column, row)
                block[column, block.shape[1] + SPAN, row] = _between(ring_t, begin + older, begin + newer) if stored else 0
                continue
            aggregate(samples, n, need, block, column, row)
            if need & NEED_ORDER:
                in_order(samples, n, quantiles[column], scratch, block, column, row)


@njit
def roll_by_time(operations: Operations, rows: Int64s, looks: Int64s, rings: TimeRings, ask: Ask, answers: Answers) -> int:
    """Insert each row by event time and aggregate its key's samples in (time - look, time], for every look-back.

    The ring of a key is kept sorted by event time, ties in log order; when it is full the oldest sample goes.
    Arguments as for `roll_by_count`, with `looks` in microseconds.

    Returns:
        How many windows lost samples that were still inside the widest look-back.
    """
    slots, times, values = operations
    starts, held, ring, ring_t = rings
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
        event = _Row(time, start, place, stored, i, rows[i])
        _look_back(looks, event, ring_t[slot], ring[slot], values, ask, scratch, answers)
    return truncated
