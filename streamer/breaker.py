"""When brokers refuse again and again: pauses that grow from try to try, and an end that names the record and what to do.

Only answers count that come again however often it is tried. A lost connection or a time-out is no answer: that is waited out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, TopicPartition

from streamer.clock import Clock
from streamer.errors import RefusedError
from streamer.limits import REFUSAL_PAUSE_FIRST_S, REFUSAL_PAUSE_MAX_S, REFUSALS_MAX
from streamer.message_sizes import MessageSizes
from streamer.refusals import FINAL, Refusals, Refused
from streamer.stages.transaction import TransactionError
from streamer.telemetry.logs import get_logger

_log = get_logger(__name__)


@dataclass(slots=True)
class Breaker:
    """Counts refusals in a row, tells how long to pause after each, and gives up in the end.

    They are in a row while what had been read at the first of them is not all committed: what other partitions commit in between
    does not help the one with the record that is refused.

    Args:
        clock: for pauses.
        sizes: what the topics took at the start.
        refusals: listens to the producers.
    """

    clock: Clock
    sizes: MessageSizes
    refusals: Refusals = field(default_factory=Refusals)
    _count: int = 0
    _owed: dict[tuple[str, int], int] = field(default_factory=dict)
    _until: float = 0.0
    _why: str = ""

    def failed(self, failure: TransactionError, read: Mapping[tuple[str, int], int]) -> None:
        """A transaction is given up.

        Args:
            failure: why.
            read: topic and partition -> offset after the last record that was read.

        Raises:
            RefusedError: that was the last try.
        """
        first, self.refusals.first, self.refusals.wanted = self.refusals.first, None, True
        error = first.error if first else failure.error
        if error is None or error.code() not in FINAL:
            return
        if not self._count:
            self._owed = dict(read)
        self._count += 1
        self._why = self._words(failure, first, error)
        if self._count >= REFUSALS_MAX:
            raise RefusedError(f"{self._why} That was refused {self._count} times in a row, and nothing was committed between")
        pause = min(REFUSAL_PAUSE_FIRST_S * 2 ** (self._count - 1), REFUSAL_PAUSE_MAX_S)
        self._until = self.clock.monotonic() + pause
        _log.warning("refused", why=self._why, tries=self._count, of=REFUSALS_MAX, pause_s=pause)

    def _words(self, failure: TransactionError, first: Refused | None, error: KafkaError) -> str:
        remedy = FINAL[error.code()]
        if first is None:
            return f"the broker refuses what we send: {failure}. What to do: {remedy}."
        place = first.topic if first.partition is None or first.partition < 0 else f"{first.topic}/{first.partition}"
        takes = (
            f", of {self.sizes.record(first.topic):,} that the topic took at the start"
            if first.topic in self.sizes.topics
            else ""
        )
        return f"{place} refuses a record ({first.name}, {first.size:,} bytes{takes}): {error.str()}. What to do: {remedy}."

    def committed(self, offsets: Iterable[TopicPartition], ours: Iterable[int]) -> None:
        """A commit is through with these offsets; `ours` are the partitions that we read."""
        if not self.refusals.wanted:
            return
        reached, reading = {(tp.topic, tp.partition): tp.offset for tp in offsets}, set(ours)
        self._owed = {
            place: offset for place, offset in self._owed.items() if place[1] in reading and reached.get(place, 0) < offset
        }
        if not self._owed:
            self._count, self._why, self.refusals.wanted = 0, "", False

    @property
    def waits_s(self) -> float:
        """How long the pause still lasts, in seconds."""
        return max(0.0, self._until - self.clock.monotonic())

    def describe(self) -> str | None:
        """What is refused, None when nothing is."""
        return f"try {self._count} of {REFUSALS_MAX} failed: {self._why}" if self._count else None
