"""Several inputs of one flow: which of them wait, and which rows may go on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from streamer.clock import Clock
from streamer.operators.operator import Inputs
from streamer.rows.batch import Batch
from streamer.telemetry.metrics import Metrics


class Waiting(Protocol):
    """A stage whose rows wait for several inputs."""

    @property
    def waiting(self) -> int:
        """Rows that wait."""

    def ahead(self, partition: int, silence_s: Sequence[float | None]) -> list[str]:
        """Topics that should wait."""

    def release(self, partition: int, silence_s: Sequence[float | None], now_us: int, now_s: float) -> Batch | None:
        """Rows of a partition whose time has come, at most a batch of them."""

    def due(self, now_us: int) -> bool:
        """Whether rows wait that only silence holds back."""


class InputCoordinator:
    """Tells the join stage what is known of its inputs, and the consumer which of them are ahead.

    Args:
        inputs: knows who has unread records.
        window: holds the rows.
        clock: our time, for inputs that are all silent.
        metrics: who waits.
    """

    def __init__(self, inputs: Inputs, window: Waiting, clock: Clock, metrics: Metrics) -> None:
        self._inputs, self._window, self._clock, self._metrics = inputs, window, clock, metrics

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Batches of rows whose time has come, while there is room for them."""
        waiting = 0
        for partition in self._inputs.reading():
            silence = self._inputs.silence_s(partition)
            waiting += self._inputs.wait_for_others(partition, self._window.ahead(partition, silence))
            wall_us, now = self._clock.wall_us(), self._clock.monotonic()
            while room() > 0 and (batch := self._window.release(partition, silence, wall_us, now)) is not None:
                batch.stamps.begin_windowed(now)
                yield batch
        self._metrics.set("streamer_join_inputs_waiting", waiting, self._metrics.steps.window)
        self._metrics.set("streamer_join_rows_waiting", self._window.waiting, self._metrics.steps.window)

    @property
    def due(self) -> bool:
        """Whether rows wait that only silence holds back, or may do so: what is not restored yet has not been asked."""
        return not self._inputs.reading() or self._window.due(self._clock.wall_us())
