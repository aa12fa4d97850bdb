"""window, for a flow with joins: rows of all inputs wait until nothing can come before them, then rows of the source look.

What a batch brings only lines up. Rows come out when the watermark of their partition moves: it is the time of the source up
to which every input has been read, and moves by ticks that the changelog keeps, since silence is in no log.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.features.call import add_features
from streamer.limits import JOIN_ROWS_AHEAD_MAX, JOIN_ROWS_WAITING_MAX, JOIN_TRACES_WAITING_MAX, ROWS_PER_BATCH_MAX
from streamer.operators.aggregates import AGGREGATE_ROWS, column_of
from streamer.operators.inputs import InputCoordinator
from streamer.operators.join.rows import HIDDEN, OFFSET, TIMESTAMP_MS
from streamer.operators.join.spec import JoinSpec, Lookbacks, Stream
from streamer.operators.operator import Inputs
from streamer.operators.progress import InputProgress
from streamer.operators.stores import PerPartition, without_place
from streamer.operators.ticks import order_of
from streamer.rows.batch import Batch
from streamer.rows.partitions import partition_rows
from streamer.rows.trace import NO_TRACE, Trace
from streamer.state.delta import Delta
from streamer.state.watermarks import NO_TIME
from streamer.telemetry.metrics import Metrics
from streamer.topology.event import Event, column_dtypes
from streamer.topology.steps import FeatureFunction
from streamer.topology.view import Requested, Window, WindowView

if TYPE_CHECKING:
    from streamer.operators.join.store import JoinStore, Released


@dataclass(slots=True, kw_only=True)
class JoinStage(PerPartition["JoinStore"]):
    """Holds one store per assigned partition.

    Attributes:
        spec: shape of the stores.
        needs: what the feature function reads of the source.
        features: the user's function.
        keys_max: live keys of each store; beyond, the key seen longest ago is forgotten.
        event: class of the source.
        events: class of each joined stream, in the order of the spec.
        idle_timeout_s: how long each input is waited for without a record, the source first.
    """

    spec: JoinSpec
    needs: Requested
    features: FeatureFunction
    keys_max: int
    event: type[Event]
    events: tuple[type[Event], ...]
    idle_timeout_s: tuple[float, ...]
    _looks: Lookbacks = field(init=False)
    _reach: InputProgress = field(init=False)
    _ahead: dict[int, set[int]] = field(default_factory=dict)
    # By partition and offset. They are no state: an event that waited when its worker ended or rolled back goes on without.
    _traces: dict[int, dict[int, Trace]] = field(default_factory=dict)
    _store: "type[JoinStore]" = field(init=False)

    def __post_init__(self) -> None:
        from streamer.operators.join.store import JoinStore  # noqa: PLC0415 - seconds of compiling, for flows that need it

        self._store = JoinStore
        self._looks, streams = self.spec.looks(), self.spec.streams
        shifts = tuple(stream.lead_us for stream in streams)
        self._reach = InputProgress(shifts, self.spec.ahead_us, self.spec.out_of_order_us, self.idle_timeout_s)

    def _new(self) -> "JoinStore":
        return self._store(self.spec, self.keys_max)

    def _forget(self, partition: int) -> None:
        self._ahead.pop(partition, None)
        self._traces.pop(partition, None)
        self._reach.forget(partition)

    @property
    def waiting(self) -> int:
        """Rows of all inputs that wait."""
        return sum(store.waiting for store in self.stores.values())

    # ------------------------------------------------------------------ in
    def releasing(self, inputs: Inputs, clock: Clock, metrics: Metrics) -> InputCoordinator:
        """Rows go on when no input can bring anything before them."""
        return InputCoordinator(inputs, self, clock, metrics)

    def __call__(self, batch: Batch) -> None:
        """Line up the rows of one input."""
        stream = next(n for n, stream in enumerate(self.spec.streams) if stream.topic == batch.topic)
        if stream == 0:
            self._refuse(batch)
        fields = self.spec.columns if stream == 0 else self.spec.streams[stream].fields
        values = np.zeros((len(self.spec.fields), len(batch)))
        values[0], values[OFFSET], values[TIMESTAMP_MS] = stream, batch.offsets, batch.timestamps_ms
        for place, name in enumerate(fields, start=HIDDEN):
            values[place] = batch.columns[name]
        bad = np.zeros(len(batch), np.bool_)
        for partition, rows in partition_rows(batch.partitions):
            whole = len(rows) == len(batch)
            keys = batch.keys if whole else [batch.keys[row] for row in rows.tolist()]
            picked = values if whole else np.ascontiguousarray(values[:, rows])
            store = self.stores[partition]
            evicted = store.keys.evicted
            batch.deltas[partition], refused = store.advance(keys, batch.times_us[rows], picked)
            self.evicted += store.keys.evicted - evicted
            bad[rows[refused]] = True
        if bad.any():
            detail = f"rows of all {self.keys_max:,} keys of the partition (keys_max) wait for other inputs; raise it"
            batch.dead += batch.letters(bad, "window", "too_many_keys", detail)
        if stream == 0:
            if batch.traces:
                self._note_traces(batch, bad)
            batch.tally.folded = int((~bad).sum())
        else:
            batch.tally.joined = int((~bad).sum())
        batch.keep(np.empty(0, np.int64))
        batch.values, batch.messages = [], []

    def _note_traces(self, batch: Batch, refused: NDArray[np.bool_]) -> None:
        places = zip(batch.partitions.tolist(), batch.offsets.tolist(), batch.traces, refused.tolist(), strict=True)
        for partition, offset, trace, bad in places:
            kept = self._traces.setdefault(partition, {})
            if trace and not bad and len(kept) < JOIN_TRACES_WAITING_MAX:
                kept[offset] = trace

    def _refuse(self, batch: Batch) -> None:
        """Rows of the source for which there is no place to wait."""
        bad = without_place(batch.partitions, lambda partition: JOIN_ROWS_WAITING_MAX - self.stores[partition].waiting_source)
        if bad.any():
            detail = (
                f"{JOIN_ROWS_WAITING_MAX:,} events of the partition wait for the streams they are joined with already; "
                "shorten what they wait for, or spread the topics over more partitions"
            )
            batch.dead += batch.letters(bad, "window", "too_many_waiting", detail)
            batch.keep(np.flatnonzero(~bad))

    # ------------------------------------------------------------------ out
    def release(self, partition: int, silence_s: Sequence[float | None], now_us: int, now_s: float) -> Batch | None:
        """Rows of a partition whose time has come, at most a batch of them; None when there are none.

        Args:
            partition: which one.
            silence_s: per input how long it has been at its end, None while it may have unread records.
            now_us: wall time, microseconds.
            now_s: monotonic time, seconds.
        """
        store = self.stores[partition]
        watermark = max(self._reached(partition, silence_s, now_us, now_s), store.watermark)
        if watermark == NO_TIME or not (ready := store.waiting_until(watermark - self.spec.out_of_order_us)).any():
            return None
        if ready[0] > ROWS_PER_BATCH_MAX:
            # Rows of one moment cannot be parted, all others can.
            last = max(store.source_time(ROWS_PER_BATCH_MAX), store.source_time(0) + 1)
            watermark = max(min(watermark, last + self.spec.out_of_order_us), store.watermark)
        delta, released, truncated = store.tick(watermark)
        self.truncated += truncated
        return self._batch(partition, delta, released, now_us)

    def _reached(self, partition: int, silence_s: Sequence[float | None], now_us: int, now_s: float) -> int:
        """Up to where, in the time of the source, all inputs have been read."""
        store = self.stores[partition]
        newest, until = store.newest.tolist(), store.newest_source_until
        return self._reach.reached(partition, newest, silence_s, now_us=now_us, now_s=now_s, last_until=until)

    def ahead(self, partition: int, silence_s: Sequence[float | None]) -> list[str]:
        """Topics whose rows pile up because another input has not been read as far: they should wait."""
        store = self.stores[partition]
        rows = (store.ends[:, 1] - store.ends[:, 0]).tolist()
        unread = [n for n, silence in enumerate(silence_s) if silence is None or silence < self.idle_timeout_s[n]]
        waited = self._ahead.get(partition, set())
        slowest = min(unread, key=lambda n: int(store.newest[n]) - self.spec.streams[n].lead_us, default=None)
        self._ahead[partition] = {
            n
            for n, waiting in enumerate(rows)
            if slowest not in (None, n) and waiting > (JOIN_ROWS_AHEAD_MAX // 2 if n in waited else JOIN_ROWS_AHEAD_MAX)
        }
        return [self.spec.streams[n].topic for n in sorted(self._ahead[partition])]

    def due(self, now_us: int) -> bool:
        """Whether rows wait that only silence holds back."""
        until = now_us - self.spec.ahead_us
        return any(store.newest_source_until(until) is not None for store in self.stores.values())

    def _batch(self, partition: int, delta: Delta, released: "Released", now_us: int) -> Batch:
        """Rows that came out, as the stages behind take them: with the origin they had when they came in."""
        rows, own = len(released), self.spec.streams[0]
        batch = Batch.unpolled(own.topic, now_us, np.full(rows, partition, np.int32))
        keys = list(self.stores[partition].keys.index.names(released.slots))
        if (order := order_of(released.times, keys)) is not None:
            released, keys = released.take(order), [keys[row] for row in order.tolist()]
        batch.keys, batch.times_us = keys, released.times
        batch.offsets, batch.timestamps_ms = released.values[:, 0].astype(np.int64), released.values[:, 1].astype(np.int64)
        columns, dtypes = enumerate(self.spec.columns, start=HIDDEN - OFFSET), column_dtypes(self.event)
        batch.columns = {name: released.values[:, place].astype(dtypes[name]) for place, name in columns}
        batch.deltas[partition] = delta
        if traces := self._traces.get(partition):
            batch.traces = [traces.pop(offset, NO_TRACE) for offset in batch.offsets.tolist()]
        batch.counts = released.count[: len(own.sights)].max(axis=0) if own.sights else np.zeros(rows, np.int64)
        if rows:
            add_features(self.features, self._view(batch, released), batch)
        return batch

    def _view(self, batch: Batch, released: "Released") -> Window:
        source, *others = self.spec.streams
        events = {name: batch.columns[name] for name in self.needs.events}
        joined = {event: self._seen(stream, released, {}) for event, stream in zip(self.events, others, strict=True)}
        if not source.sights:
            return Window({0: WindowView(np.ones(len(batch)), {}, {}, {})}, events, joined)
        return Window(self._seen(source, released, batch.columns).looks, events, joined)

    def _seen(self, stream: Stream, released: "Released", newest: dict[str, NDArray[Any]]) -> Window:
        """What was seen of one stream; `newest` are the rows' own samples where they are part of it."""
        looks: dict[str | int, WindowView] = {}
        for place, (sight, needs) in enumerate(zip(stream.sights, stream.needs, strict=True)):
            look = self._looks.first[stream.topic, place]
            at = {name: int(self._looks.table[look, 4]) + n for n, name in enumerate(stream.fields)}
            block = {name: released.aggregates[column] for name, column in at.items()}
            looks[sight.name] = WindowView(
                released.count[look].astype(np.float64),
                {
                    (name, kind): column_of(
                        kind, block[name], newest.get(name, block[name][-1]), released.span_us[look], gaps=name in needs.nullable
                    )
                    for name, kind in needs.aggregates
                },
                {name: released.matrix[self._looks.places[at[name]]][:, -stream.samples :] for name in needs.matrices},
                {(name, q): block[name][AGGREGATE_ROWS + self._quantile(at[name], q)] for name, q in needs.quantiles},
            )
        return Window(looks, {})

    def _quantile(self, column: int, q: float) -> int:
        return int(np.flatnonzero(self._looks.quantiles[column] == q)[0])
