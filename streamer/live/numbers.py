"""What a worker did in the last seconds, from two looks at its metrics: rates, shares of time, latencies, and one status."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.telemetry.ledger import Histogram, Ledger
from streamer.telemetry.metrics import Metrics, Together

# The way from event time to record time is the producer's, not ours; what is shown here has no internal topic.
_HIDDEN_PARTS = ("source", "hold", "rekey")
END_TO_END = "end to end"
_RATE_OVER_S = 3.0
_LATENCY_OVER_S = 10.0
# Behind: what waits would take longer than this at the present rate.
_BEHIND_S = 2.0
_BEHIND_RECORDS_MIN = 1_000
_BLOCKED_SHARE_MIN = 0.1
_QUIET_AFTER_S = 2.0
_FULL = {"infer": "the model is full", "produce": "the producer's queue is full", "commit": "commits take long"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The metrics at one instant; counters since the start, gauges as they are."""

    at: float
    done: float
    predicted: float
    dead: float
    anomalies: float
    recoveries: float
    lag: float
    lag_s: float | None
    catch_up_s: float
    assigned: float
    restoring: float
    paused: bool
    busy: dict[str, float]
    blocked: dict[str, float]
    latency: dict[str, NDArray[np.int64]]

    @staticmethod
    def take(metrics: Metrics, now: float) -> "Snapshot":
        """Look at the metrics; `now` is monotonic seconds."""
        return Snapshot(
            at=now,
            # Input records with an outcome; those forwarded with another key are input once more, and counted then.
            done=metrics.value("streamer_records_total") - metrics.value("streamer_records_total", "rekeyed"),
            predicted=metrics.value("streamer_records_total", "predicted"),
            dead=metrics.value("streamer_records_total", "dead"),
            anomalies=metrics.value("streamer_anomalies_total"),
            recoveries=metrics.value("streamer_recoveries_total"),
            lag=metrics.value("streamer_consumer_lag_records"),
            lag_s=max(metrics.by_label("streamer_consumer_lag_seconds").values(), default=None),
            catch_up_s=max(metrics.by_label("streamer_catch_up_seconds").values(), default=0.0),
            assigned=metrics.value("streamer_partitions_assigned"),
            restoring=metrics.value("streamer_partitions_restoring"),
            paused=metrics.value("streamer_paused") > 0,
            busy={step: metrics.value("streamer_stage_busy_seconds_total", step) for step in metrics.steps.way},
            blocked={step: metrics.value("streamer_stage_blocked_seconds_total", step) for step in metrics.steps.way},
            latency=_counts(metrics.ledger),
        )


@dataclass(frozen=True, slots=True)
class Share:
    """How a step spent the last seconds, 0 to 1; the rest it was idle."""

    busy: float
    blocked: float


@dataclass(frozen=True, slots=True)
class Status:
    """One word and its cause; `good` is whether a person may go on sleeping."""

    word: str
    cause: str
    good: bool


@dataclass(frozen=True, slots=True)
class Rates:
    """Records per second."""

    done: float
    predicted: float
    anomalies: float
    dead: float


class Watch:
    """Looks at metrics again and again and keeps the last ten seconds.

    Args:
        metrics: of the worker, or of the workers of one process.
    """

    def __init__(self, *metrics: Metrics) -> None:
        self._metrics = Together(metrics)
        self._seen: deque[Snapshot] = deque()
        self._last_done = 0.0

    def look(self, now: float) -> Snapshot:
        """Take note of the present."""
        snapshot = Snapshot.take(self._metrics.whole(), now)
        if not self._seen or snapshot.done > self._seen[-1].done:
            self._last_done = now
        self._seen.append(snapshot)
        while self._seen[0].at < now - _LATENCY_OVER_S and len(self._seen) > 2:
            self._seen.popleft()
        return snapshot

    def rates(self) -> Rates:
        """Records per second over the last seconds."""
        then, now, seconds = self._span()
        return Rates(
            (now.done - then.done) / seconds,
            (now.predicted - then.predicted) / seconds,
            (now.anomalies - then.anomalies) / seconds,
            (now.dead - then.dead) / seconds,
        )

    def shares(self) -> dict[str, Share]:
        """Per step of the flow that ends in results."""
        then, now, seconds = self._span()
        shares = {}
        for step in now.busy:
            busy = min(1.0, (now.busy[step] - then.busy[step]) / seconds)
            shares[step] = Share(busy, min(1.0 - busy, (now.blocked[step] - then.blocked[step]) / seconds))
        return shares

    def latency(self) -> dict[str, tuple[float, float]]:
        """p50 and p99 in seconds of each part and end to end (record time to commit), over the last ten seconds."""
        then, now = self._seen[0].latency, self._seen[-1].latency
        return {part: _quantiles(now[part] - then[part]) for part in now}

    def status(self) -> Status:
        """What is going on and why."""
        then, now, _ = self._span()
        if not now.assigned:
            return Status("starting", "joining the group, waiting for partitions", good=True)
        if now.recoveries > then.recoveries:
            return Status("recovering", "a transaction was given up, its rows are redone", good=False)
        if now.restoring:
            return Status("restoring", f"windows of {now.restoring:g} partitions are rebuilt from the changelog", good=True)
        if now.paused:
            return Status("paused", self._full() or "rows in flight are at their limit", good=False)
        if now.lag > max(_BEHIND_RECORDS_MIN, _BEHIND_S * self.rates().done):
            return Status("behind", self._full() or "more arrives than this worker takes", good=False)
        if now.at - self._last_done > _QUIET_AFTER_S and not now.lag:
            return Status("running", "waiting for input", good=True)
        return Status("running", "keeps up with its input", good=True)

    def _full(self) -> str | None:
        """The step that others wait for, in words."""
        step, share = max(self.shares().items(), key=lambda entry: entry[1].blocked)
        return _FULL.get(step.partition("-")[0], f"{step} is full") if share.blocked > _BLOCKED_SHARE_MIN else None

    def _span(self) -> tuple[Snapshot, Snapshot, float]:
        """The snapshot some seconds ago, the newest, and the seconds between them."""
        now = self._seen[-1]
        then = next(snapshot for snapshot in self._seen if snapshot.at >= now.at - _RATE_OVER_S)
        return then, now, max(now.at - then.at, 1e-3)


def overall(ledger: Ledger) -> dict[str, tuple[float, float]]:
    """p50 and p99 in seconds since the start, per part and end to end."""
    return {part: _quantiles(counts) for part, counts in _counts(ledger).items()}


def _counts(ledger: Ledger) -> dict[str, NDArray[np.int64]]:
    with ledger.lock:
        counts = {part: own.counts.copy() for part, own in ledger.parts.items() if part not in _HIDDEN_PARTS}
        return counts | {END_TO_END: ledger.end_to_end["record"].counts.copy()}


def _quantiles(counts: NDArray[np.int64]) -> tuple[float, float]:
    histogram = Histogram(counts)
    return histogram.quantile(0.5), histogram.quantile(0.99)
