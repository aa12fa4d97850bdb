"""commit: one transaction holds outputs, dead letters, state and input offsets of the same rows.

A commit runs in its own thread while the worker goes on with the next rows; what these give waits until the producer is
free again. The offsets of a commit come from the batches in it, never from the consumer's position.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Producer, TopicPartition

from streamer.changelog import blocks as changelog
from streamer.changelog.bases import Bases, Ends, Stores
from streamer.changelog.blocks import Mark
from streamer.clock import Clock
from streamer.limits import (
    COMMIT_AGE_AT_LEAST_ONCE_S,
    COMMIT_AGE_BEHIND_S,
    COMMIT_QUIET_S,
    COMMIT_ROWS_MAX,
)
from streamer.rows.batch import Batch
from streamer.stages.commit.committing import Committing, Marks, guarded, refusal, request, served
from streamer.stages.commit.producers import MakeOutlets
from streamer.stages.commit.transaction import Place, Step, Transaction, TransactionError
from streamer.telemetry.logs import get_logger
from streamer.telemetry.metrics import Metrics

_log = get_logger(__name__)

_MEND_TIMEOUT_S = 2.0
# Between turns, while rows wait for a new producer; a healthy broker needs 10 to 100 ms.
_OPEN_TRY_S = 0.2
# Longer than that is worth telling whoever sends traffic here.
_OPEN_SOON_S = 1.0
# A client that was not let in for so long may have lost its way.
_OPEN_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of commits, in seconds.

    Attributes:
        interval_s: age at which a transaction commits when the flow keeps up.
        rest_s: pause between a commit and the next transaction.
        stuck_s: after which a commit is left to itself.
    """

    interval_s: float
    rest_s: float
    stuck_s: float


