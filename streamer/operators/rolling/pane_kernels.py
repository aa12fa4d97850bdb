"""Compiled kernels of panes: samples summed up by slices of event time, and look-backs put together from them.

A pane of a field is relative to its first sample (BASE): the sum of what samples differ from it, compensated (EXCESS and
LOST), and the squares around the mean, sample by sample (SQUARES). Panes are put together when they are read and never
subtracted: what has left leaves no trace, as it goes with its pane.

The cells of a key are a ring: pane p, which is the time p * resolution to (p + 1) * resolution, lies in cell p % panes, and
the newest pane of the key says which one a cell holds.
"""

from typing import NamedTuple

import numpy as np

from streamer.operators.aggregates import (
    FIRST,
    MAX,
    MEAN,
    MIN,
    NEED_FIRST,
    NEED_RANGE,
    NEED_STD,
    NEED_SUM,
    STD,
    SUM,
    Answers,
    Ask,
)
from streamer.operators.rings import Operations
from streamer.state.compiled import Bytes, Float64Cube, Float64Matrix, Float64s, Int32, Int64Matrix, Int64s, Uint8, njit

# What a pane keeps of a field, as far as it is asked for; MIDDLE is (EXCESS + LOST) / n. An empty cell holds what changes
# nothing, so that reading passes over it without a question.
BASE, EXCESS, LOST, SQUARES, MIDDLE, LOW, HIGH, OLDEST = 0, 1, 2, 3, 4, 5, 6, 7
# The same where samples may be without a value: how many have one, when the oldest of these was, and the newest and when. Times
# are microseconds after the beginning of the pane, exact as float64.
GIVEN, OLDEST_AT, NEWEST, NEWEST_AT = 8, 9, 10, 11
PARTS = 12


class Panes(NamedTuple):
    """What is kept of each key.

    Attributes:
        resolution: width of a pane, microseconds.
        ends: (keys,) the pane after the newest of a key.
        n: (keys, panes) samples in each cell.
        first_t: (keys, panes) earliest event time in it, or (keys, 0) when nobody asks for the first sample.
        parts: (keys, parts, panes) of the fields.
    """

    resolution: int
    ends: Int64s
    n: Float64Matrix
    first_t: Int64Matrix
    parts: Float64Cube


class Cells(NamedTuple):
    """So many cells from `start` on, with so many samples in all."""

    start: int
    cells: int
    samples: float


@njit
def add(value: float, fresh: bool, first: bool, n: float, at: Int64s, cell: int, parts: Float64Matrix) -> None:  # noqa: FBT001 - numba
    """Add a value to a pane, the n-th; `first` when it is the earliest in event time so far."""
    if at[BASE] >= 0:
        if fresh:
            parts[at[BASE], cell] = value
        more, excess = value - parts[at[BASE], cell], parts[at[EXCESS], cell]
        total = excess + more
        parts[at[EXCESS], cell] = total
        parts[at[LOST], cell] += (excess - total) + more if abs(excess) >= abs(more) else (more - total) + excess
        if at[SQUARES] >= 0:
            middle = (total + parts[at[LOST], cell]) / n
            parts[at[SQUARES], cell] += (more - parts[at[MIDDLE], cell]) * (more - middle)
            parts[at[MIDDLE], cell] = middle
    if at[LOW] >= 0:
        parts[at[LOW], cell] = min(parts[at[LOW], cell], value)
        parts[at[HIGH], cell] = max(parts[at[HIGH], cell], value)
    if at[OLDEST] >= 0 and first:
        parts[at[OLDEST], cell] = value


@njit
def count_in(n: Float64s, begin: int, end: int) -> float:
    """Samples in the cells from `begin` to `end`."""
    a = b = c = d = 0.0
    whole = end - (end - begin) % 4
    for j in range(begin, whole, 4):
        a += n[j]
        b += n[j + 1]
        c += n[j + 2]
        d += n[j + 3]
    for j in range(whole, end):
        a += n[j]
    return (a + b) + (c + d)


@njit
def _differences(n: Float64s, parts: Float64Matrix, at: Int64s, base: float, begin: int, end: int) -> float:
    """Sum of what the samples in the cells from `begin` to `end` differ from `base`."""
    bases, excess, lost = parts[at[BASE]], parts[at[EXCESS]], parts[at[LOST]]
    a = b = c = d = 0.0
    whole = end - (end - begin) % 4
    for j in range(begin, whole, 4):
        a += n[j] * (bases[j] - base) + (excess[j] + lost[j])
        b += n[j + 1] * (bases[j + 1] - base) + (excess[j + 1] + lost[j + 1])
        c += n[j + 2] * (bases[j + 2] - base) + (excess[j + 2] + lost[j + 2])
        d += n[j + 3] * (bases[j + 3] - base) + (excess[j + 3] + lost[j + 3])
    for j in range(whole, end):
        a += n[j] * (bases[j] - base) + (excess[j] + lost[j])
    return (a + b) + (c + d)


@njit
def _squares(n: Float64s, parts: Float64Matrix, at: Int64s, base: float, mean: float, begin: int, end: int) -> float:
    """Squares around base + mean in the cells from `begin` to `end`; n * x * x, as n * (x * x) may be 0 times infinity."""
    bases, middle, squares = parts[at[BASE]], parts[at[MIDDLE]], parts[at[SQUARES]]
    a = b = c = d = 0.0
    whole = end - (end - begin) % 4
    for j in range(begin, whole, 4):
        x0, x1 = (bases[j] - base) + middle[j] - mean, (bases[j + 1] - base) + middle[j + 1] - mean
        x2, x3 = (bases[j + 2] - base) + middle[j + 2] - mean, (bases[j + 3] - base) + middle[j + 3] - mean
        a += squares[j] + n[j] * x0 * x0
        b += squares[j + 1] + n[j + 1] * x1 * x1
        c += squares[j + 2] + n[j + 2] * x2 * x2
        d += squares[j + 3] + n[j + 3] * x3 * x3
    for j in range(whole, end):
        x0 = (bases[j] - base) + middle[j] - mean
        a += squares[j] + n[j] * x0 * x0
    return (a + b) + (c + d)


