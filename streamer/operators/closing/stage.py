"""window, where windows close: events go into state, and rows come out when the watermark has passed a window's end.

The rows of a batch before and after are different ones: an event is folded into its windows, and a closed window is a row, as
is an event with its window so far where early results are asked for. Events that no window waits for are late records.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.features.call import add_features
from streamer.operators.aggregates import column_of
from streamer.operators.closing.idle import Idle
from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.closing.windows import Windows
from streamer.operators.operator import Inputs
from streamer.operators.samples import Results
from streamer.operators.stores import PerPartition
from streamer.operators.ticks import NO_TICKS, Ticks, segments, ticking_rows
from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.spans import Spans
from streamer.rows.trace import NO_TRACE
from streamer.state.delta import Delta, merge
from streamer.telemetry.metrics import Metrics
from streamer.topology.steps import FeatureFunction
from streamer.topology.view import Requested, Window, WindowView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.operators.closing.store import Advanced, ClosingStore, Rows


@dataclass(slots=True)
class _Came:
    """What came of the rows of a batch, partition by partition.

    Attributes:
        refused: (rows,) whether there was no place for a row.
        parts: rows that came out, each with the row of the batch that brought it about.
        of_ticks: partitions of those that no row brought about; they stand behind the rows of the batch.
        late: records whose windows had closed.
    """

    refused: NDArray[np.bool_]
    parts: "list[tuple[NDArray[np.int64], Rows]]" = field(default_factory=list)
    of_ticks: list[int] = field(default_factory=list)
    late: list[DeadLetter] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class CloseStage(PerPartition["ClosingStore"]):
    """Holds one store of closing windows per assigned partition.

    Attributes:
        spec: shape of the stores.
        needs: what the feature function reads.
        features: the user's function.
        keys_max: live keys of each store.
        final, each: whether there is a row for a window that closes, and for each event.
        topic: input topic, for rows that no record of it brought about.
    """

    spec: ClosingSpec
    needs: Requested
    features: FeatureFunction
    keys_max: int
    final: bool
    each: bool
    topic: str

    def __post_init__(self) -> None:
        # Seconds of compiling, for flows that need it, and before their first partition comes.
        from streamer.operators.closing import store  # noqa: F401, PLC0415

    def _new(self) -> "ClosingStore":
        return self.spec.open(self.keys_max)

    @property
    def idle_timeout_s(self) -> float:
        """A partition that is silent for so long closes its windows; 0 for never."""
        return self.spec.window.idle_timeout_us / 1e6

    def releasing(self, inputs: Inputs, clock: Clock, metrics: Metrics) -> Idle | None:
        """Silent partitions close their windows, if the window says after how long."""
        return Idle(inputs, self, clock, metrics) if self.idle_timeout_s else None

    def __call__(self, batch: Batch, ticks: Ticks = NO_TICKS) -> None:
        """Fold the rows into their windows; the batch then holds the rows that came of it."""
        fields, came = self.spec.fields, _Came(np.zeros(len(batch), np.bool_))
        values = np.array([batch.columns[name] for name in fields], np.float64).reshape(len(fields), len(batch))
        for partition, rows in ticking_rows(batch.partitions, ticks):
            store = self.stores[partition]
            evicted, deltas = store.keys.evicted, list[Delta]()
            for part in segments(rows, ticks.get(partition, ())):
                if isinstance(part, int):
                    deltas.append(self._close_until(part, partition, batch, came))
                else:
                    deltas.append(self._pass_on(store, batch, part, values, came))
            batch.deltas[partition] = merge(deltas, len(fields))
            self.evicted += store.keys.evicted - evicted
        if came.refused.any():
            detail = f"the partition has keys_max = {self.keys_max:,} keys, all with open windows; raise it or add partitions"
            batch.dead += batch.letters(came.refused, "window", "too_many_keys", detail)
        if not self.each:
            batch.tally.folded = len(batch) - len(came.late) - int(came.refused.sum())
        if came.of_ticks:
            batch.pad(np.array(came.of_ticks, np.int32))
        self._become(batch, came.parts, came.late)

    def _pass_on(
        self, store: "ClosingStore", batch: Batch, rows: NDArray[np.int64], values: NDArray[np.float64], came: _Came
    ) -> Delta:  # fmt: skip
        keys, picked = list(map(batch.keys.__getitem__, rows.tolist())), np.ascontiguousarray(values[:, rows])
        advanced = store.pass_on(keys, batch.times_us[rows], picked, final=self.final, each=self.each)
        came.late += self._late(batch, rows, advanced)
        came.refused[rows[advanced.refused]] = True
        came.parts.append((rows[advanced.out.rows], advanced.out))
        self.truncated += advanced.truncated
        return advanced.delta

    def _close_until(self, time_us: int, partition: int, batch: Batch, came: _Came) -> Delta:
        """Windows that the time of a tick closes: rows behind those of the batch."""
        ticked = self.stores[partition].close_until(time_us, final=self.final)
        n = len(ticked.out)
        came.parts.append((len(batch) + len(came.of_ticks) + np.arange(n), ticked.out))
        came.of_ticks += [partition] * n
        return ticked.delta

    def tick(self, partition: int, now_us: int) -> Batch | None:
        """Close all windows of a silent partition; None where there are none.

        The batch owes no offsets: what it changes is in its delta, and a replay repeats it.
        """
        store = self.stores[partition]
        deadline = store.latest_deadline()
        if deadline is None:
            return None
        came = store.close_until(deadline, final=self.final)
        batch = Batch.unpolled(self.topic, now_us, np.full(len(came.out), partition, np.int32))
        batch.deltas[partition] = came.delta
        self._become(batch, [(np.arange(len(came.out)), came.out)], [])
        return batch

    def _become(self, batch: Batch, parts: "Sequence[tuple[NDArray[np.int64], Rows]]", late: list[DeadLetter]) -> None:
        """Put the rows that came out in place of those that went in."""
        outs = [out for _, out in parts]
        batch.keep(np.concatenate([rows for rows, _ in parts]) if parts else np.empty(0, np.int64))
        spans = _spans(outs)
        batch.tally.emitted = int(spans.final.sum())
        batch.payload = Windows(spans=spans, closed_at_first=batch.tally.emitted, late=late)
        batch.keys = [key for out in outs for key in out.keys]
        batch.times_us = np.where(spans.final, spans.end_us, batch.times_us)
        if batch.received is not None:
            # A closed window is of the partition it was kept in, whichever event it closed with.
            batch.received.partitions = np.where(spans.final, batch.partitions, batch.received.partitions)
        finals = spans.final.tolist()
        batch.values = [None if final else value for final, value in zip(finals, batch.values, strict=True)]
        batch.messages = batch.messages and [None if final else m for final, m in zip(finals, batch.messages, strict=True)]
        # What has come to an end has many records and no one trace.
        batch.traces = batch.traces and [NO_TRACE if final else t for final, t in zip(finals, batch.traces, strict=True)]
        batch.counts = np.empty(0, np.int64)
        if not len(batch):
            return
        results, newest = _results(outs), np.concatenate([out.newest for out in outs], axis=1)
        batch.counts = results.count[0]
        events = {name: batch.columns[name] for name in self.needs.events}
        window = Window({"window": self._look(results, newest)}, events)
        add_features(self.features, window, batch)

    def _look(self, results: Results, newest: NDArray[np.float64]) -> WindowView:
        spec, needs = self.spec, self.needs
        at = {name: place for place, name in enumerate(spec.fields)}
        return WindowView(
            results.count[0].astype(np.float64),
            {
                (name, aggregate): column_of(
                    aggregate, results.aggregates[at[name]], newest[at[name]], results.span_us[0], gaps=name in needs.nullable
                )
                for name, aggregate in needs.aggregates
            },
            {name: results.matrix[spec.matrices[at[name]]] for name in needs.matrices},
            {(name, q): results.aggregates[at[name], spec.quantile_row(at[name], q)] for name, q in needs.quantiles},
        )

    @staticmethod
    def _late(batch: Batch, rows: NDArray[np.int64], came: "Advanced") -> list[DeadLetter]:
        """Late records with the watermark they missed and the end of their last window."""
        origin = batch.origin
        found = []
        missed = zip(rows[came.late].tolist(), came.late_watermark.tolist(), came.late_end.tolist(), strict=True)
        for row, watermark, end in missed:
            detail = (
                f"the last window of an event at {_moment(int(batch.times_us[row]))} ended at {_moment(end)} and had closed: "
                f"the watermark was {_moment(watermark)}"
            )
            more = (("streamer.late.watermark_us", str(watermark)), ("streamer.late.window_end_us", str(end)))
            found.append(DeadLetter(
                topic=origin.topic, partition=int(origin.partitions[row]), offset=int(origin.offsets[row]),
                key=origin.keys[row], value=batch.values[row], stage="window", reason="late", detail=detail,
                timestamp_ms=int(origin.timestamps_ms[row]),
                headers=batch.headers(row), more=more,
            ))  # fmt: skip
        return found


def _spans(outs: "list[Rows]") -> Spans:
    if not outs:
        return Spans(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_))
    starts, ends = np.concatenate([out.start_us for out in outs]), np.concatenate([out.end_us for out in outs])
    return Spans(starts, ends, np.concatenate([out.final for out in outs]))


def _results(outs: "list[Rows]") -> Results:
    parts = [out.results for out in outs]
    return Results(
        np.concatenate([part.count for part in parts], axis=1),
        np.concatenate([part.span_us for part in parts], axis=1),
        np.concatenate([part.aggregates for part in parts], axis=2),
        np.concatenate([part.matrix for part in parts], axis=1),
    )


def _moment(us: int) -> str:
    try:
        return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):  # beyond the years there are: somebody sent a watermark that is none
        return f"{us / 1e6:.0f} s after 1970"
