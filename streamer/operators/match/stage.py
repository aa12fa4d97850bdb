"""window, for a flow that waits for labels: predictions and labels of one key meet, and predictions leave.

The rows of a batch before and after are different ones: what it brings goes into state, and its rows then are the predictions
that left because of it, in the place of the record that brought that about. Those that nobody labels leave when the watermark
of their partition moves, by ticks that the changelog keeps, since silence is in no log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamer.clock import Clock
from streamer.limits import JOIN_ROWS_AHEAD_MAX, ROWS_PER_BATCH_MAX
from streamer.operators.inputs import InputCoordinator
from streamer.operators.match.store import LABEL, PREDICTION, MatchSpec, MatchStore, Outcome, StoredRow, TracedRow
from streamer.operators.operator import Inputs
from streamer.operators.progress import InputProgress
from streamer.operators.stores import PerPartition, without_place
from streamer.operators.ticks import order_of
from streamer.rows.batch import Batch
from streamer.rows.oversize import TOO_LARGE
from streamer.rows.pairs import Pairs
from streamer.rows.partitions import partition_rows
from streamer.rows.trace import trace_of
from streamer.state.watermarks import NO_TIME
from streamer.telemetry.metrics import Metrics
from streamer.topology.event import Event
from streamer.topology.event_key import key_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENCODER = msgspec.json.Encoder()
_NAMER = msgspec.msgpack.Encoder()


@dataclass(slots=True, kw_only=True)
class MatchStage(PerPartition[MatchStore]):
    """Holds one store per assigned partition. There are no windows that could lose anything, and nobody who waits is forgotten.

    Attributes:
        spec: shape of the stores.
        events: class of the predictions and of the labels.
        waiting_max: rows of either input that may wait in a partition.
        idle_timeout_s: how long an input is waited for without a record.
        changelog: topic where rows that wait are kept.
        name_bytes_max: what it takes of one, beside what every row has.
    """

    spec: MatchSpec
    events: tuple[type[Event], type[Event]]
    waiting_max: int
    idle_timeout_s: float
    changelog: str
    name_bytes_max: int
    _namers: tuple["RowEncoder", "RowEncoder"] = field(init=False)
    _reach: InputProgress = field(init=False)
    _ahead: dict[int, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (predictions, labels), (source, _) = self.events, self.spec.topics
        self._namers = RowEncoder(predictions, self.spec.on, whole=source), RowEncoder(labels, self.spec.on, whole=None)
        self._reach = InputProgress(
            (0, self.spec.within_us), self.spec.ahead_us, self.spec.out_of_order_us, (self.idle_timeout_s, self.idle_timeout_s)
        )

    def _new(self) -> MatchStore:
        return MatchStore(spec=self.spec)

    def _forget(self, partition: int) -> None:
        self._ahead.pop(partition, None)
        self._reach.forget(partition)

    @property
    def waiting(self) -> int:
        """Rows of both inputs that wait, each with a key of its own as a rule."""
        return self.keys

    def releasing(self, inputs: Inputs, clock: Clock, metrics: Metrics) -> InputCoordinator:
        """Predictions leave when no label can come any more."""
        return InputCoordinator(inputs, self, clock, metrics)

    # ------------------------------------------------------------------ in
    def __call__(self, batch: Batch) -> None:
        """Take in rows of one input; the batch then holds the predictions that leave."""
        stream = LABEL if batch.topic == self.spec.topics[LABEL] else PREDICTION
        names = self._small(batch, self._namers[stream].names(batch, self.name_bytes_max))
        names = self._refuse(batch, stream, names)
        came: list[NDArray[np.int64]] = []
        outcomes, unused = list[Outcome](), 0
        for partition, rows in partition_rows(batch.partitions):
            store = self.stores[partition]
            dropped = store.unused
            batch.deltas[partition], out = store.advance(stream, [names[row] for row in rows.tolist()], batch.times_us[rows])
            unused += store.unused - dropped
            came.append(rows[[one.operation // 2 for one in out]])
            outcomes += out
        if stream == LABEL:
            batch.tally.joined = len(batch)
        else:
            batch.tally.folded = len(batch)
        batch.keep(np.concatenate(came) if came else np.empty(0, np.int64))
        _become(batch, outcomes, unused)

    def _small(self, batch: Batch, names: list[bytes]) -> list[bytes]:
        """Names of the rows that the changelog takes; the others are refused, for they could never be kept."""
        most = self.name_bytes_max
        if (longest := max(map(len, names), default=0)) <= most:
            return names
        bad = np.array([len(name) > most for name in names])
        detail = (
            f"what waits of it has up to {longest:,} bytes, {self.changelog} takes {most:,} of a row "
            "(max.message.bytes of the topic, less its frame)"
        )
        batch.dead += batch.letters(bad, "window", TOO_LARGE, detail)
        batch.keep(np.flatnonzero(~bad))
        return [name for name in names if len(name) <= most]

    def _refuse(self, batch: Batch, stream: int, names: list[bytes]) -> list[bytes]:
        """Rows for which there is no place to wait; returns the names of the others."""
        bad = without_place(batch.partitions, lambda partition: self.waiting_max - self.stores[partition].waiting(stream))
        if bad.any():
            what = "labels wait for predictions that have not been read" if stream == LABEL else "predictions wait for labels"
            detail = f"waiting_max = {self.waiting_max:,} {what} in the partition already; raise it, or add partitions"
            batch.dead += batch.letters(bad, "window", "too_many_waiting", detail)
            batch.keep(np.flatnonzero(~bad))
            names = [name for name, refused in zip(names, bad.tolist(), strict=True) if not refused]
        return names

    # ------------------------------------------------------------------ out
    def release(self, partition: int, silence_s: Sequence[float | None], now_us: int, now_s: float) -> Batch | None:
        """Predictions of a partition whose time is over, at most a batch of them; None when nothing changes.

        Args:
            partition: which one.
            silence_s: per input how long it has been at its end, None while it may have unread records.
            now_us: wall time, microseconds.
            now_s: monotonic time, seconds.
        """
        store = self.stores[partition]

        def last_until(time_us: int) -> int | None:
            # Not past what was read: predictions that come late of their own accord shall still find their labels.
            return None if store.predictions.before(time_us + 1) is None else min(time_us, store.newest[PREDICTION])

        reached = self._reach.reached(partition, store.newest, silence_s, now_us=now_us, now_s=now_s, last_until=last_until)
        watermark = max(reached, store.watermark)
        if watermark == NO_TIME or not store.due(watermark):
            return None
        dropped = store.unused
        delta, out = store.tick(watermark, ROWS_PER_BATCH_MAX)
        batch = Batch.unpolled(self.spec.topics[PREDICTION], now_us, np.full(len(out), partition, np.int32))
        batch.times_us = np.array([one.label_time for one in out], np.int64)
        batch.deltas[partition] = delta
        _become(batch, out, store.unused - dropped)
        if (order := order_of(batch.times_us, batch.keys)) is not None:
            batch.keep(order)
        return batch

    def ahead(self, partition: int, silence_s: Sequence[float | None]) -> list[str]:
        """Topics that should wait: labels that pile up before their predictions are read, predictions whose time would be over.

        That many predictions wait is no reason: they do so for days.
        """
        store, waited = self.stores[partition], self._ahead.get(partition, set())
        lead = store.newest[LABEL] - store.newest[PREDICTION]
        self._ahead[partition] = {
            stream
            for stream, before in ((LABEL, lead), (PREDICTION, -lead - self.spec.within_us))
            if silence_s[1 - stream] is None and before > 0
            and store.waiting(stream) > (JOIN_ROWS_AHEAD_MAX // 2 if stream in waited else JOIN_ROWS_AHEAD_MAX)
        }  # fmt: skip
        return [self.spec.topics[stream] for stream in sorted(self._ahead[partition])]

    def due(self, now_us: int) -> bool:
        """Whether predictions wait that only silence holds back."""
        until = now_us - self.spec.ahead_us
        return any(store.predictions.before(until + 1) is not None for store in self.stores.values())


class RowEncoder:
    """Turns records of one input into the names of their rows.

    Args:
        event: their class.
        on: the second field that must be equal.
        whole: topic of predictions, whose body is the record that will be published; None for labels, an object in it.
    """

    def __init__(self, event: type[Event], on: str | None, *, whole: str | None) -> None:
        spec = event.__event__
        fields = event.__struct_fields__
        self._decoder, self._whole = msgspec.json.Decoder(event), whole
        hidden = (spec.key, spec.time, "id") if whole else (spec.key, spec.time)
        self._shown = [(name, attrgetter(name)) for name in fields if name not in hidden]
        self._id = attrgetter("id") if whole and "id" in fields and spec.key != "id" else None
        self._on: Callable[[Any], Any] | None = attrgetter(on) if on else None

    def names(self, batch: Batch, most: int) -> list[bytes]:
        """Name of each row of a batch, from its record; a prediction's trace is in it unless that makes it longer than `most`."""
        places = batch.partitions.tolist(), batch.offsets.tolist()
        rows = zip(batch.keys, batch.values, batch.times_us.tolist(), *places, strict=True)
        found = [self._name(key, value or b"", *rest) for key, value, *rest in rows]
        names = [_NAMER.encode(name) for name in found]
        if batch.traces and self._whole:
            for row, (name, trace) in enumerate(zip(found, batch.traces, strict=True)):
                if trace and len(traced := _NAMER.encode(TracedRow(name.key, name.on, name.body, trace))) <= most:
                    names[row] = traced
        return names

    def _name(self, key: bytes, value: bytes, time_us: int, partition: int, offset: int) -> StoredRow:
        event = self._decoder.decode(value)
        shown: dict[str, Any] = {name: get(event) for name, get in self._shown}
        if self._whole:
            named = key_text(self._id(event)) if self._id else None
            origin = f"{self._whole}/{partition}/{offset}" if named is None else named.decode()
            shown = {"id": origin, "key": key.decode("utf-8", "replace"), "time": time_us / 1e6, "prediction": shown}
        on = (self._on and key_text(self._on(event))) or b""
        return StoredRow(key, on, _ENCODER.encode(shown))


def _become(batch: Batch, outcomes: list[Outcome], unused: int) -> None:
    """Put the predictions that leave in place of the rows that brought that about."""
    batch.keys = [one.key for one in outcomes]
    batch.values, batch.messages = [], []
    batch.tally.emitted = len(outcomes)
    # What comes back from the log is looked at like what comes in a record.
    batch.traces = [trace_of(one.trace) for one in outcomes] if any(one.trace for one in outcomes) else []
    batch.payload = Pairs(
        bodies=[one.body for one in outcomes],
        labels=[one.label for one in outcomes],
        delays_us=[one.label_time - one.time for one in outcomes],
        unused=unused,
    )
