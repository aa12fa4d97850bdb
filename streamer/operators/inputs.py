"""Several inputs of one flow: which of them wait, and which rows may go on."""

from collections.abc import Callable, Iterator, Mapping

from streamer.clock import Clock
from streamer.operators.closing.idle import Idle
from streamer.operators.closing.stage import CloseStage
from streamer.operators.join.stage import JoinStage
from streamer.operators.match.stage import MatchStage
from streamer.operators.rekey.alignment import Pace
from streamer.operators.rekey.send import Progress
from streamer.planning.assemble import Keyed
from streamer.rows.batch import Batch
from streamer.stages.commit.transaction import Place
from streamer.stages.consume.at_rest import AtRest
from streamer.stages.consume.consume import Consume
from streamer.telemetry.metrics import Metrics


class Merging:
    """Tells the join stage what is known of its inputs, and the consumer which of them are ahead.

    Args:
        consume: knows who has unread records.
        window: holds the rows.
        clock: our time, for inputs that are all silent.
        metrics: who waits.
    """

    def __init__(self, consume: Consume, window: JoinStage | MatchStage, clock: Clock, metrics: Metrics) -> None:
        self._consume, self._window, self._clock, self._metrics = consume, window, clock, metrics

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Batches of rows whose time has come, while there is room for them."""
        waiting = 0
        for partition in self._consume.reading():
            silence = self._consume.silence_s(partition)
            waiting += self._consume.wait_for_others(partition, self._window.ahead(partition, silence))
            wall_us, now = self._clock.wall_us(), self._clock.monotonic()
            while room() > 0 and (batch := self._window.release(partition, silence, wall_us, now)) is not None:
                batch.stamps.polled = batch.stamps.decoded = batch.stamps.windowed = now
                yield batch
        self._metrics.set("streamer_join_inputs_waiting", waiting)
        self._metrics.set("streamer_join_rows_waiting", self._window.waiting)

    @property
    def due(self) -> bool:
        """Whether rows wait that only silence holds back, or may do so: what is not restored yet has not been asked."""
        return not self._consume.reading() or self._window.due(self._clock.wall_us())


def merging_of(
    consume: Consume, window: Keyed, clock: Clock, metrics: Metrics, places: Callable[[], Mapping[int, Place]]
) -> AtRest:  # fmt: skip
    """What lets inputs meet, closes windows by silence, or keeps partitions beside each other; and commits the ends of all."""
    inner: Merging | Idle | Pace | None = None
    if isinstance(window, JoinStage | MatchStage):
        inner = Merging(consume, window, clock, metrics)
    elif isinstance(window, CloseStage) and window.idle_s:
        inner = Idle(consume, window, clock, metrics)
    elif isinstance(window, Progress):
        inner = Pace(consume, window, clock, metrics)
    return AtRest(consume, inner, places, clock)
