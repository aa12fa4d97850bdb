"""Silent partitions: after `idle` without a record their windows close, by a tick that is written down like any record."""

from collections.abc import Callable, Iterator

from streamer.clock import Clock
from streamer.operators.closing.stage import CloseStage
from streamer.rows.batch import Batch
from streamer.stages.consume.consume import Consume
from streamer.telemetry.metrics import Metrics


class Idle:
    """Closes the windows of partitions that are read to their end and silent.

    Only time counts during which the partition is ours, not paused and at the end of its log: a stall on our side, or a
    replay, is no silence of the sensors.

    Args:
        consume: knows who is silent.
        window: holds the windows.
        clock: our time.
        metrics: counts ticks.
    """

    def __init__(self, consume: Consume, window: CloseStage, clock: Clock, metrics: Metrics) -> None:
        self._consume, self._window, self._clock, self._metrics = consume, window, clock, metrics

    @property
    def due(self) -> bool:
        """Whether it is not known yet of all partitions since when they are silent; open windows alone are no unrest."""
        partitions = self._consume.reading()
        return not partitions or any(self._consume.silence_s(partition) == [None] for partition in partitions)

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Batches of the windows that close, while there is room for them."""
        for partition in self._consume.reading():
            (silence,) = self._consume.silence_s(partition)
            if silence is None or silence < self._window.idle_s or room() <= 0:
                continue
            if (batch := self._window.tick(partition, self._clock.wall_us())) is not None:
                now = self._clock.monotonic()
                batch.stamps.polled = batch.stamps.decoded = batch.stamps.windowed = now
                self._metrics.add("streamer_idle_ticks_total")
                yield batch