class Commit:
    """Owns the producer and its transactions.

    Args:
        make_outlets: builds the producers, with the worker's transactional id (or none, for at-least-once).
        transactional: exactly-once.
        topics: input topics, the lead first, each with what every commit of its offsets says.
        bases: base snapshots and the changelog where state changes go, None for a flow without windows.
        timing: when to commit, and how long to wait.
        clock: for ages.
        metrics: doubts and new producers are counted.
        marks: what to say at the end of a transaction.
    """

    def __init__(
        self,
        make_outlets: MakeOutlets,
        topics: Mapping[str, Mark],
        bases: Bases | None,
        timing: Timing,
        clock: Clock,
        metrics: Metrics,
        *,
        transactional: bool,
        marks: Marks | None = None,
    ) -> None:
        self._make_outlets, self._topics, self._bases = make_outlets, topics, bases
        self._timing, self._clock, self._metrics, self.transactional = timing, clock, metrics, transactional
        self.places: dict[int, Place] = {}
        self._outlets, self._made_at = make_outlets(), clock.monotonic()
        self._opened(_MEND_TIMEOUT_S)
        self._open: Transaction | None = None
        self._running: Transaction | None = None
        self._rested_at = 0.0
        self._committing = Committing(tuple(topics), bases, clock, transactional=transactional, marks=marks)

    def wait(self, timeout_s: float) -> None:
        """Let a commit under way end; `reap` then tells how."""
        if self._running is not None:
            self._running.finished.wait(timeout_s)

    @property
    def busy(self) -> bool:
        """Whether a commit is under way."""
        return self._running is not None

    def admits(self) -> bool:
        """Whether outputs may be handed over now.

        A commit needs the producer, and right after it the coordinator would only send a new transaction away. Between two
        transactions a producer in doubt is replaced; until the new one is ready the rows wait, and nothing is rolled back.

        Raises:
            TransactionError: the producer is past use.
        """
        if self._running is not None:
            return self._running.passable
        if self._outlets.begun or not self.transactional:
            return True
        if self._clock.monotonic() < self._rested_at:
            return False
        self.serve()
        if self._outlets.doubt.reason is not None and self._outlets.ready:
            self._renew()
        return self._opened(_OPEN_TRY_S)

    def describe(self) -> str | None:
        """What a new producer waits for; None when there is one, or it was made a moment ago, as after every doubt."""
        if self._outlets.ready or self._clock.monotonic() - self._made_at < _OPEN_SOON_S:
            return None
        return f"transactions cannot begin yet: {self._outlets.waits_for}"

    def serve(self, wait_s: float = 0.0) -> None:
        """Let the producer tell what happened: deliveries, the state of connections.

        Raises:
            TransactionError: it is past use.
        """
        served(self.producer, wait_s)

    @property
    def pending(self) -> bool:
        """Whether something is not committed, be it a tick without rows."""
        return self._open is not None or self._running is not None

    @property
    def producer(self) -> Producer:
        """Of outputs."""
        return self._outlets.outputs

    @property
    def rows(self) -> int:
        """Rows produced and not committed."""
        return sum(t.rows for t in (self._open, self._running) if t)

    def begin(self) -> None:
        """Open a transaction if none is open; `admits` must have said so.

        Raises:
            TransactionError: the producer refuses.
        """
        outlets = self._outlets
        if outlets.begun or not self.transactional:
            return
        outlets.doubt.opened()
        guarded(outlets, self._clock, "begin", outlets.outputs.begin_transaction)
        outlets.begun = True

    def add(self, batch: Batch) -> None:
        """Enter a produced batch."""
        if self._open is None:
            self._open = Transaction(batch.stamps.polled)
        self._open.batches.append(batch)
        self._open.newest = batch.stamps.polled
        self._open.rows += batch.weight

    def due_in(self, *, behind: bool) -> float | None:
        """Seconds until the open transaction should commit, None if there is none to commit or one is under way."""
        if self._open is None or self._running is not None:
            return None
        if self._open.rows >= COMMIT_ROWS_MAX:
            return 0.0
        if self.transactional:
            due = self._open.opened + (max(self._timing.interval_s, COMMIT_AGE_BEHIND_S) if behind else self._timing.interval_s)
        else:
            due = min(self._open.opened + COMMIT_AGE_AT_LEAST_ONCE_S, self._open.newest + COMMIT_QUIET_S)
        return max(0.0, due - self._clock.monotonic())

    def start(self, metadata: Any, stores: Stores | None = None, *, quiet: bool = False) -> None:
        """Hand the open transaction to the committing thread.

        Args:
            metadata: the group's member and generation.
            stores: partition -> store, of which a base snapshot may be taken now.
            quiet: whether every row that entered them is committed, or is by this commit.
        """
        assert self._open is not None, "nothing to commit"
        assert self._running is None, "one commit at a time"
        self._running, self._open = self._open, None
        self._running.metadata, self._running.started = metadata, self._clock.monotonic()
        self._running.steps = self._steps(self._running)
        self._running.committing = self._numbered(self._running)
        if self._bases is not None:
            if stores is not None:
                self._bases.consider(stores, self._ends(self._running), quiet=quiet)
            self._running.share = self._bases.share()
        # The thread keeps to these producers, also when they have been replaced meanwhile.
        self._committing.jobs.put((self._running, self._outlets))

    def reap(self, timeout_s: float) -> Transaction | None:
        """The commit that ended within `timeout_s`, or None.

        Raises:
            TransactionError: it failed; all rows since the last commit must be redone.
        """
        running = self._running
        if running is None:
            return None
        if not running.finished.wait(timeout_s):
            if self._stuck(running):
                what = f"the client did not end a commit within {self._timing.stuck_s:g} s"
                raise TransactionError("stuck", what, replace=True)
            return None
        if running.error is not None:
            raise running.error  # the transaction stays open, and its rows count, until `give_up` ends it
        self._running, self._outlets.begun = None, False
        self._outlets.doubt.ended()
        self._rested_at = running.committed + (self._timing.rest_s if self.transactional else 0.0)
        self.places |= {partition: reached for partition, (_, reached) in running.steps.items()}
        if self._bases is not None:
            running.trims = self._bases.committed(running.share, running.blocks)
        return running

    def _ends(self, transaction: Transaction) -> Ends:
        """Partition -> number and input offsets of its last commit, with this one through."""
        reached = self.places | {partition: after for partition, (_, after) in transaction.steps.items()}
        return {partition: (place.seq, list(place.next.values())) for partition, place in reached.items()}

    def _steps(self, transaction: Transaction) -> dict[int, Step]:
        offsets, steps = transaction.offsets(), dict[int, Step]()
        for partition in transaction.partitions():
            place = self.places[partition]
            next_ = {topic: offsets.get((topic, partition), offset) for topic, offset in place.next.items()}
            steps[partition] = place, Place(place.seq + 1, next_)
        return steps

    def _numbered(self, transaction: Transaction) -> list[TopicPartition]:
        """Offsets with numbers of commits and bases as metadata; an input that did not move is committed anew."""
        return [
            TopicPartition(topic, partition, offset, self._said(topic, partition, reached.seq))
            for partition, (_, reached) in transaction.steps.items()
            for topic, offset in reached.next.items()
        ]

    def _said(self, topic: str, partition: int, seq: int) -> str:
        return changelog.metadata(self._topics[topic]._replace(seq=seq, base=self._base(partition)))

    def _base(self, partition: int) -> int | None:
        return self._bases.named(partition) if self._bases is not None else None

    def reason(self, failure: TransactionError, member: Callable[[], Any]) -> TransactionError:
        """The failure with what the client knows of it and did not say; `member` gives the group's member and generation."""
        over = self._running is None or self._running.finished.is_set()
        committed = ((topic, partition, offset) for partition, at in self.places.items() for topic, offset in at.next.items())
        if not over or not self._outlets.begun or (known := next(committed, None)) is None:
            return failure
        return refusal(self._outlets, failure, TopicPartition(*known), member)

    def give_up(self, *, replace: bool) -> None:
        """Abort what is open and make the producer usable again; rows are the worker's to redo.

        A commit under way must end first: aborting beside it would leave both in doubt. One that is stuck is left to itself;
        the new producer fences it, and what the broker knows of its offsets decides. Nothing here waits
        long, so that the worker can answer its group and a stop in between.

        Raises:
            TransactionError: that commit has not ended yet, or no new producer can be had now; call again.
        """
        if self._running is not None and not self._running.finished.wait(_MEND_TIMEOUT_S):
            if not self._stuck(self._running):
                raise TransactionError("commit", "the commit under way has not ended yet", replace=replace)
            self._running.abandoned = replace = True
            self._committing.replace()
        running, self._running, self._open = self._running, None, None
        failed = running is None or running.error is not None
        if running is not None and isinstance(running.error, TransactionError):
            replace = replace or running.error.replace
            running.error = None  # its traceback holds the transaction: without this both would keep the old producer alive
        begun, self._outlets.begun = self._outlets.begun, False
        if not self.transactional:
            self._outlets.purge()
        elif begun and not replace and failed:
            replace = not self._aborted()
        # One that was made and is not ready yet has replaced the old one already.
        if (replace or self._outlets.doubt.reason is not None) and self._outlets.ready:
            self._renew()
        if not self._opened(_MEND_TIMEOUT_S):
            raise TransactionError("init", self._outlets.waits_for, replace=True)

    def _aborted(self) -> bool:
        """End the open transaction; False if it is not certain that this is done, and done once."""
        if self._outlets.doubt.reason is not None:
            return False
        try:
            request(self._outlets, self._clock, "abort", lambda: self.producer.abort_transaction(_MEND_TIMEOUT_S))
        except TransactionError:
            return False
        return True

    def _renew(self) -> None:
        """Another producer with the same id: with it the coordinator refuses whatever the old one sent."""
        doubt = self._outlets.doubt
        if doubt.reason is not None:
            _log.warning("doubt", reason=doubt.reason, what=doubt.what)
            self._metrics.add("streamer_doubts_total", 1, doubt.reason)
        self._metrics.add("streamer_producer_replacements_total")
        self._outlets, self._made_at = self._make_outlets(), self._clock.monotonic()

    def _opened(self, timeout_s: float) -> bool:
        """Whether the producer is ready for transactions, within `timeout_s`."""
        waited = self._clock.monotonic() - self._made_at
        if self._outlets.useless or (not self._outlets.ready and waited > _OPEN_MAX_S):
            self._renew()
        return self._outlets.open(timeout_s)

    def _stuck(self, running: Transaction) -> bool:
        return self.transactional and self._clock.monotonic() - running.started > self._timing.stuck_s

    def close(self) -> None:
        """End the thread; nothing may be open."""
        self._committing.close()
