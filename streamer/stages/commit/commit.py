"""commit: one transaction holds outputs, dead letters, state and input offsets of the same rows.

A commit runs in its own thread while the worker goes on with the next rows; what these give waits until the producer is
free again. The offsets of a commit come from the batches in it, never from the consumer's position.

What that promises to those who read outputs, and by which producers, is the guarantee's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Producer, TopicPartition

from streamer.changelog.blocks import CommitMetadata
from streamer.changelog.snapshots import Ends, SnapshotScheduler, Stores
from streamer.clock import Clock
from streamer.limits import COMMIT_ROWS_MAX
from streamer.rows.batch import Batch
from streamer.stages.commit.committing import Committing, Ending, Job
from streamer.stages.commit.guarantee import Guarantee
from streamer.stages.commit.requests import served
from streamer.stages.commit.state_writer import Marks, StateWriter
from streamer.stages.commit.transaction import Advance, ChainPosition, Committed, Transaction, TransactionError

# For a commit under way, when all is given up; the worker has its group to answer in between.
_MEND_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class _Running:
    """A commit under way.

    Attributes:
        job: what is carried out.
        ending: what comes of it.
        started: monotonic seconds.
    """

    job: Job
    ending: Ending
    started: float


class Commit:
    """Gathers what belongs together, and has it committed.

    Args:
        guarantee: how, and by which producers.
        topics: input topics, the lead first, each with what every commit of its offsets says.
        places: partition -> where the chain of its commits stands; moved on here, read by others.
        bases: base snapshots and the changelog where state changes go, None for a flow without windows.
        clock: for ages.
        marks: what to say at the end of a transaction.
    """

    def __init__(
        self, *, guarantee: Guarantee, topics: Mapping[str, CommitMetadata], places: dict[int, ChainPosition],
        bases: SnapshotScheduler | None, clock: Clock, marks: Marks | None = None,
    ) -> None:  # fmt: skip
        self._guarantee, self._topics, self._bases, self._clock = guarantee, topics, bases, clock
        self.places = places
        self._open: Transaction | None = None
        self._running: _Running | None = None
        self._writer = StateWriter(tuple(topics), bases.changelog if bases is not None else None, marks)
        self._committing = Committing(clock)

    def open(self) -> None:
        """Have the producers ready, as far as the brokers allow it at once.

        Raises:
            StreamerError: they never will be.
        """
        self._guarantee.open()

    def wait(self, timeout_s: float) -> None:
        """Let a commit under way end; `reap` then tells how."""
        if self._running is not None:
            self._running.ending.finished.wait(timeout_s)

    @property
    def busy(self) -> bool:
        """Whether a commit is under way."""
        return self._running is not None

    @property
    def unseen_s(self) -> float:
        """For how long a result waits to be seen when its flow keeps up, seconds."""
        return self._guarantee.unseen_s

    def admits(self) -> bool:
        """Whether outputs may be handed over now. A commit needs the producer, unless it says that they may pass.

        Raises:
            TransactionError: the producer is past use.
        """
        if self._running is not None:
            return self._running.ending.passable.is_set()
        return self._guarantee.admits()

    def describe(self) -> str | None:
        """What keeps transactions from beginning; None when nothing does, or it is too early to tell."""
        return self._guarantee.describe()

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
        return self._guarantee.outputs

    @property
    def rows(self) -> int:
        """Rows produced and not committed."""
        return (self._open.rows if self._open else 0) + (self._running.job.rows if self._running else 0)

    def begin(self) -> None:
        """Open a transaction if none is open; `admits` must have said so.

        Raises:
            TransactionError: the producer refuses.
        """
        self._guarantee.begin()

    def add(self, batch: Batch) -> None:
        """Enter a produced batch."""
        if self._open is None:
            self._open = Transaction(batch.stamps.polled)
        self._open.add(batch)

    def due_in(self, *, behind: bool) -> float | None:
        """Seconds until the open transaction should commit, None if there is none to commit or one is under way."""
        if self._open is None or self._running is not None:
            return None
        if self._open.rows >= COMMIT_ROWS_MAX:
            return 0.0
        return max(0.0, self._guarantee.due(self._open, behind=behind) - self._clock.monotonic())

    def start(self, member: Any, stores: Stores | None = None, *, quiet: bool = False) -> None:
        """Hand the open transaction to the committing thread.

        Args:
            member: the group's member and generation.
            stores: partition -> store, of which a base snapshot may be taken now.
            quiet: whether every row that entered them is committed, or is by this commit.
        """
        assert self._open is not None, "nothing to commit"
        assert self._running is None, "one commit at a time"
        started, transaction = self._clock.monotonic(), self._open
        steps = self._steps(transaction)
        offsets = self._numbered(steps)
        if self._bases is not None and stores is not None:
            self._bases.consider(stores, self._ends(steps), quiet=quiet)
        job = Job(
            batches=tuple(transaction.batches),
            rows=transaction.rows,
            steps=steps,
            offsets=tuple(offsets),
            member=member,
            share=self._bases.share() if self._bases is not None else None,
            work=self._guarantee.work(self._writer),
        )
        self._running, self._open = _Running(job, self._committing.submit(job), started), None

    def reap(self, timeout_s: float) -> Committed | None:
        """The commit that ended within `timeout_s`, or None.

        Raises:
            TransactionError: it failed; all rows since the last commit must be redone.
        """
        running = self._running
        if running is None:
            return None
        job, ending = running.job, running.ending
        if not ending.finished.wait(timeout_s):
            if self._stuck(running):
                what = f"the client did not end a commit within {self._guarantee.stuck_s:g} s"
                raise TransactionError("stuck", what, replace=True)
            return None
        if ending.error is not None:
            raise ending.error  # the transaction stays open, and its rows count, until `give_up` ends it
        self._running = None
        self._guarantee.ended(ending.at)
        self.places |= {partition: reached for partition, (_, reached) in job.steps.items()}
        trims = self._bases.committed(job.share, ending.blocks) if self._bases is not None else {}
        return Committed(batches=job.batches, rows=job.rows, offsets=job.offsets, trims=trims, at=ending.at, took_s=ending.took_s)

    def settle(self, done: Committed, *, wait: bool) -> bool:
        """See to it that the group has the offsets of a commit; whether that is certain. `wait` for an answer, if one is due."""
        return self._guarantee.settle(list(done.offsets), wait=wait)

    def _ends(self, steps: Mapping[int, Advance]) -> Ends:
        """Partition -> number and input offsets of its last commit, with these steps through."""
        reached = self.places | {partition: step.after for partition, step in steps.items()}
        return {partition: (place.seq, list(place.next_offsets.values())) for partition, place in reached.items()}

    def _steps(self, transaction: Transaction) -> dict[int, Advance]:
        """Partition -> its places before and after."""
        offsets, steps = transaction.offsets(), dict[int, Advance]()
        for partition in transaction.partitions():
            place = self.places[partition]
            next_ = {topic: offsets.get((topic, partition), offset) for topic, offset in place.next_offsets.items()}
            steps[partition] = Advance(place, ChainPosition(place.seq + 1, next_))
        return steps

    def _numbered(self, steps: Mapping[int, Advance]) -> list[TopicPartition]:
        """Offsets with numbers of commits and bases as metadata; an input that did not move is committed anew."""
        return [
            TopicPartition(topic, partition, offset, self._said(topic, partition, step.after.seq))
            for partition, step in steps.items()
            for topic, offset in step.after.next_offsets.items()
        ]

    def _said(self, topic: str, partition: int, seq: int) -> str:
        return self._topics[topic]._replace(seq=seq, base=self._base(partition)).format()

    def _base(self, partition: int) -> int | None:
        return self._bases.named(partition) if self._bases is not None else None

    def reason(self, failure: TransactionError, member: Callable[[], Any]) -> TransactionError:
        """The failure with what the client knows of it and did not say; `member` gives the group's member and generation."""
        over = self._running is None or self._running.ending.finished.is_set()
        committed = (
            (topic, partition, offset) for partition, at in self.places.items() for topic, offset in at.next_offsets.items()
        )
        if not over or (known := next(committed, None)) is None:
            return failure
        return self._guarantee.reason(failure, TopicPartition(*known), member)

    def give_up(self, *, replace: bool) -> None:
        """Abort what is open and make the producer usable again; rows are the worker's to redo.

        A commit under way must end first: aborting beside it would leave both in doubt. One that is stuck is left to itself;
        the new producer fences it, and what the broker knows of its offsets decides. Nothing here waits
        long, so that the worker can answer its group and a stop in between.

        Raises:
            TransactionError: that commit has not ended yet, or no new producer can be had now; call again.
        """
        running = self._running
        if running is not None and not running.ending.finished.wait(_MEND_TIMEOUT_S):
            if not self._stuck(running):
                raise TransactionError("commit", "the commit under way has not ended yet", replace=replace)
            replace = True
            self._committing.replace()
        self._running = self._open = None
        failed = running is None or running.ending.error is not None
        if running is not None and isinstance(running.ending.error, TransactionError):
            replace = replace or running.ending.error.replace
            running.ending.error = None  # its traceback leads back here: without this both would keep the old producer alive
        self._guarantee.give_up(replace=replace, failed=failed)

    def _stuck(self, running: _Running) -> bool:
        return self._clock.monotonic() - running.started > self._guarantee.stuck_s

    def close(self) -> None:
        """End the thread; nothing may be open."""
        self._committing.close()
