"""Compiled kernels of panes: samples summed up by slices of event time, and look-backs put together from them.

A pane of a field is relative to its first sample (BASE): the sum of what samples differ from it, compensated (EXCESS and
LOST), and the squares around the mean, sample by sample (SQUARES). Panes are put together when they are read and never
subtracted: what has left leaves no trace, as it goes with its pane.

The cells of a key are a ring: pane p, which is the time p * resolution to (p + 1) * resolution, lies in cell p % panes, and
the newest pane of the key says which one a cell holds.
"""

import numpy as np

from streamer.operators.aggregates import FIRST, MAX, MEAN, MIN, NEED_FIRST, NEED_RANGE, NEED_STD, NEED_SUM, STD, SUM
from streamer.state.kernel_cache import njit

# What a pane keeps of a field, as far as it is asked for; MIDDLE is (EXCESS + LOST) / n. An empty cell holds what changes
# nothing, so that reading passes over it without a question.
BASE, EXCESS, LOST, SQUARES, MIDDLE, LOW, HIGH, OLDEST = 0, 1, 2, 3, 4, 5, 6, 7
PARTS = 8


@njit("void(float64, boolean, boolean, float64, int64[::1], int64, float64[:, ::1])", cache=True, nogil=True)
def _add(value, fresh, first, n, at, cell, parts):  # type: ignore[no-untyped-def]
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


@njit("float64(float64[::1], int64, int64)", cache=True, nogil=True)
def _count(n, begin, end):  # type: ignore[no-untyped-def]
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


@njit("float64(float64[::1], float64[:, ::1], int64[::1], float64, int64, int64)", cache=True, nogil=True)
def _differences(n, parts, at, base, begin, end):  # type: ignore[no-untyped-def]
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


@njit("float64(float64[::1], float64[:, ::1], int64[::1], float64, float64, int64, int64)", cache=True, nogil=True)
def _squares(n, parts, at, base, mean, begin, end):  # type: ignore[no-untyped-def]
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


@njit("UniTuple(float64, 2)(float64[:, ::1], int64[::1], int64, int64)", cache=True, nogil=True)
def _range(parts, at, begin, end):  # type: ignore[no-untyped-def]
    lows, highs = parts[at[LOW]], parts[at[HIGH]]
    low, high = np.inf, -np.inf
    for j in range(begin, end):
        low = lows[j] if lows[j] < low else low
        high = highs[j] if highs[j] > high else high
    return low, high


@njit(
    "void(float64[::1], float64[:, ::1], int64[::1], int64, int64, float64, uint8, float64[:, :, ::1], int64, int64)",
    cache=True,
    nogil=True,
)
def _combine(n, parts, at, start, cells, count, need, out, column, row):  # type: ignore[no-untyped-def]
    """What so many cells from `start` on, which has samples, come to for one field; `count` samples in all.

    Two passes, as over samples: first the mean, relative to the oldest base, then the squares around it. The ring is read in
    two runs, up to its end and on from its beginning.
    """
    panes = n.shape[0]
    end, rest = min(start + cells, panes), max(start + cells - panes, 0)
    if need & (NEED_SUM | NEED_STD):
        base = parts[at[BASE], start]
        excess = _differences(n, parts, at, base, start, end) + _differences(n, parts, at, base, 0, rest)
        mean = excess / count
        out[column, SUM, row] = count * base + excess
        out[column, MEAN, row] = base + mean
        if need & NEED_STD:
            squares = _squares(n, parts, at, base, mean, start, end) + _squares(n, parts, at, base, mean, 0, rest)
            out[column, STD, row] = np.sqrt(squares / count)
    if need & NEED_RANGE:
        low, high = _range(parts, at, start, end)
        more_low, more_high = _range(parts, at, 0, rest)
        out[column, MIN, row], out[column, MAX, row] = min(low, more_low), max(high, more_high)
    if need & NEED_FIRST:
        out[column, FIRST, row] = parts[at[OLDEST], start]


@njit("void(float64, uint8, float64[:, :, ::1], int64, int64)", cache=True, nogil=True)
def _alone(value, need, out, column, row):  # type: ignore[no-untyped-def]
    """The window of one sample."""
    if need & (NEED_SUM | NEED_STD):
        out[column, SUM, row] = out[column, MEAN, row] = value
        out[column, STD, row] = 0.0
    if need & NEED_RANGE:
        out[column, MIN, row] = out[column, MAX, row] = value
    out[column, FIRST, row] = value


@njit("boolean(int64, int64[::1], int64, float64[::1], float64[:, ::1], int64[:, ::1])", cache=True, nogil=True)
def _admit(pane, ends, slot, n, parts, at):  # type: ignore[no-untyped-def]
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
    return pane >= ends[slot] - panes


@njit(
    "void(int32[::1], int64[::1], float64[:, ::1], int64[::1], int64[::1], int64, int64[::1], float64[:, ::1], int64[:, ::1],"
    " float64[:, :, ::1], int64[:, ::1], uint8[::1], int64[:, ::1], int64[:, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def roll_panes(  # type: ignore[no-untyped-def]
    slots, times, values, rows, looks, resolution, ends, n, first_t, parts, at, needs, out_n, out_span, out
):
    """Add each row to the pane of its time and put its key's look-backs together from panes.

    Arguments as for `kernels.roll_by_count`, with `looks` in panes and `resolution` the width of one in microseconds.
    `ends` (keys,) is the pane after the newest of a key, `n` (keys, panes) the samples in each cell, `first_t` (keys, panes)
    the earliest event time in it, or (keys, 0) when nobody asks for the first sample. `parts` (keys, parts, panes) is what
    is kept of the fields, `at` (fields, PARTS) the place of each part of a field, or -1.
    """
    fields, panes = at.shape[0], n.shape[1]
    for i in range(slots.shape[0]):
        slot, pane = slots[i], times[i] // resolution
        stored = _admit(pane, ends, slot, n[slot], parts[slot], at)
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
                _add(values[f, i], fresh, first, n[slot, cell], at[f], cell, parts[slot])
        if rows.shape[0] == 0:
            continue
        row = rows[i]
        for look in range(looks.shape[0]):
            if not stored:  # its pane is gone: it stands alone
                out_n[look, row], out_span[look, row] = 1, 0
                for f in range(fields):
                    _alone(values[f, i], needs[look * fields + f], out, look * fields + f, row)
                continue
            # Panes that have left are gone for late rows too, whether or not their cells are taken already.
            oldest = max(pane - looks[look] + 1, ends[slot] - panes, 0)
            while n[slot, oldest % panes] == 0:
                oldest += 1
            start, cells = oldest % panes, pane + 1 - oldest
            count = _count(n[slot], start, min(start + cells, panes)) + _count(n[slot], 0, max(start + cells - panes, 0))
            out_n[look, row] = count
            if first_t.shape[1]:
                out_span[look, row] = times[i] - first_t[slot, start]
            for f in range(fields):
                column = look * fields + f
                _combine(n[slot], parts[slot], at[f], start, cells, count, needs[column], out, column, row)
