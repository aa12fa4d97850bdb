"""What a re-keyed store knows of the partitions its records came from: how far each has come, and what was seen of it.

The watermark of the store is that of the slowest of them. It is a function of the internal topic alone, record by record, so
every reading of that topic comes to the same one.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.state.compiled import Bools, Int32s, Int64Matrix, Int64s, njit

# Before any event time.
NO_TIME = np.iinfo(np.int64).min
# All partitions are silent: nobody holds the watermark back.
ALL_IDLE = np.iinfo(np.int64).max
# Columns of the table: largest event time, largest offset seen, whether the partition is silent.
_REACHED, _SEEN, _SILENT = range(3)
_UNHEARD = (NO_TIME, -1, 0)
# In the column of offsets of `look`: no record but a watermark, and the word that a partition is silent.
MARK, SILENCE = -1, -2


@njit
def _slowest(table: Int64Matrix) -> int:
    least = ALL_IDLE
    for p in range(table.shape[0]):
        if not table[p, _SILENT]:
            least = min(least, table[p, _REACHED])
    return least


@njit
def _look(
    table: Int64Matrix, partitions: Int32s, offsets: Int64s, reached: Int64s, seen: Bools, least: Int64s, latest: Int64s
) -> None:
    slowest, newest = _slowest(table), NO_TIME
    for p in range(table.shape[0]):
        newest = max(newest, table[p, _REACHED])
    for i in range(partitions.shape[0]):
        p, offset = partitions[i], offsets[i]
        seen[i] = offset >= 0 and offset <= table[p, _SEEN]
        if not seen[i]:
            before, silent = table[p, _REACHED], table[p, _SILENT]
            table[p, _SEEN] = max(table[p, _SEEN], offset)
            table[p, _REACHED] = max(before, reached[i])
            newest = max(newest, reached[i])
            table[p, _SILENT] = offset == SILENCE
            # Only who was the slowest, or joins in or leaves, changes who is.
            if silent != table[p, _SILENT] or before <= slowest:
                slowest = _slowest(table)
        least[i], latest[i] = slowest, newest


@dataclass(frozen=True, slots=True)
class Observed:
    """What records say, in their order.

    Attributes:
        changed: (k, 4) the partitions whose line changed, with their new lines.
        seen: (n,) whether it was here before: forwarded twice, as at-least-once may.
        least: (n,) after each record, the watermark of the slowest partition; NOBODY when all are silent.
        latest: (n,) after each record, the largest event time of all partitions.
    """

    changed: NDArray[np.int64]
    seen: NDArray[np.bool_]
    least: NDArray[np.int64]
    latest: NDArray[np.int64]


@dataclass(slots=True)
class SourceWatermarks:
    """One line for each partition of the source."""

    table: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 3), np.int64))

    @property
    def latest(self) -> int:
        """Largest event time of all partitions; NEVER at first."""
        return int(self.table[:, _REACHED].max(initial=NO_TIME))

    def look(self, count: int, partitions: NDArray[Any], offsets: NDArray[Any], reached: NDArray[Any]) -> Observed:
        """What records of a source with `count` partitions change; nothing is changed yet."""
        table = self._wide(count)
        n = len(partitions)
        seen, least, latest = np.empty(n, np.bool_), np.empty(n, np.int64), np.empty(n, np.int64)
        _look(
            table, np.ascontiguousarray(partitions, np.int32), np.ascontiguousarray(offsets, np.int64),
            np.ascontiguousarray(reached, np.int64), seen, least, latest,
        )  # fmt: skip
        known = len(self.table)
        lines = np.flatnonzero((table[:known] != self.table).any(axis=1))
        lines = np.concatenate([lines, np.arange(known, len(table))])
        return Observed(np.column_stack([lines, table[lines]]), seen, least, latest)

    def apply(self, changed: NDArray[np.int64]) -> None:
        """Take lines in, live and in a restore."""
        if len(changed):
            self.table = self._wide(int(changed[:, 0].max()) + 1)
            self.table[changed[:, 0]] = changed[:, 1:]

    def _wide(self, count: int) -> NDArray[np.int64]:
        """A copy with a line for each of so many."""
        table = np.empty((max(count, len(self.table)), 3), np.int64)
        table[:] = _UNHEARD
        table[: len(self.table)] = self.table
        return table


NO_CHANGE = np.empty((0, 4), np.int64)


def newest(changes: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The last word about each partition."""
    if len(changes) == 1:
        return changes[0]
    lines = {int(line[0]): line for change in changes for line in change}
    return np.array([lines[p] for p in sorted(lines)], np.int64).reshape(len(lines), 4)
