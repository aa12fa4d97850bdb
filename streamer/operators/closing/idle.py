"""Silent partitions: after `idle_timeout` without a record their windows close, by a tick that is logged like any record."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from streamer.clock import Clock
from streamer.operators.operator import Inputs
from streamer.rows.batch import Batch
from streamer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from streamer.operators.closing.stage import CloseStage


class Idle:
    """Closes the windows of partitions that are read to their end and silent.

    Only time counts during which the partition is ours, not paused and at the end of its log: a stall on our side, or a
    replay, is no silence of the sensors.

    Args:
        inputs: knows who is silent.
        window: holds the windows.
        clock: our time.
        metrics: counts ticks.
    """

    def __init__(self, inputs: Inputs, window: "CloseStage", clock: Clock, metrics: Metrics) -> None:
        self._inputs, self._window, self._clock, self._metrics = inputs, window, clock, metrics

    @property
    def due(self) -> bool:
        """Whether it is not known yet of all partitions since when they are silent; open windows alone are no unrest."""
        partitions = self._inputs.reading()
        return not partitions or any(self._inputs.silence_s(partition) == [None] for partition in partitions)

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Batches of the windows that close, while there is room for them."""
        for partition in self._inputs.reading():
            (silence,) = self._inputs.silence_s(partition)
            if silence is None or silence < self._window.idle_timeout_s or room() <= 0:
                continue
            if (batch := self._window.tick(partition, self._clock.wall_us())) is not None:
                batch.stamps.begin_windowed(self._clock.monotonic())
                self._metrics.add("streamer_idle_ticks_total", 1, self._metrics.steps.window)
                yield batch
