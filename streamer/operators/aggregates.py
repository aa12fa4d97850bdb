"""Aggregates of samples: what may be asked of a field, compiled kernels that answer, and where the answers stand.

Aggregates are two-pass over the samples in the window, never running sums, and relative to one of the samples: they stay
right at a level of 1e9 and after a 1e200 has left, and a constant series has its value as mean and no deviation at all.
Four fixed lanes per sum let the compiler vectorise without reordering, so that a result depends on the samples alone and
not on how the input was cut into batches.

Signatures are eager and cached: importing this module compiles once per machine (NUMBA_CACHE_DIR moves the cache).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.state.compiled import Bytes, Float64Cube, Float64Matrix, Float64s, Int64Matrix, Int64s, Uint8, njit
from streamer.topology.view import Requested

# What a column is asked for, as bits, so that a pass nobody reads is not made.
NEED_SUM, NEED_STD, NEED_RANGE, NEED_MATRIX, NEED_FIRST, NEED_ORDER = 1, 2, 4, 8, 16, 32
# Not every sample has a value; then the newest one that has is asked for too, which else is the event's own.
NEED_GAPS, NEED_LAST = 64, 128
# Rows of the aggregate block; the quantiles of a column stand below.
SUM, MEAN, STD, MIN, MAX, FIRST, DISTINCT = 0, 1, 2, 3, 4, 5, 6
AGGREGATE_ROWS = 7
# Where some columns have gaps, the last rows are theirs: microseconds from the first value to the last, how many values there
# are, and the last one.
GAP_ROWS, SPAN, VALUES, LAST = 3, -3, -2, -1


class Ask(NamedTuple):
    """What is asked of each column: of a field over a look-back.

    Attributes:
        needs: (columns,) NEED_ bits.
        quantiles: (columns, q) NaN where a column has fewer.
        places: (columns,) which matrix a column fills, or -1.
    """

    needs: Bytes
    quantiles: Float64Matrix
    places: Int64s


class Answers(NamedTuple):
    """Where answers go, one for each row.

    Attributes:
        counts: (looks, rows) samples in the window.
        span_us: (looks, rows) event time between oldest and newest sample.
        block: (columns, AGGREGATE_ROWS and one more for each quantile, rows).
        matrix: (matrices, rows, samples), the newest sample at the right end.
    """

    counts: Int64Matrix
    span_us: Int64Matrix
    block: Float64Cube
    matrix: Float64Cube


@njit
def excess(samples: Float64s, n: int) -> float:
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


@njit
def squares(samples: Float64s, n: int, mean: float) -> float:
    """Sum of the squared differences to the mean."""
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


@njit
def extremes(samples: Float64s, n: int) -> tuple[float, float]:
    """Smallest and largest sample."""
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


@njit
def aggregate(samples: Float64s, n: int, need: Uint8, out: Float64Cube, column: int, row: int) -> None:
    """What `need` asks of n samples, into `out` (columns, AGGREGATE_ROWS and more, rows)."""
    if need & (NEED_SUM | NEED_STD):
        total = excess(samples, n)
        mean = samples[0] + total / n
        out[column, SUM, row] = n * samples[0] + total
        out[column, MEAN, row] = mean
        if need & NEED_STD:
            out[column, STD, row] = np.sqrt(squares(samples, n, mean) / n)
    if need & NEED_RANGE:
        out[column, MIN, row], out[column, MAX, row] = extremes(samples, n)


@njit
def in_order(samples: Float64s, n: int, quantiles: Float64s, scratch: Float64s, out: Float64Cube, column: int, row: int) -> None:
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


@njit
def no_values(out: Float64Cube, column: int, row: int) -> None:
    """NEED_GAPS, where no sample has a value: there are none, and all else is NaN."""
    for a in range(out.shape[1]):
        out[column, a, row] = np.nan
    out[column, out.shape[1] + VALUES, row] = 0.0


@njit
def with_gaps(
    samples: Float64s, n: int, need: Uint8, quantiles: Float64s, scratch: Float64s, out: Float64Cube, column: int, row: int
) -> tuple[int, int]:
    """NEED_GAPS: what `need` asks of those of n samples that have a value; NaN where none has.

    `scratch` has room for n samples and is used up; it may be `samples`.

    Returns:
        Places of the first and the last of them.
    """
    values = first = last = 0
    for j in range(n):
        if not np.isnan(samples[j]):
            first, last = j if values == 0 else first, j
            scratch[values] = samples[j]
            values += 1
    if values == 0:
        no_values(out, column, row)
        return first, last
    rows = out.shape[1]
    out[column, rows + VALUES, row] = values
    out[column, FIRST, row], out[column, rows + LAST, row] = scratch[0], scratch[values - 1]
    aggregate(scratch, values, need, out, column, row)
    if need & NEED_ORDER:
        in_order(scratch, values, quantiles, scratch, out, column, row)
    return first, last


def request_bits(name: str, needs: Requested) -> int:
    """What one look-back is asked of a field."""
    wanted = {aggregate for f, aggregate in needs.aggregates if f == name}
    bits = NEED_SUM if wanted & {"sum", "mean"} else 0
    bits |= NEED_STD if "std" in wanted else 0
    bits |= NEED_RANGE if wanted & {"min", "max"} else 0
    bits |= NEED_FIRST if wanted & {"first", "delta", "rate"} else 0
    bits |= NEED_ORDER if "distinct" in wanted or any(f == name for f, _ in needs.quantiles) else 0
    if name in needs.nullable:
        bits |= NEED_GAPS | (NEED_LAST if wanted & {"last", "delta", "rate"} else 0)
    return bits | (NEED_MATRIX if name in needs.matrices else 0)


def column_of(
    aggregate: str,
    block: NDArray[np.float64],
    newest: NDArray[Any],
    span_us: NDArray[Any],
    *,
    gaps: bool = False,
) -> NDArray[np.float64]:
    """One aggregate (rows,) from a field's block (AGGREGATE_ROWS and more, rows), its newest samples and the time they span.

    With gaps the block knows which are the newest values and what they span.
    """
    if gaps:
        return _column_with_gaps(aggregate, block)
    if aggregate == "last":
        return newest.astype(np.float64, copy=False)
    if aggregate in ("delta", "rate"):
        delta: NDArray[np.float64] = newest - block[FIRST]
        if aggregate == "delta":
            return delta
        return np.divide(delta, span_us / 1e6, out=np.zeros_like(delta), where=span_us > 0)
    rows = {
        "sum": SUM, "mean": MEAN, "std": STD,
        "min": MIN, "max": MAX, "first": FIRST, "distinct": DISTINCT,
    }  # fmt: skip
    return np.asarray(block[rows[aggregate]])


def _column_with_gaps(aggregate: str, block: NDArray[np.float64]) -> NDArray[np.float64]:
    if aggregate == "values":
        return np.asarray(block[VALUES])
    column = column_of(aggregate, block, block[LAST], block[SPAN])
    return np.where(block[VALUES] > 0, column, np.nan) if aggregate == "rate" else column
