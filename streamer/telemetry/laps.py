"""Time per step of a flow: what its one thread spends where, and what it waits for."""

from collections.abc import Callable

from streamer.clock import Clock
from streamer.telemetry.metrics import Metrics
from streamer.telemetry.steps import Steps


class Laps:
    """A stop-watch over the steps of one flow; a lap begins where the last one ended.

    Args:
        metrics: where times go; they hear here what the steps are called.
        steps: of the flow.
        clock: time.
    """

    def __init__(self, metrics: Metrics, steps: Steps, clock: Clock) -> None:
        self._metrics, self._steps, self._clock = metrics, steps, clock
        self._start = 0.0
        metrics.name(steps)

    def start(self) -> None:
        """Begin a lap."""
        self._start = self._clock.monotonic()

    def lap(self, stage: str | None) -> float:
        """Book the time since the last lap on the step at a stage, or on none (spent waiting); returns now, monotonic seconds."""
        now = self._clock.monotonic()
        if stage is not None and (step := self._steps.at(stage)) is not None:
            self._metrics.add("streamer_stage_busy_seconds_total", now - self._start, step)
        self._start = now
        return now

    def blocked(self, stage: str, wait: Callable[[float], object], seconds: float) -> None:
        """Book the time that `wait(seconds)` takes as waiting for a full stage."""
        started = self._clock.monotonic()
        wait(seconds)
        waited = self._clock.monotonic() - started
        step = self._steps.at(stage) or "produce"  # without a model rows wait only to go out
        self._metrics.add("streamer_stage_blocked_seconds_total", waited, step)
