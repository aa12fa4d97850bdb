"""Partitions at rest: what lies behind their last record and holds none is committed too, once, for those who look from outside.

Behind the records of a transaction lies its marker, and an aborted one leaves only gaps. Nobody is given those, so the offset
after the last record stays below the end of the log, and tools that compare the two show a lag for ever.
"""

from collections.abc import Callable, Iterator, Mapping

from streamer.clock import Clock
from streamer.limits import REST_S
from streamer.stages.commit.transaction import ChainPosition
from streamer.stages.consume.consume import Consume

_LOOK_EVERY_S = 1.0


class AtRest:
    """Tells of a partition that has been at its end for a while, and of the offset there.

    A batch without rows takes that the way of all batches, so that a commit, and in a flow with state an empty block, say the
    same. Nothing is written to an output: the flow behind does not wake from it.

    Args:
        consume: knows how far the client has come.
        places: partition -> what is committed of it.
        clock: for how long.
    """

    def __init__(self, consume: Consume, places: Callable[[], Mapping[int, ChainPosition]], clock: Clock) -> None:
        self._consume, self._places, self._clock = consume, places, clock
        self._since: dict[tuple[str, int], tuple[int, float]] = {}
        self._look_at = 0.0

    def ends(self) -> Iterator[tuple[str, int, int]]:
        """Topic, partition, and the offset that is to be committed there."""
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
            yield topic, partition, reached
