"""Every metric of the service, in one closed table, and the object that holds their values.

The data path adds to plain numbers once per batch; nothing is looked up or locked per record. Prometheus reads them
through `collect`, the live view through the same object.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from streamer.telemetry.ledger import BOUNDS_S, Histogram, Ledger
from streamer.telemetry.steps import Steps


class Metric(NamedTuple):
    """One row of the table: Prometheus name, kind, label names and what to do with it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


TABLE = (
    Metric("streamer_records_total", "counter", ("outcome",),
           "Committed records by outcome: predicted, filtered (a filter let them go no further), folded (into windows that "
           "close), late, dead, joined (of another input, kept for events to see), matched and unmatched (predictions that left "
           "with a label or without) or rekeyed (to the internal topic, input again). A rising share of dead: see "
           "streamer_dead_letters_total."),
    Metric("streamer_anomalies_total", "counter", ("step",), "Committed predictions that were flagged."),
    Metric("streamer_dead_letters_total", "counter", ("topic", "step", "reason"),
           "Committed dead letters by the topic of their record and the step that refused it; streamer tail shows them."),
    Metric("streamer_commits_total", "counter", (), "Commits. None for a minute while there is lag: look at the log."),
    Metric("streamer_recoveries_total", "counter", ("cause",), "Transactions given up; their rows were redone."),
    Metric("streamer_doubts_total", "counter", ("reason",),
           "Transactions with a request that may have a second copy on its way; many: the way to the broker breaks or is slow."),
    Metric("streamer_producer_replacements_total", "counter", (), "Producers replaced after a doubt, a fence or a fatal error."),
    Metric("streamer_rebalances_total", "counter", ("kind",), "Partitions assigned, revoked or lost, by call."),
    Metric("streamer_rebalance_stall_seconds_total", "counter", (), "Time spent finishing rows before giving partitions away."),
    Metric("streamer_rows_redone_total", "counter", (), "Rows dropped unfinished and read again."),
    Metric("streamer_pauses_total", "counter", (), "Times input was paused because the model or the producer was full."),
    Metric("streamer_deadline_missed_total", "counter", (), "Predictions later than the deadline of the topology."),
    Metric("streamer_timestamps_unusable_total", "counter", (),
           "Rows whose record timestamp is missing, ahead of the poll by more than 1 s, or ten years old: their latency counts "
           "from the poll. Set the producers' clocks, or message.timestamp.type=LogAppendTime on the topic."),
    Metric("streamer_window_truncated_total", "counter", ("step",),
           "Windows by time that lost samples to max_samples: raise it."),
    Metric("streamer_windows_closed_total", "counter", ("step",), "Committed results of windows that have closed."),
    Metric("streamer_labels_unused_total", "counter", ("step",),
           "Labels that no prediction had: it came too early, too late or twice, or key and time do not fit."),
    Metric("streamer_idle_ticks_total", "counter", ("step",), "Times a silent partition closed its windows after idle."),
    Metric("streamer_keys_evicted_total", "counter", ("step",),
           "Keys forgotten because keys_max were live: raise it, or add replicas."),
    Metric("streamer_restored_rows_total", "counter", (), "Rows applied from the changelog."),
    Metric("streamer_restored_bytes_total", "counter", (), "Bytes read from the changelog."),
    Metric("streamer_restore_seconds_left", "gauge", (), "Time until all partitions are restored, at the pace so far."),
    Metric("streamer_snapshots_total", "counter", (), "Base snapshots written to the changelog."),
    Metric("streamer_snapshot_bytes_total", "counter", (), "Bytes of these snapshots, compressed."),
    Metric("streamer_snapshot_stall_seconds_total", "counter", (), "Time the worker stood still to copy windows for them."),
    Metric("streamer_stage_busy_seconds_total", "counter", ("step",), "Time the worker spent in a step."),
    Metric("streamer_stage_blocked_seconds_total", "counter", ("step",), "Time the worker waited for a step that was full."),
    Metric("streamer_inference_batches_total", "counter", ("step", "model", "version"),
           "Runs of the model. Rows over batches is the mean batch."),
    Metric("streamer_inference_rows_total", "counter", ("step", "model", "version"), "Rows scored."),
    Metric("streamer_stage_seconds", "histogram", ("step",),
           "The latency ledger: how long rows spent in each step; these parts sum to end to end."),
    Metric("streamer_end_to_end_seconds", "histogram", ("since",), "From event time or record time to commit."),
    Metric("streamer_partitions_assigned", "gauge", (), "Partitions of this worker."),
    Metric("streamer_partitions_restoring", "gauge", (), "Partitions whose windows are being rebuilt."),
    Metric("streamer_consumer_lag_records", "gauge", ("topic", "partition"), "Records from our position to the end of the log."),
    Metric("streamer_consumer_lag_seconds", "gauge", ("topic", "partition"),
           "While there are records to read: how old the newest one read is, by its record timestamp. 0 at the end of the log."),
    Metric("streamer_catch_up_seconds", "gauge", ("topic", "partition"),
           "Time until the lag is gone at the pace of the last ten seconds; +Inf while it does not shrink."),
    Metric("streamer_rows_in_flight", "gauge", ("state",), "Rows polled and not committed: unscored or uncommitted."),
    Metric("streamer_rekey_partitions_waiting", "gauge", ("step",),
           "Source partitions that wait: further ahead of the others than align."),
    Metric("streamer_live_keys", "gauge", ("step",), "Keys with a window."),
    Metric("streamer_join_rows_waiting", "gauge", ("step",),
           "Rows of all inputs that wait for another input, or for what may follow."),
    Metric("streamer_join_inputs_waiting", "gauge", ("step",),
           "Partitions of inputs that are not read because another input is behind: see its lag."),
    Metric("streamer_paused", "gauge", (), "1 while input is paused."),
    Metric("streamer_partitioner_mismatch", "gauge", (),
           "1 while inputs that meet by key were put on partitions by different rules, so that they do not: see the log."),
    Metric("streamer_dead_letter_alarm", "gauge", (), "1 while dead letters are a large share of the input of the last minute."),
)  # fmt: skip
NAMES = {metric.name: metric for metric in TABLE}
_ALARMS = ("streamer_paused", "streamer_dead_letter_alarm")
# Two bounds a decade are exported: scrapes stay small, dashboards keep their shape.
_EXPORTED = range(0, len(BOUNDS_S), 4)


