"""decode, for an input that is joined as a table: a record without a value deletes the row of its key."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.limits import KEY_BYTES_MAX
from streamer.rows.batch import Batch
from streamer.rows.partitions import owed
from streamer.rows.records import Records
from streamer.stages.decode.decode import Decode
from streamer.topology.joins import UNREAD


@dataclass(frozen=True, slots=True)
class DecodeTable:
    """Turns polled records of a table into a `Batch`, the deleted rows among the others with NaN in all columns.

    Attributes:
        rows: decodes records with a value.
        columns: that leave it.
    """

    rows: Decode
    columns: tuple[str, ...]

    def __call__(self, records: Records) -> Batch:
        """Every record is a row, a deletion or a dead letter of the batch."""
        records.traces = []  # a row of a table is seen by others, and nothing else comes of it
        gone = _tombstones(records) if None in records.values else np.empty(0, np.int64)
        if not len(gone):
            return self._whole(self.rows(records))
        batch = self._whole(self.rows(records.take(np.setdiff1d(np.arange(len(records)), gone))))
        deleted = self._deleted(records.take(gone))
        batch.extend(deleted)
        batch.dead += deleted.dead
        batch.tally.inputs += deleted.tally.inputs
        # In the order of the log again; partitions do not care for each other's.
        batch.keep(np.lexsort((batch.offsets, batch.partitions)))
        batch.owed = owed(records.partitions, records.offsets)
        return batch

    def _whole(self, batch: Batch) -> Batch:
        if UNREAD in self.columns:
            batch.columns[UNREAD] = np.zeros(len(batch))
        return batch

    def _deleted(self, records: Records) -> Batch:
        """The deletions, at the time of their records: a record without a value has no other."""
        n, times = len(records), records.timestamps_ms * 1000
        batch = Batch.of(records, np.arange(n))
        batch.times_us, batch.columns = times, {name: np.full(n, np.nan) for name in self.columns}
        limit = self.rows.max_ahead_us
        ahead = (times > records.polled_us + limit) & ~batch.broker_stamped(np.arange(n))
        negative = times < 0
        for rule, reason, detail in (
            (
                ahead,
                "time_too_far_ahead",
                f"the record timestamp lies more than max_ahead = {limit / 1e6:g} s ahead",
            ),
            (negative, "time_negative", "the record has no timestamp, and a deletion no other time"),
        ):
            batch.dead += batch.letters(rule, "decode", reason, detail)
        batch.keep(np.flatnonzero(~(ahead | negative)))
        return batch


def _tombstones(records: Records) -> NDArray[np.int64]:
    keyed = zip(records.keys, records.values, strict=True)
    return np.array([row for row, (key, value) in enumerate(keyed) if value is None and _is_key(key)], np.int64)


def _is_key(key: bytes | None) -> bool:
    return key is not None and len(key) <= KEY_BYTES_MAX
