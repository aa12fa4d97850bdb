"""Partitions at rest: what lies behind their last record and holds none is committed too, once, for those who look from outside.

Behind the records of a transaction lies its marker, and an aborted one leaves only gaps. Nobody is given those, so the offset
after the last record stays below the end of the log, and tools that compare the two show a lag for ever.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from streamer.clock import Clock
from streamer.limits import REST_S
from streamer.rows.batch import Batch
from streamer.stages.commit.transaction import ChainPosition
from streamer.stages.consume.consume import Consume

_LOOK_EVERY_S = 1.0


class Releasing(Protocol):
    """What gives batches of its own, which no poll brought about."""

    @property
    def due(self) -> bool:
        """Whether rows wait only until it is certain that nothing comes before them."""

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Those whose time has come."""


class AtRest:
    """Gives a batch without rows for a partition that has been at its end for a while, with the offset there.

    It enters the way of all batches, so that a commit, and in a flow with state an empty block, say the same. Nothing is written
    to an output: the flow behind does not wake from it.

    Args:
        consume: knows how far the client has come.
        inner: gives other batches; None where there are none.
        places: partition -> what is committed of it.
        clock: for how long.
    """

    def __init__(
        self, consume: Consume, inner: Releasing | None, places: Callable[[], Mapping[int, ChainPosition]], clock: Clock
    ) -> None:
        self._consume, self._inner, self._places, self._clock = consume, inner, places, clock
        self._since: dict[tuple[str, int], tuple[int, float]] = {}
        self._look_at = 0.0

    @property
    def due(self) -> bool:
        """Whether rows wait only until it is certain that nothing comes before them."""
        return self._inner is not None and self._inner.due

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Batches whose time has come, while there is room for them."""
        if self._inner is not None:
            yield from self._inner.released(room)
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        read, places, since = self._consume.read, self._places(), self._since
        self._since = {}
        for (topic, partition), reached in self._consume.reached().items():
            place = topic, partition
            committed = places[partition].next_offsets[topic] if partition in places else reached
            if not read[place] <= committed < reached:
                continue  # a row is under way, or nothing lies behind the last one
            before, began = since.get(place, (reached, now))
            if before != reached or now - began < REST_S:
                self._since[place] = reached, (began if before == reached else now)
                continue
            yield self._end(topic, partition, reached)

    def _end(self, topic: str, partition: int, reached: int) -> Batch:
        batch = Batch.unpolled(topic, self._clock.wall_us())
        batch.owed = {partition: reached}
        batch.stamps.begin_windowed(self._clock.monotonic())
        return batch
