"""The receiving side: headers off, origin and watermarks into columns, the rest as in any other flow."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamer.batch import Batch, DeadLetter, Origin, Records
from streamer.rekey import header
from streamer.stages.decode import owed

FOREIGN = "not_rekeyed"
_WHY = "the internal topic is for our own records, and this one has no header of ours; who produces to it?"


@dataclass(slots=True)
class Receive:
    """Decodes records of an internal topic.

    Attributes:
        source: topic that the records came from.
        decode: turns values into a batch.
    """

    source: str
    decode: Callable[[Records], Batch]

    def __call__(self, records: Records) -> Batch:
        """Every record is a row, a dead letter, or nothing but a watermark."""
        heads, ours = header.read(records.values)
        events = np.flatnonzero(ours & (heads["offset"] != header.NO_RECORD))
        batch = self.decode(self._unwrapped(records.only(events), heads[events]))
        batch.owed = owed(records.partitions, records.offsets)
        batch.silent = int(ours.sum()) - len(events)
        if not ours.all():
            batch.dead += [_foreign(records, row) for row in np.flatnonzero(~ours).tolist()]
        return batch

    def _unwrapped(self, records: Records, heads: header.Heads) -> Records:
        keys, values = header.split(heads, [value or b"" for value in records.values])
        records.received = Origin(
            self.source, heads["partition"].copy(), heads["offset"].copy(), heads["timestamp_ms"].copy(), keys
        )
        records.values = list(values)
        return records


def _foreign(records: Records, row: int) -> DeadLetter:
    return DeadLetter(
        records.topic, int(records.partitions[row]), int(records.offsets[row]),
        records.keys[row], records.values[row], "decode", FOREIGN, _WHY,
    )  # fmt: skip
