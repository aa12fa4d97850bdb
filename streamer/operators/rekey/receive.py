"""The receiving side: headers off, origins into columns, and the watermark of the slowest partition as ticks for the windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.operators.operator import Inputs, Ticked
from streamer.operators.rekey import header
from streamer.operators.rekey.tick_schedule import TickSchedule
from streamer.operators.ticks import Tick
from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.partitions import owed, partition_rows
from streamer.rows.payload import PLAIN, Payload
from streamer.rows.per_row import WHOLE
from streamer.rows.records import Origin, Records, headers_of
from streamer.state.delta import Delta
from streamer.state.keyed_store import StateStore
from streamer.state.watermarks import ALL_IDLE, Observed, SourceWatermarks
from streamer.telemetry.metrics import Metrics

FOREIGN = "not_rekeyed"
_WHY = "the internal topic is for our own records, and this one has no header of ours; who produces to it?"


@dataclass(slots=True, kw_only=True, eq=False)
class Said(Payload):
    """What the records of an internal topic say of the partitions of the source, those that hold no event among them.

    Attributes:
        partitions_read, offsets: (records,) where each record lies in the internal topic; it need not be a row.
        heads: (records,) their headers, see `rekey.header`.
    """

    partitions_read: NDArray[np.int32] = field(metadata=WHOLE)
    offsets: NDArray[np.int64] = field(metadata=WHOLE)
    heads: header.Heads = field(metadata=WHOLE)


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
        events = np.flatnonzero(ours & (heads["offset"] >= 0))
        batch = self.decode(self._unwrapped(records.take(events), heads[events]))
        batch.owed = owed(records.partitions, records.offsets)
        batch.payload = Said(partitions_read=records.partitions[ours], offsets=records.offsets[ours], heads=heads[ours])
        batch.tally.inputs, batch.tally.silent = len(records), int(ours.sum()) - len(events)
        if not ours.all():
            batch.dead += [_foreign(records, row) for row in np.flatnonzero(~ours).tolist()]
        return batch

    def _unwrapped(self, records: Records, heads: header.Heads) -> Records:
        keys, values = header.split(heads, [value or b"" for value in records.values])
        records.received = Origin(
            topic=self.source, partitions=heads["partition"].copy(), offsets=heads["offset"].copy(),
            timestamps_ms=heads["timestamp_ms"].copy(), keys=keys,
        )  # fmt: skip
        records.values, records.messages = list(values), []
        return records


def _foreign(records: Records, row: int) -> DeadLetter:
    return DeadLetter(
        topic=records.topic, partition=int(records.partitions[row]), offset=int(records.offsets[row]),
        key=records.keys[row], value=records.values[row], stage="decode", reason=FOREIGN, detail=_WHY,
        timestamp_ms=int(records.timestamps_ms[row]), headers=headers_of(records.messages[row]),
    )  # fmt: skip


@dataclass(slots=True)
class RekeyedWindows:
    """The window stage behind an internal topic: rows that came twice go, and the windows are told the time.

    Attributes:
        stage: holds the windows.
        grid: which moments mean anything to them; None when none does.
    """

    stage: Ticked
    grid: TickSchedule | None

    @property
    def stores(self) -> Mapping[int, Any]:
        """Partition -> store."""
        return self.stage.stores

    @property
    def keys(self) -> int:
        """Live keys of all partitions."""
        return self.stage.keys

    @property
    def truncated(self) -> int:
        """Windows that lost samples."""
        return self.stage.truncated

    @property
    def evicted(self) -> int:
        """Keys that made room for others."""
        return self.stage.evicted

    def open(self, partition: int) -> StateStore | None:
        """A new, empty store for a partition."""
        return self.stage.open(partition)

    def close(self, partition: int) -> None:
        """Forget a partition."""
        self.stage.close(partition)

    def releasing(self, inputs: Inputs, clock: Clock, metrics: Metrics) -> None:
        """Time alone brings nothing about."""

    def __call__(self, batch: Batch) -> None:
        """Advance the windows."""
        said, batch.payload = Said.of(batch), PLAIN
        parts = partition_rows(said.partitions_read)
        looks = {partition: (records, self._look(partition, said.heads[records])) for partition, records in parts}
        for partition, (records, look) in looks.items():
            if look.seen.any():
                _drop(batch, partition, said.offsets[records[look.seen]])
        ticks = dict[int, list[Tick]]()
        for partition, (records, look) in looks.items():
            if self.grid is not None and (found := self._ticks(self.grid, batch, partition, said.offsets[records], look)):
                ticks[partition] = found
        self.stage(batch, ticks)
        for partition, (_, look) in looks.items():
            if len(look.changed):
                self.stores[partition].upstreams.apply(look.changed)
                delta = batch.deltas.setdefault(partition, Delta.empty(len(self.stores[partition].spec.fields)))
                delta.upstreams = look.changed

    def _look(self, partition: int, heads: header.Heads) -> Observed:
        count = int(heads["upstreams"].max())
        table: SourceWatermarks = self.stage.stores[partition].upstreams
        return table.look(count, heads["partition"], heads["offset"], heads["watermark_us"])

    def _ticks(self, grid: TickSchedule, batch: Batch, partition: int, offsets: NDArray[np.int64], look: Observed) -> list[Tick]:
        """Ticks among the rows of a partition: one where the slowest partition has come to another moment of the grid."""
        store = self.stores[partition]
        moments = grid.before(look.least)
        silent = look.least == ALL_IDLE
        moments[silent] = grid.after(look.latest[silent])
        reached = np.maximum.accumulate(np.concatenate([[store.watermark], moments]))
        if reached[0] == reached[-1]:
            return []
        moved = np.flatnonzero(reached[1:] > reached[:-1])
        rows = batch.offsets[batch.partitions == partition]
        places = np.searchsorted(rows, offsets[moved])
        return list(zip(places.tolist(), reached[1:][moved].tolist(), strict=True))


def _drop(batch: Batch, partition: int, offsets: NDArray[np.int64]) -> None:
    """Rows of these records go: at-least-once may forward a record twice, and a window takes it once."""
    again = (batch.partitions == partition) & np.isin(batch.offsets, offsets)
    batch.keep(np.flatnonzero(~again))
    batch.tally.silent += int(again.sum())