class Metrics(Collector):
    """Values of the table. Written by the worker's thread; reading from another thread sees whole numbers.

    Attributes:
        steps: of the flow, whose names are labels.
        ledger: of its rows.
    """

    def __init__(self) -> None:
        self._values: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.steps = Steps()
        self.ledger = Ledger(self.steps)

    def name(self, steps: Steps) -> None:
        """What the steps of the flow are called; before anything is counted."""
        if steps != self.steps:
            self.steps, self.ledger = steps, Ledger(steps)

    def add(self, name: str, amount: float = 1, *labels: str) -> None:
        """Raise a counter; an unknown name or wrong number of labels is a bug."""
        assert len(NAMES[name].labels) == len(labels), name
        self._values[name, labels] += amount  # type: ignore[assignment]

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        assert len(NAMES[name].labels) == len(labels), name
        self._values[name, labels] = value  # type: ignore[assignment]

    def clear(self, name: str) -> None:
        """Forget all label values of a gauge, such as the lag of partitions given away."""
        for key in [key for key in list(self._values) if key[0] == name]:
            del self._values[key]

    def value(self, name: str, *labels: str) -> float:
        """Current value, summed over all labels that are not given."""
        metric = NAMES[name]
        if len(labels) == len(metric.labels):
            return self._values.get((name, labels), 0)
        return sum(value for key, value in list(self._values.items()) if key[0] == name)

    def by_label(self, name: str) -> dict[tuple[str, ...], float]:
        """Label values -> value."""
        return {labels: value for (key, labels), value in list(self._values.items()) if key == name}

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """What Prometheus sees."""
        for metric in TABLE:
            if metric.kind == "histogram":
                yield self._histogram(metric)
                continue
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                metric.name, metric.help, labels=list(metric.labels)
            )
            values = self.by_label(metric.name)
            if not metric.labels and not values:
                values = {(): 0.0}
            for labels, value in sorted(values.items()):
                family.add_metric(list(labels), value)
            yield family

    def _histogram(self, metric: Metric) -> HistogramMetricFamily:
        family = HistogramMetricFamily(metric.name, metric.help, labels=list(metric.labels))
        source = self.ledger.parts if metric.name == "streamer_stage_seconds" else self.ledger.end_to_end
        with self.ledger.lock:
            for label, histogram in source.items():
                family.add_metric([label], _buckets(histogram), histogram.total_s)
        return family


class Together(Collector):
    """The metrics of several workers of one process as one: counts and gauges added, alarms as the highest."""

    def __init__(self, parts: Sequence[Metrics]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """What Prometheus sees."""
        yield from self.whole().collect()

    def whole(self) -> Metrics:
        """All of it at this instant. Rows are booked in the latency ledger where they end: in the last flow."""
        if len(self._parts) == 1:
            return self._parts[0]
        whole = Metrics()
        whole.steps, whole.ledger = self._parts[-1].steps, self._parts[-1].ledger
        for metric in TABLE:
            for part in self._parts:
                for labels, value in part.by_label(metric.name).items():
                    before = whole.value(metric.name, *labels)
                    whole.set(metric.name, max(before, value) if metric.name in _ALARMS else before + value, *labels)
        return whole


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    cumulative = np.cumsum(histogram.counts)
    buckets = [(f"{BOUNDS_S[place]:.6g}", float(cumulative[place])) for place in _EXPORTED]
    return [*buckets, ("+Inf", float(cumulative[-1]))]
