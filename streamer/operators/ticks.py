"""Time that comes from elsewhere: ticks among the rows of a partition, each at its place."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from streamer.rows.partitions import partition_rows

# Place and time, microseconds: a tick comes before row number `place` of its partition's rows.
Tick = tuple[int, int]
Ticks = Mapping[int, Sequence[Tick]]

NO_TICKS: Ticks = MappingProxyType({})
_NO_ROWS = np.empty(0, np.int64)


def order_of(times: NDArray[np.int64], keys: Sequence[bytes]) -> NDArray[np.int64] | None:
    """In which order rows leave that one tick gives, by event time and then by key; None where they stand in it.

    Slots, which say nothing to a reader, must not be seen in the output. Times stand in order already, and seldom two are equal.

    Args:
        times: (rows,) event times, never falling.
        keys: (rows,) of each.
    """
    if not np.count_nonzero(times[1:] == times[:-1]):
        return None
    at = times.tolist()
    return np.array(sorted(range(len(at)), key=lambda row: (at[row], keys[row])), np.int64)


def ticking_rows(partitions: NDArray[np.int32], ticks: Ticks) -> list[tuple[int, NDArray[np.int64]]]:
    """Each partition with its rows; time may move in partitions without a row."""
    parts = partition_rows(partitions)
    silent = ticks.keys() - {partition for partition, _ in parts} if ticks else ()
    return [*parts, *((partition, _NO_ROWS) for partition in sorted(silent))]


def segments(rows: NDArray[np.int64], ticks: Sequence[Tick]) -> Iterator[NDArray[np.int64] | int]:
    """The rows of a partition and the times of the ticks among them, one after the other; no part is without rows."""
    start = 0
    for place, time_us in ticks:
        if place > start:
            yield rows[start:place]
            start = place
        yield time_us
    if len(rows) > start:
        yield rows[start:]