@njit
def _range(parts: Float64Matrix, at: Int64s, begin: int, end: int) -> tuple[float, float]:
    lows, highs = parts[at[LOW]], parts[at[HIGH]]
    low, high = np.inf, -np.inf
    for j in range(begin, end):
        low = lows[j] if lows[j] < low else low
        high = highs[j] if highs[j] > high else high
    return low, high


@njit
def combine(
    cells: Cells, n: Float64s, parts: Float64Matrix, at: Int64s, need: Uint8, block: Float64Cube, column: int, row: int
) -> None:
    """What cells, of which the first has samples, come to for one field.

    Two passes, as over samples: first the mean, relative to the oldest base, then the squares around it. The ring is read in
    two runs, up to its end and on from its beginning.
    """
    panes, start, count = n.shape[0], cells.start, cells.samples
    end, rest = min(start + cells.cells, panes), max(start + cells.cells - panes, 0)
    if need & (NEED_SUM | NEED_STD):
        base = parts[at[BASE], start]
        excess = _differences(n, parts, at, base, start, end) + _differences(n, parts, at, base, 0, rest)
        mean = excess / count
        block[column, SUM, row] = count * base + excess
        block[column, MEAN, row] = base + mean
        if need & NEED_STD:
            squares = _squares(n, parts, at, base, mean, start, end) + _squares(n, parts, at, base, mean, 0, rest)
            block[column, STD, row] = np.sqrt(squares / count)
    if need & NEED_RANGE:
        low, high = _range(parts, at, start, end)
        more_low, more_high = _range(parts, at, 0, rest)
        block[column, MIN, row], block[column, MAX, row] = min(low, more_low), max(high, more_high)
    if need & NEED_FIRST:
        block[column, FIRST, row] = parts[at[OLDEST], start]


@njit
def alone(values: Float64Matrix, i: int, look: int, row: int, needs: Bytes, block: Float64Cube) -> None:
    """The window of one sample, column i of `values`."""
    fields = values.shape[0]
    for f in range(fields):
        column, value = look * fields + f, values[f, i]
        need = needs[column]
        if need & (NEED_SUM | NEED_STD):
            block[column, SUM, row] = block[column, MEAN, row] = value
            block[column, STD, row] = 0.0
        if need & NEED_RANGE:
            block[column, MIN, row] = block[column, MAX, row] = value
        block[column, FIRST, row] = value


@njit
def admit(pane: int, ends: Int64s, slot: Int32, n: Float64s, parts: Float64Matrix, at: Int64Matrix) -> bool:
    """Make room for a pane: the cells of newer ones are emptied first. False when it is older than all that are kept."""
    panes = n.shape[0]
    for later in range(max(ends[slot], pane - panes + 1), pane + 1):
        cell = later % panes
        n[cell] = 0
        for part in range(parts.shape[0]):
            parts[part, cell] = 0.0
        for f in range(at.shape[0]):
            if at[f, LOW] >= 0:
                parts[at[f, LOW], cell], parts[at[f, HIGH], cell] = np.inf, -np.inf
    ends[slot] = max(ends[slot], pane + 1)
    kept: bool = pane >= ends[slot] - panes
    return kept


@njit
def roll_panes(
    operations: Operations, rows: Int64s, looks: Int64s, kept: Panes, at: Int64Matrix, ask: Ask, answers: Answers
) -> None:
    """Add each row to the pane of its time and put its key's look-backs together from panes.

    Arguments as for `kernels.roll_by_count`, with `looks` in panes and `at` (fields, PARTS) the place of each part of a
    field, or -1.
    """
    slots, times, values = operations
    resolution, ends, n, first_t, parts = kept
    needs, block, counts, span_us = ask.needs, answers.block, answers.counts, answers.span_us
    fields, panes = at.shape[0], n.shape[1]
    for i in range(slots.shape[0]):
        slot, pane = slots[i], times[i] // resolution
        stored = admit(pane, ends, slot, n[slot], parts[slot], at)
        if stored:
            cell = pane % panes
            fresh = n[slot, cell] == 0
            first = False
            if first_t.shape[1]:
                first = fresh or times[i] < first_t[slot, cell]
                if first:
                    first_t[slot, cell] = times[i]
            n[slot, cell] += 1
            for f in range(fields):
                add(values[f, i], fresh, first, n[slot, cell], at[f], cell, parts[slot])
        if rows.shape[0] == 0:
            continue
        row = rows[i]
        for look in range(looks.shape[0]):
            if not stored:  # its pane is gone: it stands alone
                counts[look, row], span_us[look, row] = 1, 0
                alone(values, i, look, row, needs, block)
                continue
            # Panes that have left are gone for late rows too, whether or not their cells are taken already.
            oldest = max(pane - looks[look] + 1, ends[slot] - panes, 0)
            while n[slot, oldest % panes] == 0:
                oldest += 1
            start, cells = oldest % panes, pane + 1 - oldest
            count = count_in(n[slot], start, min(start + cells, panes)) + count_in(n[slot], 0, max(start + cells - panes, 0))
            counts[look, row] = count
            if first_t.shape[1]:
                span_us[look, row] = times[i] - first_t[slot, start]
            for f in range(fields):
                column = look * fields + f
                combine(Cells(start, cells, count), n[slot], parts[slot], at[f], needs[column], block, column, row)
