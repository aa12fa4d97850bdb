"""Pure arithmetic of the measurements: schedule, percentiles, rate from watermarks, median and spread."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Curve = Sequence[tuple[float, int]]  # (monotonic seconds, events committed), oldest first

HIGHEST_US = 3_600_000_000  # one hour: a latency above it counts as one hour
DIGITS = 3


def due(elapsed_s: float, rate: float, total: int) -> int:
    """How many events of a fixed schedule (event i at i / rate seconds) should have been sent by now."""
    if elapsed_s < 0:
        return 0
    return min(int(elapsed_s * rate) + 1, total)


def percentiles(values_ms: Floats) -> dict[str, float]:
    """p50, p90, p99, p999 and max of latencies in milliseconds, through an HdrHistogram of 3 digits.

    Raises:
        ValueError: no values, or a negative one (two clocks were compared that do not agree).
    """
    if values_ms.size == 0:
        raise ValueError("no latencies: nothing arrived after the warm-up")
    if values_ms.min() < 0:
        raise ValueError(f"latency of {values_ms.min():.3f} ms: sender and receiver read different clocks")
    histogram = HdrHistogram(1, HIGHEST_US, DIGITS)
    micros, counts = np.unique(np.maximum(np.rint(values_ms * 1e3), 1).astype(np.int64), return_counts=True)
    for value, count in zip(micros.tolist(), counts.tolist(), strict=True):
        histogram.record_value(min(value, HIGHEST_US), count)
    marks = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9, "max_ms": 100.0}
    return {name: round(histogram.get_value_at_percentile(mark) / 1e3, 3) for name, mark in marks.items()}


def rate_from_curve(curve: Curve, total: int) -> float:
    """Events per second from the first sample with anything committed to the first with all of it.

    What was committed by that first sample is left out of the count, as its time is out of the clock.

    Raises:
        ValueError: the curve never reaches `total`, or has a single sample between nothing and everything.
    """
    begun = next(((t, n) for t, n in curve if n > 0), None)
    ended = next(((t, n) for t, n in curve if n >= total), None)
    if begun is None or ended is None:
        raise ValueError(f"only {curve[-1][1] if curve else 0} of {total} events were committed")
    if ended[0] <= begun[0]:
        raise ValueError("everything was committed between two samples: preload more events")
    return (total - begun[1]) / (ended[0] - begun[0])


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median: how far apart repeated runs lie; 0 for one run."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def rotated(items: Sequence[Any], by: int) -> list[Any]:
    """The same items starting `by` later, so that no system always runs first or last."""
    cut = by % len(items) if items else 0
    return [*items[cut:], *items[:cut]]
