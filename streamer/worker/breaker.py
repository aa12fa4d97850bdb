"""When brokers refuse again and again: pauses that grow from try to try, and an end that names the record and what to do.

Only answers count that come again however often it is tried. A lost connection or a time-out is no answer: that is waited out.
"""

from collections.abc import Collection, Mapping

from confluent_kafka import KafkaError

from streamer.clock import Clock
from streamer.errors import RefusedError
from streamer.kafka.message_sizes import MessageSizes
from streamer.kafka.refusals import FINAL, Refusals, Refused, of_topic
from streamer.limits import REFUSALS_MAX
from streamer.stages.commit.transaction import Committed, TransactionError
from streamer.telemetry.logs import get_logger
from streamer.worker.backoff import Backoff

_log = get_logger(__name__)


class Breaker:
    """Counts refusals in a row, tells how long to pause after each, and gives up in the end.

    Those of brokers are in a row while what had been read at the first of them is not all committed: what other partitions commit
    in between does not help the one with the record that is refused. An engine that refuses is waited for without an end.

    Args:
        clock: for pauses.
        sizes: what the topics took at the start.

    Attributes:
        refusals: listens to the producers.
        refused, ill: by brokers, by the engine: pauses.
    """

    def __init__(self, clock: Clock, sizes: MessageSizes) -> None:
        self._sizes, self._owed = sizes, dict[tuple[str, int], int]()
        self.refusals = Refusals()
        self.refused, self.ill = Backoff(clock), Backoff(clock)

    def failed(self, failure: TransactionError, read: Mapping[tuple[str, int], int]) -> None:
        """A transaction was given up.

        Args:
            failure: why.
            read: topic and partition -> offset after the last record that had been read.

        Raises:
            RefusedError: that was the last try.
        """
        if failure.refused:
            self.ill.refused(str(failure))
        first, self.refusals.first, self.refusals.wanted = self.refusals.first, None, True
        error = first.error if first else failure.error
        if error is None or error.code() not in FINAL:
            return
        why = self._words(failure, first, error)
        if not self.refused.in_a_row:
            self._owed = dict(read)
        self.refused.refused(why)
        tries = self.refused.in_a_row
        if tries >= REFUSALS_MAX:
            raise RefusedError(f"{why} That was refused {tries} times in a row, and the rows were not committed between")
        _log.warning("refused", why=why, tries=tries, of=REFUSALS_MAX, pause_s=round(self.refused.left_s, 3))

    def _words(self, failure: TransactionError, first: Refused | None, error: KafkaError) -> str:
        remedy = FINAL[error.code()]
        if first is None:
            ours = f" The topics that this worker writes: {', '.join(sorted(self._sizes.topics))}." if of_topic(error) else ""
            return f"the broker refuses what we send: {failure}. What to do: {remedy}.{ours}"
        place = first.topic if first.partition is None or first.partition < 0 else f"{first.topic}/{first.partition}"
        most = self._sizes.record(first.topic)
        takes = f", of {most:,} that it took at the start" if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else ""
        return f"{place} refuses a record ({first.name}, {first.size:,} bytes{takes}): {error.str()}. What to do: {remedy}."

    def committed(self, done: Committed, ours: Collection[int]) -> None:
        """A commit is through; `ours` are the partitions that are assigned."""
        if done.rows:
            self.ill.forget()
        if not self.refusals.wanted:
            return
        reached = {(tp.topic, tp.partition): tp.offset for tp in done.offsets}
        self._owed = {
            place: offset for place, offset in self._owed.items() if place[1] in ours and reached.get(place, 0) < offset
        }
        if not self._owed:
            self.refused.forget()
            self.refusals.wanted = False

    @property
    def left_s(self) -> float:
        """Seconds that are left of a pause; 0 when there is none."""
        return max(self.ill.left_s, self.refused.left_s)

    def describe(self) -> str | None:
        """What is refused, None when nothing is."""
        return self.ill.describe() or self.refused.describe()
