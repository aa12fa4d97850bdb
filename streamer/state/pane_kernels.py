"""Compiled kernels of panes: samples summed up by slices of event time, and look-backs put together from them.

A pane of a field is relative to its first sample (BASE): the sum of what samples differ from it, compensated (EXCESS and
LOST), and the squares around the mean, sample by sample (SQUARES). Panes are put together when they are read and never
subtracted: what has left leaves no trace, as it goes with its pane.

The cells of a key are a ring: pane p, which is the time p * resolution to (p + 1) * resolution, lies in cell p % panes, and
the newest pane of the key says which one a cell holds.
"""

import numpy as np
from numba import njit

from streamer.state.kernels import FIRST, MAX, MEAN, MIN, NEED_FIRST, NEED_RANGE, NEED_STD, NEED_SUM, STD, SUM

# What a pane keeps of a field, as far as it is asked for.
BASE, EXCESS, LOST, SQUARES, LOW, HIGH, OLDEST = 0, 1, 2, 3, 4, 5, 6
PARTS = 7


@njit("void(float64, boolean, boolean, int64, int64[::1], int64, float64[:, ::1])", cache=True, nogil=True)
def _add(value, fresh, first, n, at, cell, parts):  # type: ignore[no-untyped-def]
    """Add a value to a pane of n samples; `first` when it is the earliest in event time so far."""
    if at[BASE] >= 0:
        if fresh:
            parts[at[BASE], cell] = value
            parts[at[EXCESS], cell] = parts[at[LOST], cell] = 0.0
            if at[SQUARES] >= 0:
                parts[at[SQUARES], cell] = 0.0
        else:
            more, excess, lost = value - parts[at[BASE], cell], parts[at[EXCESS], cell], parts[at[LOST], cell]
            total = excess + more
            lost_now = lost + ((excess - total) + more if abs(excess) >= abs(more) else (more - total) + excess)
            if at[SQUARES] >= 0:
                parts[at[SQUARES], cell] += (more - (excess + lost) / n) * (more - (total + lost_now) / (n + 1))
            parts[at[EXCESS], cell], parts[at[LOST], cell] = total, lost_now
    if at[LOW] >= 0:
        parts[at[LOW], cell] = value if fresh or value < parts[at[LOW], cell] else parts[at[LOW], cell]
        parts[at[HIGH], cell] = value if fresh or value > parts[at[HIGH], cell] else parts[at[HIGH], cell]
    if at[OLDEST] >= 0 and first:
        parts[at[OLDEST], cell] = value


@njit(
    "void(int64[::1], float64[:, ::1], int64[::1], int64, int64, uint8, float64[:, :, ::1], int64, int64)",
    cache=True,
    nogil=True,
)
def _combine(n, parts, at, oldest, newest, need, out, column, row):  # type: ignore[no-untyped-def]
    """What the panes from `oldest` to `newest` come to for one field; the oldest has samples.

    Two passes, as over samples: first the mean, relative to the oldest base, then the squares around it.
    """
    panes = n.shape[0]
    start = oldest % panes
    if need & (NEED_SUM | NEED_STD):
        base, count, excess = parts[at[BASE], start], 0, 0.0
        cell = start
        for _ in range(newest - oldest + 1):
            if n[cell]:
                count += n[cell]
                excess += n[cell] * (parts[at[BASE], cell] - base) + (parts[at[EXCESS], cell] + parts[at[LOST], cell])
            cell = cell + 1 if cell + 1 < panes else 0
        out[column, SUM, row] = count * base + excess
        out[column, MEAN, row] = base + excess / count
        if need & NEED_STD:
            squares, cell = 0.0, start
            for _ in range(newest - oldest + 1):
                if n[cell]:
                    inner = (parts[at[EXCESS], cell] + parts[at[LOST], cell]) / n[cell]
                    apart = (parts[at[BASE], cell] - base) + inner - excess / count
                    squares += parts[at[SQUARES], cell] + n[cell] * (apart * apart)
                cell = cell + 1 if cell + 1 < panes else 0
            out[column, STD, row] = np.sqrt(squares / count)
    if need & NEED_RANGE:
        low, high, cell = parts[at[LOW], start], parts[at[HIGH], start], start
        for _ in range(newest - oldest + 1):
            if n[cell]:
                low, high = min(low, parts[at[LOW], cell]), max(high, parts[at[HIGH], cell])
            cell = cell + 1 if cell + 1 < panes else 0
        out[column, MIN, row], out[column, MAX, row] = low, high
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


@njit("UniTuple(int64, 2)(int64[::1], int64, int64)", cache=True, nogil=True)
def _held(n, oldest, newest):  # type: ignore[no-untyped-def]
    """The first pane with samples from `oldest` on, and how many samples there are up to `newest`, which has some."""
    panes = n.shape[0]
    cell, first, count = oldest % panes, newest, 0
    for pane in range(oldest, newest + 1):
        if n[cell]:
            first = min(first, pane)
            count += n[cell]
        cell = cell + 1 if cell + 1 < panes else 0
    return first, count


@njit("boolean(int64, int64[::1], int64, int64[::1])", cache=True, nogil=True)
def _admit(pane, newest, slot, n):  # type: ignore[no-untyped-def]
    """Make room for a pane: the cells of newer ones are emptied first. False when it is older than all that are kept."""
    panes = n.shape[0]
    if pane > newest[slot]:
        for later in range(max(newest[slot] + 1, pane - panes + 1), pane + 1):
            n[later % panes] = 0
        newest[slot] = pane
    return pane > newest[slot] - panes


@njit(
    "void(int32[::1], int64[::1], float64[:, ::1], int64[::1], int64[::1], int64, int64[::1], int64[:, ::1], int64[:, ::1],"
    " float64[:, :, ::1], int64[:, ::1], uint8[::1], int64[:, ::1], int64[:, ::1], float64[:, :, ::1])",
    cache=True,
    nogil=True,
)
def roll_panes(  # type: ignore[no-untyped-def]
    slots, times, values, rows, looks, resolution, newest, n, first_t, parts, at, needs, out_n, out_span, out
):
    """Add each row to the pane of its time and put its key's look-backs together from panes.

    Arguments as for `kernels.roll_by_count`, with `looks` in panes and `resolution` the width of one in microseconds.
    `newest` (keys,) is the newest pane of a key, `n` (keys, panes) the samples in each cell, `first_t` (keys, panes) the
    earliest event time in it, or (keys, 0) when nobody asks for the first sample. `parts` (keys, parts, panes) is what is
    kept of the fields, `at` (fields, PARTS) the place of each part of a field, or -1.
    """
    fields, panes = at.shape[0], n.shape[1]
    for i in range(slots.shape[0]):
        slot, pane = slots[i], times[i] // resolution
        stored = _admit(pane, newest, slot, n[slot])
        if stored:
            cell = pane % panes
            fresh = n[slot, cell] == 0
            first = False
            if first_t.shape[1]:
                first = fresh or times[i] < first_t[slot, cell]
                if first:
                    first_t[slot, cell] = times[i]
            for f in range(fields):
                _add(values[f, i], fresh, first, n[slot, cell], at[f], cell, parts[slot])
            n[slot, cell] += 1
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
            oldest, count = _held(n[slot], max(pane - looks[look], newest[slot] - panes) + 1, pane)
            out_n[look, row] = count
            if first_t.shape[1]:
                out_span[look, row] = times[i] - first_t[slot, oldest % panes]
            for f in range(fields):
                column = look * fields + f
                _combine(n[slot], parts[slot], at[f], oldest, pane, needs[column], out, column, row)
