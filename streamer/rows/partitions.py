"""Which rows of a batch belong to which partition; asked several times for every batch.

Comparing once per partition took 99 us for 256 rows of 64 partitions, this takes 12; for 32 rows of 4 it is 6.6 against 2.7.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamer.state.compiled import Int32s, Int64s, njit


@njit
def _apart(partitions: Int32s) -> tuple[Int64s, Int64s, Int64s]:
    """Counting sort: the partitions there are, where each one's rows end, and all rows, partition by partition."""
    count = partitions.max() + 1 if len(partitions) else 0
    place = np.zeros(count + 1, np.int64)
    for partition in partitions:
        place[partition + 1] += 1
    found = np.flatnonzero(place[1:])
    place = np.cumsum(place)
    ends = place[found + 1]
    rows = np.empty(len(partitions), np.int64)
    for row in range(len(partitions)):
        rows[place[partitions[row]]] = row
        place[partitions[row]] += 1
    return found, ends, rows


def partition_rows(partitions: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int64]]]:
    """Each partition with its rows in log order."""
    found, ends, rows = _apart(partitions)
    starts = [0, *ends.tolist()]
    return [(partition, rows[start:end]) for partition, (start, end) in zip(found.tolist(), pairwise(starts), strict=True)]


def owed(partitions: NDArray[np.int32], offsets: NDArray[np.int64]) -> dict[int, int]:
    """Partition -> offset after the last of its records."""
    return {partition: int(offsets[rows[-1]]) + 1 for partition, rows in partition_rows(partitions)}
