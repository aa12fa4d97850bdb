"""Compiled kernels of panes where samples may be without a value.

Of such a field a pane keeps the parts that it keeps of others, of the samples that have a value, and how many these are. It is
a kernel of its own, since the questions that it asks of each field cost the others a third of their time.
"""

from typing import NamedTuple

import numpy as np

from streamer.operators.aggregates import LAST, NEED_FIRST, NEED_GAPS, NEED_LAST, SPAN, VALUES, Answers, Ask, no_values
from streamer.operators.rings import Operations
from streamer.operators.rolling.pane_kernels import (
    GIVEN,
    NEWEST,
    NEWEST_AT,
    OLDEST,
    OLDEST_AT,
    Cells,
    Panes,
    add,
    admit,
    alone,
    combine,
    count_in,
)
from streamer.state.compiled import Bytes, Float64Cube, Float64Matrix, Int64Matrix, Int64s, Uint8, njit


class _Own(NamedTuple):
    """What an event brings of a field itself, NaN for nothing, and how long after the beginning of its pane; microseconds."""

    value: float
    after: float
    resolution: int


@njit
def _add_given(value: float, after: float, at: Int64s, cell: int, parts: Float64Matrix) -> None:
    """Add what a sample has of a field to a pane, so long after its beginning."""
    if np.isnan(value):
        return
    fresh = parts[at[GIVEN], cell] == 0
    parts[at[GIVEN], cell] += 1
    first = False
    if at[OLDEST] >= 0:
        first = fresh or after < parts[at[OLDEST_AT], cell]
        if first:
            parts[at[OLDEST_AT], cell] = after
    if at[NEWEST] >= 0 and (fresh or after >= parts[at[NEWEST_AT], cell]):
        parts[at[NEWEST], cell], parts[at[NEWEST_AT], cell] = value, after
    add(value, fresh, first, parts[at[GIVEN], cell], at, cell, parts)


@njit
def _combine_given(
    own: _Own, cells: Cells, parts: Float64Matrix, at: Int64s, need: Uint8, block: Float64Cube, column: int, row: int
) -> None:
    """What cells up to that of an event come to for one field."""
    given, rows = parts[at[GIVEN]], block.shape[1]
    panes, start, passed = given.shape[0], cells.start, cells.cells - 1
    values = count_in(given, start, min(start + passed + 1, panes)) + count_in(given, 0, max(start + passed + 1 - panes, 0))
    if values == 0:
        no_values(block, column, row)
        return
    block[column, rows + VALUES, row] = values
    while given[start] == 0:
        start, passed = (start + 1) % panes, passed - 1
    combine(Cells(start, passed + 1, values), given, parts, at, need, block, column, row)
    if need & NEED_LAST == 0:
        return
    last, after = own.value, own.after
    if np.isnan(last):
        while given[(start + passed) % panes] == 0:
            passed -= 1
        newest = (start + passed) % panes
        last, after = parts[at[NEWEST], newest], parts[at[NEWEST_AT], newest]
    block[column, rows + LAST, row] = last
    if need & NEED_FIRST:
        block[column, rows + SPAN, row] = passed * own.resolution + (after - parts[at[OLDEST_AT], start])


@njit
def _alone_given(values: Float64Matrix, i: int, look: int, row: int, needs: Bytes, block: Float64Cube) -> None:
    """The window of one sample, column i of `values`."""
    alone(values, i, look, row, needs, block)
    fields, rows = values.shape[0], block.shape[1]
    for f in range(fields):
        column, value = look * fields + f, values[f, i]
        if needs[column] & NEED_GAPS and np.isnan(value):
            no_values(block, column, row)
        elif needs[column] & NEED_GAPS:
            block[column, rows + VALUES, row], block[column, rows + LAST, row], block[column, rows + SPAN, row] = 1.0, value, 0.0


@njit
def _enter(i: int, operations: Operations, kept: Panes, at: Int64Matrix) -> None:
    """Add row i to its pane, which there is."""
    slots, times, values = operations
    resolution, _, n, first_t, parts = kept
    slot, pane = slots[i], times[i] // resolution
    cell = pane % n.shape[1]
    fresh = n[slot, cell] == 0
    first = False
    if first_t.shape[1]:
        first = fresh or times[i] < first_t[slot, cell]
        if first:
            first_t[slot, cell] = times[i]
    n[slot, cell] += 1
    for f in range(at.shape[0]):
        if at[f, GIVEN] >= 0:
            _add_given(values[f, i], float(times[i] - pane * resolution), at[f], cell, parts[slot])
        else:
            add(values[f, i], fresh, first, n[slot, cell], at[f], cell, parts[slot])


@njit
def roll_panes_with_gaps(
    operations: Operations, rows: Int64s, looks: Int64s, kept: Panes, at: Int64Matrix, ask: Ask, answers: Answers
) -> None:
    """What `roll_panes` does, where fields have a GIVEN part."""
    slots, times, values = operations
    resolution, ends, n, first_t, parts = kept
    needs, block, counts, span_us = ask.needs, answers.block, answers.counts, answers.span_us
    fields, panes = at.shape[0], n.shape[1]
    for i in range(slots.shape[0]):
        slot, pane = slots[i], times[i] // resolution
        stored = admit(pane, ends, slot, n[slot], parts[slot], at)
        if stored:
            _enter(i, operations, kept, at)
        if rows.shape[0] == 0:
            continue
        row = rows[i]
        for look in range(looks.shape[0]):
            if not stored:
                counts[look, row], span_us[look, row] = 1, 0
                _alone_given(values, i, look, row, needs, block)
                continue
            oldest = max(pane - looks[look] + 1, ends[slot] - panes, 0)
            while n[slot, oldest % panes] == 0:
                oldest += 1
            start, cells = oldest % panes, pane + 1 - oldest
            count = count_in(n[slot], start, min(start + cells, panes)) + count_in(n[slot], 0, max(start + cells - panes, 0))
            counts[look, row] = count
            if first_t.shape[1]:
                span_us[look, row] = times[i] - first_t[slot, start]
            seen = Cells(start, cells, count)
            for f in range(fields):
                column = look * fields + f
                if needs[column] & NEED_GAPS:
                    own = _Own(values[f, i], float(times[i] - pane * resolution), resolution)
                    _combine_given(own, seen, parts[slot], at[f], needs[column], block, column, row)
                else:
                    combine(seen, n[slot], parts[slot], at[f], needs[column], block, column, row)
