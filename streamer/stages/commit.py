"""commit: one transaction holds outputs, dead letters, state and input offsets of the same rows.

A commit runs in its own thread while the worker goes on with the next rows; what these give waits until the producer is
free again. The offsets of a commit come from the batches in it, never from the consumer's position.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from streamer.bases import Bases, Ends, Share, Stores
from streamer.batch import Batch
from streamer.clock import Clock
from streamer.limits import (
    COMMIT_AGE_AT_LEAST_ONCE_S,
    COMMIT_AGE_BEHIND_S,
    COMMIT_QUIET_S,
    COMMIT_ROWS_MAX,
    DOUBT_AFTER_S,
    TRANSACTION_TIMEOUT_S,
)
from streamer.outlets import DeliveryReport, MakeOutlets, Outlets
from streamer.stages.transaction import Place, Step, Transaction
from streamer.state import changelog
from streamer.state.delta import merge

_NETWORK_TIMEOUT_S = 30.0
# Without a limit the client may wait for ever for a coordinator that a broker's death took from it. A transaction that has
# timed out is past saving.
_OFFSETS_TRY_S = 5.0
_MEND_TIMEOUT_S = 2.0
# A rolled-back batch is thrown out of the queue on purpose.
_PURGES = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001 - the names the binding gives them
_RETRY_PAUSE_S = 0.05
_FENCES = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)  # noqa: SLF001


# What a transaction says at its end, beside its outputs: topic, partition and value of each record.
Marks = Callable[[list[Batch]], Iterable[tuple[str, int, bytes]]]


class TransactionError(Exception):
    """A transaction that must be given up: its rows are redone. Internal to the worker.

    Attributes:
        cause: short code for the metric.
        replace: whether the producer cannot be used any more.
        again: whether rolling back was tried before and the broker did not answer.
    """

    def __init__(self, cause: str, error: object, *, replace: bool, again: bool = False) -> None:
        super().__init__(f"{cause}: {error}")
        self.cause, self.replace, self.again = cause, replace, again


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
        topics: input topics, the lead first.
        bases: base snapshots and the changelog where state changes go, None for a flow without windows.
        timing: when to commit, and how long to wait.
        clock: for ages.
        marks: what to say at the end of a transaction.
    """

    def __init__(
        self,
        make_outlets: MakeOutlets,
        topics: Sequence[str],
        bases: Bases | None,
        timing: Timing,
        clock: Clock,
        *,
        transactional: bool,
        marks: Marks | None = None,
    ) -> None:
        self._make_outlets, self._topics, self._bases = make_outlets, tuple(topics), bases
        self._timing, self._clock, self.transactional, self._marks = timing, clock, transactional, marks
        self.places: dict[int, Place] = {}
        self._undelivered: list[KafkaError] = []
        self._outlets = self._new_outlets()
        self._open: Transaction | None = None
        self._running: Transaction | None = None
        self._jobs: queue.SimpleQueue[tuple[Transaction, Outlets] | None] = queue.SimpleQueue()
        self._doubt = False
        self._begun = False
        self._rested_at = 0.0
        self._thread = self._new_thread()

    def wait(self, timeout_s: float) -> None:
        """Let a commit under way end; `reap` then tells how."""
        if self._running is not None:
            self._running.finished.wait(timeout_s)

    @property
    def busy(self) -> bool:
        """Whether a commit is under way."""
        return self._running is not None

    @property
    def closed(self) -> bool:
        """Whether outputs must wait: a commit needs the producer, or the coordinator would only send a new transaction away."""
        if self._running is not None:
            return not self._running.passable
        return not self._begun and self._clock.monotonic() < self._rested_at

    @property
    def producer(self) -> Producer:
        """Of outputs."""
        return self._outlets.outputs

    @property
    def rows(self) -> int:
        """Rows produced and not committed."""
        return sum(t.rows for t in (self._open, self._running) if t)

    def begin(self) -> None:
        """Open a transaction if none is open.

        Raises:
            TransactionError: the producer refuses.
        """
        if self._begun or not self.transactional:
            return
        if self._doubt:
            raise TransactionError("doubt", "the last commit took too long to trust the connection", replace=True)
        self._guard("begin", self.producer.begin_transaction)
        self._begun = True

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
        self._jobs.put((self._running, self._outlets))

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
        self._running, self._begun = None, False
        self._rested_at = running.committed + (self._timing.rest_s if self.transactional else 0.0)
        if running.took_s > DOUBT_AFTER_S:
            self._doubt = self.transactional
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
            TopicPartition(topic, partition, offset, changelog.metadata(reached.seq, self._base(partition)))
            for partition, (_, reached) in transaction.steps.items()
            for topic, offset in reached.next.items()
        ]

    def _base(self, partition: int) -> int | None:
        return self._bases.named(partition) if self._bases is not None else None

    def give_up(self, *, replace: bool) -> None:
        """Abort what is open and make the producer usable again; rows are the worker's to redo.

        A commit under way must end first: aborting beside it would leave both in doubt. One that is stuck is left to itself;
        the new producer fences it, and what the broker knows of its offsets decides. Nothing here waits
        long, so that the worker can answer its group and a stop in between.

        Raises:
            TransactionError: that commit has not ended yet; call again.
            KafkaException: no new producer can be had now; call again with `replace`.
        """
        if self._running is not None and not self._running.finished.wait(_MEND_TIMEOUT_S):
            if not self._stuck(self._running):
                raise TransactionError("commit", "the commit under way has not ended yet", replace=replace)
            self._running.abandoned = replace = True
            self._thread = self._new_thread()
        running, self._running, self._open = self._running, None, None
        if running is not None and isinstance(running.error, TransactionError):
            replace = replace or running.error.replace
        begun, self._begun = self._begun, False
        if not self.transactional:
            self._outlets.purge()
        elif begun and not replace and not (running is not None and running.error is None):
            try:
                self.producer.abort_transaction(_MEND_TIMEOUT_S)
            except KafkaException:
                replace = True
        if replace:
            self._outlets = self._new_outlets(_MEND_TIMEOUT_S)
            self._doubt = False

    def _stuck(self, running: Transaction) -> bool:
        return self.transactional and self._clock.monotonic() - running.started > self._timing.stuck_s

    def close(self) -> None:
        """End the thread; nothing may be open."""
        self._jobs.put(None)
        self._thread.join(timeout=5.0)

    def _new_outlets(self, timeout_s: float = _NETWORK_TIMEOUT_S) -> Outlets:
        self._undelivered.clear()
        outlets = self._make_outlets(self._failed_delivery)
        if self.transactional:
            # Also fences whoever held this transactional id, and ends what it left open.
            outlets.outputs.init_transactions(timeout_s)
        return outlets

    def _new_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name="streamer-commit", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            transaction, outlets = job
            started = self._clock.monotonic()
            try:
                self._commit(transaction, outlets)
            except Exception as error:  # noqa: BLE001 - it is raised again where the worker reaps it
                transaction.error = error
            transaction.committed = self._clock.monotonic()
            transaction.took_s = transaction.committed - started
            transaction.finished.set()
            if transaction.abandoned:
                return  # another thread has the work now

    def _commit(self, transaction: Transaction, outlets: Outlets) -> None:
        if not self.transactional:
            # Outputs are durable before the block that says so: after a crash they may repeat, never miss.
            self._flush(outlets.outputs)
            transaction.passable = True
            self._write_changelog(transaction, outlets.changelog)
            self._flush(outlets.changelog)
            return
        producer = outlets.outputs
        self._write_changelog(transaction, producer)
        owed, member = transaction.committing, transaction.metadata
        self._guard("offsets", lambda: producer.send_offsets_to_transaction(owed, member, _OFFSETS_TRY_S), TRANSACTION_TIMEOUT_S)
        self._guard("commit", producer.commit_transaction)

    def _failed_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and error.code() not in _PURGES:
            self._undelivered.append(error)

    def _flush(self, producer: Producer) -> None:
        left = producer.flush(_NETWORK_TIMEOUT_S)
        if left or self._undelivered:
            why = self._undelivered[0] if self._undelivered else f"{left} records waited for {_NETWORK_TIMEOUT_S:g} s"
            self._undelivered.clear()
            raise TransactionError("flush", why, replace=False)

    def _write_changelog(self, transaction: Transaction, producer: Producer) -> None:
        for topic, partition, value in self._marks(transaction.batches) if self._marks else ():
            self._produce(producer, topic, partition, value)
        if self._bases is None:
            return
        state = self._bases.changelog
        for partition, (place, reached) in transaction.steps.items():
            covered = [(place.next[topic], reached.next[topic]) for topic in self._topics]
            deltas = [batch.deltas[partition] for batch in transaction.batches if partition in batch.deltas]
            merged = merge(deltas, state.fields)
            transaction.blocks[partition] = 0
            for value in changelog.encode(merged, state.fingerprint, reached.seq, covered):
                self._produce(producer, state.topic, partition, value)
                transaction.blocks[partition] += len(value)
        if transaction.share is not None:
            self._write_share(transaction.share, state.topic, producer)

    def _write_share(self, share: Share, topic: str, producer: Producer) -> None:
        """Messages of a base snapshot; the report of the first tells where it lies."""
        for number in share.numbers:
            key, value = share.under_way.snapshot.message(number)
            report = share.under_way.delivered if number == 0 else None
            self._produce(producer, topic, share.partition, value, key, report)

    def _produce(
        self, producer: Producer, topic: str, partition: int, value: bytes,
        key: bytes | None = None, report: DeliveryReport | None = None,
    ) -> None:  # fmt: skip
        while True:
            try:
                producer.produce(topic, value, key, partition, on_delivery=report)
                return
            except BufferError:
                producer.poll(_RETRY_PAUSE_S)
            except KafkaException as failure:
                error = failure.args[0]
                raise TransactionError("changelog", error, replace=error.fatal()) from failure

    def _guard(self, what: str, call: Callable[[], Any], within_s: float = _NETWORK_TIMEOUT_S) -> None:
        """Call; repeat what may be repeated, and sort the rest into give up and replace."""
        deadline = self._clock.monotonic() + within_s
        while True:
            try:
                call()
                return
            except KafkaException as failure:
                error = failure.args[0]
                if error.retriable() and self._clock.monotonic() < deadline:
                    # The client may have sent it twice by now: finish, then replace the producer.
                    self._doubt = True
                    self.producer.poll(_RETRY_PAUSE_S)
                    continue
                fenced = error.code() in _FENCES
                # Nothing begun, nothing to abort: then only a new producer helps.
                replace = fenced or not error.txn_requires_abort() or not self._begun
                raise TransactionError("fenced" if fenced else what, error, replace=replace) from failure
