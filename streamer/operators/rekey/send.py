"""The sending side: rows get their new key and their partition's watermark, and go on to the internal topic as they are."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.limits import REKEY_ROOM_BYTES
from streamer.operators.operator import Inputs
from streamer.operators.rekey import header
from streamer.rows.batch import Batch
from streamer.rows.oversize import refuse
from streamer.rows.partitions import partition_rows
from streamer.rows.payload import Payload
from streamer.rows.per_row import WHOLE
from streamer.rows.trace import NO_TRACE, attach
from streamer.state.keyed_store import StateStore
from streamer.state.murmur2 import partitions
from streamer.state.watermarks import MARK, NO_TIME, SILENCE
from streamer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from streamer.operators.rekey.alignment import WatermarkAlignment


@dataclass(slots=True, kw_only=True, eq=False)
class Told(Payload):
    """What a batch on the way to an internal topic says of the partitions of the source.

    Attributes:
        watermarks: (rows,) largest event time of the row's partition so far.
        receivers: partition -> (receivers,) watermark that each partition of the internal topic was told.
        quiet: partitions that had fallen silent before its rows came, and how far they had come.
    """

    watermarks: NDArray[np.int64]
    receivers: dict[int, NDArray[np.int64]] = field(default_factory=dict, metadata=WHOLE)
    quiet: dict[int, int] = field(default_factory=dict, metadata=WHOLE)

    @property
    def partitions(self) -> Collection[int]:
        """Partitions of which it says something, be there a row of them or not."""
        return self.receivers.keys() | self.quiet.keys()


@dataclass(slots=True, kw_only=True)
class PartitionTimes:
    """Stands where other flows keep their windows: the largest event time that each partition has come to.

    After a rollback or a crash a partition begins anew, which says less than there is to say and never too much: what it had
    told before was committed, and the receiver keeps it.

    Attributes:
        max_drift_us: how far a partition may run ahead of the others, event time in microseconds.
        idle_timeout_s: after which silence a partition does not hold windows back any more; 0 for never.
        reached: partition -> its largest event time, microseconds.
        rows: partition -> rows so far.
        silent: partitions of which it is told that they are.
        fallen_silent: asked before rows are taken in: partitions that are silent by now and not known to be.
        stores, keys, truncated, evicted: there are no windows.
    """

    max_drift_us: int
    idle_timeout_s: float
    reached: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    fallen_silent: Callable[[], list[int]] = list
    stores: dict[int, StateStore] = field(default_factory=dict)
    keys: int = 0
    truncated: int = 0
    evicted: int = 0

    def open(self, partition: int) -> None:
        """Begin a partition anew."""
        self.reached[partition], self.rows[partition] = NO_TIME, 0
        self.silent.discard(partition)

    def close(self, partition: int) -> None:
        """Forget a partition."""
        self.reached.pop(partition, None)
        self.rows.pop(partition, None)
        self.silent.discard(partition)

    def releasing(self, inputs: Inputs, clock: Clock, metrics: Metrics) -> "WatermarkAlignment":
        """Partitions run beside each other, and silent ones say so."""
        from streamer.operators.rekey.alignment import WatermarkAlignment  # noqa: PLC0415 - each of the two knows the other

        return WatermarkAlignment(inputs, self, clock, metrics)

    def __call__(self, batch: Batch) -> None:
        """Note how far the partition of each row has come, and who was silent when they came."""
        told = Told(watermarks=np.empty(len(batch), np.int64), quiet=self.hush(self.fallen_silent()))
        for partition, rows in partition_rows(batch.partitions):
            times = batch.times_us[rows]
            times[0] = max(times[0], self.reached[partition])
            reached = np.maximum.accumulate(times)
            told.watermarks[rows] = reached
            self.reached[partition] = int(reached[-1])
            self.rows[partition] += len(rows)
            self.silent.discard(partition)
        batch.payload = told

    def hush(self, quiet: list[int]) -> dict[int, int]:
        """These partitions are silent from now on; returns how far they had come, for a batch to tell before its rows."""
        self.silent.update(quiet)
        return {partition: self.reached[partition] for partition in quiet}


class Unscored:
    """Stands where other flows have their model: batches come back as they went in.

    Attributes:
        rows, value_bytes: of the batches that wait, as `stages.infer` counts them.
    """

    def __init__(self) -> None:
        self._waiting: deque[Batch] = deque()
        self.rows = self.value_bytes = 0

    def submit(self, batch: Batch) -> None:
        """Queue a batch."""
        batch.stamps.run_started = batch.stamps.run_ended = batch.stamps.windowed
        self._waiting.append(batch)
        self.rows += batch.weight
        self.value_bytes += batch.value_bytes

    def collect(self, timeout_s: float) -> Batch | None:  # noqa: ARG002 - nothing is waited for
        """The oldest batch, or None."""
        if not self._waiting:
            return None
        batch = self._waiting.popleft()
        self.rows -= batch.weight
        self.value_bytes -= batch.value_bytes
        return batch

    def stuck(self) -> None:
        """Nothing can hang."""

    def drop(self) -> None:
        """Forget all of them."""
        self._waiting.clear()
        self.rows = self.value_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Nothing runs."""


