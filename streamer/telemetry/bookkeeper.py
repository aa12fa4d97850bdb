"""What the worker tells the metrics: time per stage as it turns, and everything else once per commit."""

from collections.abc import Callable
from typing import Protocol

from streamer.clock import Clock
from streamer.plan import Plan
from streamer.stages.commit import Transaction
from streamer.stages.join import JoinStage
from streamer.stages.window import WindowStage
from streamer.telemetry.alarm import DeadLetterAlarm
from streamer.telemetry.metrics import Metrics

_GAUGES_EVERY_S = 1.0


class _Input(Protocol):
    @property
    def paused(self) -> bool: ...

    def lag(self) -> dict[tuple[str, int], int]: ...


class Bookkeeper:
    """Books the turns and commits of one worker.

    Args:
        metrics: where numbers go.
        plan: names model and deadline.
        alarm: is told of dead letters.
        clock: times the laps.
    """

    def __init__(self, metrics: Metrics, plan: Plan, alarm: DeadLetterAlarm, clock: Clock) -> None:
        self._metrics, self._plan, self._alarm, self._clock = metrics, plan, alarm, clock
        self._lap_start = 0.0
        self._gauges_at = 0.0

    def start(self) -> None:
        """Begin a lap."""
        self._lap_start = self._clock.monotonic()

    def lap(self, stage: str | None) -> float:
        """Book the time since the last lap on a stage, or on none (it was spent waiting); returns now, monotonic seconds."""
        now = self._clock.monotonic()
        if stage is not None:
            self._metrics.add("streamer_stage_busy_seconds_total", now - self._lap_start, stage)
        self._lap_start = now
        return now

    def blocked(self, stage: str, wait: Callable[[float], object], seconds: float) -> None:
        """Book the time that `wait(seconds)` takes as waiting for a full stage."""
        started = self._clock.monotonic()
        wait(seconds)
        self._metrics.add("streamer_stage_blocked_seconds_total", self._clock.monotonic() - started, stage)

    def committed(self, done: Transaction) -> None:
        """Enter a commit: outcomes, latencies, dead letters.

        Raises:
            StreamerError: dead letters passed the share at which the service was asked to stop.
        """
        metrics, model = self._metrics, self._plan.model.file
        rows = sum(map(len, done.batches))
        dead = sum(len(batch.dead) for batch in done.batches)
        metrics.ledger.record(done.batches, done.committed, self._plan.deadline_s)
        metrics.add("streamer_commits_total")
        metrics.add("streamer_records_total", rows, "predicted")
        metrics.add("streamer_records_total", dead, "dead")
        metrics.add("streamer_records_total", sum(batch.folded for batch in done.batches if batch.joined), "joined")
        metrics.add("streamer_inference_rows_total", rows, model.name, str(model.version))
        metrics.add("streamer_inference_batches_total", len(done.batches))
        metrics.add("streamer_anomalies_total", sum(int(batch.flags.sum()) for batch in done.batches))
        # These two work on threads of their own, so the worker's laps do not see them.
        scoring = sum(batch.stamps.run_ended - batch.stamps.run_started for batch in done.batches)
        metrics.add("streamer_stage_busy_seconds_total", scoring, "infer")
        metrics.add("streamer_stage_busy_seconds_total", done.took_s, "commit")
        for batch in done.batches if dead else ():
            for letter in batch.dead:
                metrics.add("streamer_dead_letters_total", 1, letter.stage, letter.reason)
        self._alarm.note(self._clock.monotonic(), done.rows, dead)

    def gauges(self, source: _Input, window: WindowStage | JoinStage, unscored: int, uncommitted: int) -> None:
        """Refresh the gauges, once a second."""
        now = self._clock.monotonic()
        if now < self._gauges_at:
            return
        metrics, self._gauges_at = self._metrics, now + _GAUGES_EVERY_S
        metrics.set("streamer_rows_in_flight", unscored, "unscored")
        metrics.set("streamer_rows_in_flight", uncommitted, "uncommitted")
        metrics.set("streamer_live_keys", window.keys)
        metrics.set("streamer_window_truncated_total", window.truncated)
        metrics.set("streamer_keys_evicted_total", window.evicted)
        metrics.set("streamer_paused", int(source.paused))
        metrics.set("streamer_deadline_missed_total", metrics.ledger.deadline_missed)
        metrics.clear("streamer_consumer_lag_records")
        for (topic, partition), lag in source.lag().items():
            metrics.set("streamer_consumer_lag_records", lag, topic, str(partition))