@dataclass(slots=True)
class Forward:
    """Encodes rows for the internal topic.

    Attributes:
        topic: the internal topic.
        key: the column with the new keys.
        receivers: partitions of the internal topic.
        upstreams: tells how many partitions the source has; it may get more.
        record_bytes_max: what the internal topic takes of one record.
    """

    topic: str
    key: str
    receivers: int
    upstreams: Callable[[], int]
    record_bytes_max: int

    def records(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:  # noqa: ARG002 - stamps are the log's
        """Records by topic: the values as they came, behind their headers. Rows too large for that become dead letters."""
        if not isinstance(batch.payload, Told):
            return []  # the end of a partition at rest
        self._refuse(batch)
        told = batch.payload
        words = [
            {"key": None, "value": value, "partition": receiver}
            for partition, reached in told.quiet.items()
            for value in [self._word(partition, SILENCE, reached)]
            for receiver in range(self.receivers)
        ]
        if not len(batch):
            return [(self.topic, words)] if words else []
        keys = batch.columns[self.key].tolist()
        places = partitions(keys, self.receivers)
        heads = header.headers(len(batch), self.upstreams())
        heads["partition"], heads["offset"] = batch.partitions, batch.offsets
        heads["timestamp_ms"], heads["watermark_us"] = batch.timestamps_ms, told.watermarks
        values = header.write(heads, batch.keys, batch.values)
        for partition, rows in partition_rows(batch.partitions):
            heard = told.receivers[partition] = np.full(self.receivers, NO_TIME)
            heard[places[rows]] = told.watermarks[rows]  # the last one of several counts
        events = zip(keys, values, places.tolist(), strict=True)
        messages = [*words, *({"key": key, "value": value, "partition": place} for key, value, place in events)]
        if batch.traces:
            attach(messages, [*[NO_TRACE] * len(words), *batch.traces], self.record_bytes_max)
        return [(self.topic, messages)]

    def _refuse(self, batch: Batch) -> None:
        most = self.record_bytes_max - REKEY_ROOM_BYTES
        if batch.value_bytes <= most:
            return
        sizes = [len(value or b"") for value in batch.values]
        large = {
            row: f"the record has {size:,} bytes, {self.topic} has room for {most:,} of it (its max.message.bytes, less what "
            "stands in front of a record there)"
            for row, size in enumerate(sizes)
            if size > most
        }
        if large:
            refuse(batch, large)

    def marks(self, batches: Sequence[Batch]) -> Iterator[tuple[str, int, bytes]]:
        """Topic, partition and value of what a transaction says at its end: to each receiver how far its upstreams have come.

        A receiver waits for the slowest of them. One that got no record of a partition would wait for it without an end.
        """
        heard: dict[int, NDArray[np.int64]] = {}
        for told in (batch.payload for batch in batches if isinstance(batch.payload, Told)):
            for partition in told.quiet:  # every receiver was told; what it says after that is news to all of them
                heard.pop(partition, None)
            for partition, reached in told.receivers.items():
                heard[partition] = np.maximum(heard.get(partition, np.full(self.receivers, NO_TIME)), reached)
        for partition, reached in sorted(heard.items()):
            value = self._word(partition, MARK, reached.max())
            for receiver in np.flatnonzero(reached < reached.max()).tolist():
                yield self.topic, receiver, value

    def _word(self, partition: int, kind: int, reached_us: int) -> bytes:
        """A record without an event: how far a partition of the source has come, and whether it is silent."""
        heads = header.headers(1, self.upstreams())
        heads["partition"], heads["offset"], heads["watermark_us"] = partition, kind, reached_us
        (value,) = header.write(heads, [None], [None])
        return value
