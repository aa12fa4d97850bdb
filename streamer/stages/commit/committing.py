"""The committing thread: what a commit does, step by step, while the worker goes on with the next rows.

What it touches comes with each job: a thread that was left to itself must find nothing of the producers that came after.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from streamer.changelog import blocks as changelog
from streamer.changelog.bases import Bases, Share
from streamer.clock import Clock
from streamer.kafka.refusals import DeliveryReport
from streamer.limits import TRANSACTION_TIMEOUT_S
from streamer.rows.batch import Batch
from streamer.stages.commit.producers import Outlets
from streamer.stages.commit.transaction import Transaction, TransactionError
from streamer.state.delta import merge

NETWORK_TIMEOUT_S = 30.0
# Without a limit the client may wait for ever for a coordinator that a broker's death took from it. A transaction that has
# timed out is past saving.
_OFFSETS_TRY_S = 5.0
_RETRY_PAUSE_S = 0.05
_ASK_S = 1.0
_FENCED = KafkaError._FENCED  # noqa: SLF001 - the name the binding gives it
_FATAL = KafkaError._FATAL  # noqa: SLF001 - the name the binding gives it
_WRONG_STATE = KafkaError._STATE  # noqa: SLF001 - the name the binding gives it
_FENCES = (_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)


# What a transaction says at its end, beside its outputs: topic, partition and value of each record.
Marks = Callable[[list[Batch]], Iterable[tuple[str, int, bytes]]]


class Committing:
    """Carries out commits, one after the other.

    Args:
        topics: input topics, the lead first.
        bases: base snapshots and the changelog where state changes go, None for a flow without windows.
        clock: for how long a commit took.
        transactional: exactly-once.
        marks: what to say at the end of a transaction.
    """

    def __init__(
        self, topics: Sequence[str], bases: Bases | None, clock: Clock, *, transactional: bool, marks: Marks | None
    ) -> None:
        self._topics, self._bases, self._clock = tuple(topics), bases, clock
        self._transactional, self._marks = transactional, marks
        self.jobs: queue.SimpleQueue[tuple[Transaction, Outlets] | None] = queue.SimpleQueue()
        self._thread = self._new_thread()

    def replace(self) -> None:
        """Leave the thread to itself, which has an abandoned commit, and go on with another."""
        self._thread = self._new_thread()

    def close(self) -> None:
        """End the thread; nothing may be open."""
        self.jobs.put(None)
        self._thread.join(timeout=5.0)

    def _new_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name="streamer-commit", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            transaction, outlets = job
            started = self._clock.monotonic()
            try:
                self._commit(transaction, outlets)
            except Exception as error:  # noqa: BLE001 - it is raised again where the worker reaps it
                transaction.error = _sorted(error)
            transaction.committed = self._clock.monotonic()
            transaction.took_s = transaction.committed - started
            transaction.finished.set()
            if transaction.abandoned:
                transaction.error = None  # nobody asks for it, and its traceback would keep all of this alive, producer included
                return  # another thread has the work now

    def _commit(self, transaction: Transaction, outlets: Outlets) -> None:
        if not self._transactional:
            # Outputs are durable before the block that says so: after a crash they may repeat, never miss.
            self._flush(outlets, outlets.outputs)
            transaction.passable = True
            self._write_changelog(transaction, outlets)
            self._flush(outlets, outlets.changelog)
            return
        producer = outlets.outputs
        self._write_changelog(transaction, outlets)
        owed, member = transaction.committing, transaction.metadata

        def offsets() -> None:
            producer.send_offsets_to_transaction(owed, member, _OFFSETS_TRY_S)

        # Records first. Else offsets could be refused while the last transaction still ends, to be sent again after a pause that
        # looks like a doubt; and the time that records take is none in which a request of the transaction is on its way.
        producer.flush(TRANSACTION_TIMEOUT_S)
        request(outlets, self._clock, "offsets", offsets, TRANSACTION_TIMEOUT_S)
        request(outlets, self._clock, "commit", producer.commit_transaction)

    def _flush(self, outlets: Outlets, producer: Producer) -> None:
        left = producer.flush(NETWORK_TIMEOUT_S)
        if left or outlets.undelivered:
            why = outlets.undelivered[0] if outlets.undelivered else f"{left} records waited for {NETWORK_TIMEOUT_S:g} s"
            outlets.undelivered.clear()
            raise TransactionError("flush", why, replace=False)

    def _write_changelog(self, transaction: Transaction, outlets: Outlets) -> None:
        for topic, partition, value in self._marks(transaction.batches) if self._marks else ():
            self._produce(outlets, topic, partition, value)
        if self._bases is None:
            return
        state = self._bases.changelog
        for partition, (place, reached) in transaction.steps.items():
            covered = [(place.next[topic], reached.next[topic]) for topic in self._topics]
            deltas = [batch.deltas[partition] for batch in transaction.batches if partition in batch.deltas]
            merged = merge(deltas, state.fields)
            transaction.blocks[partition] = 0
            for value in changelog.encode(merged, state.fingerprint, reached.seq, covered, state.ids, state.row_bytes_max):
                self._produce(outlets, state.topic, partition, value)
                transaction.blocks[partition] += len(value)
        if transaction.share is not None:
            self._write_share(transaction.share, state.topic, outlets)

    def _write_share(self, share: Share, topic: str, outlets: Outlets) -> None:
        """Messages of a base snapshot; the report of the first tells where it lies."""
        for number in share.numbers:
            key, value = share.under_way.snapshot.message(number)
            report = share.under_way.delivered if number == 0 else None
            self._produce(outlets, topic, share.partition, value, key, report)

    def _produce(
        self, outlets: Outlets, topic: str, partition: int, value: bytes,
        key: bytes | None = None, report: DeliveryReport | None = None,
    ) -> None:  # fmt: skip
        producer, report = outlets.changelog, report or outlets.report
        while True:
            try:
                producer.produce(topic, value, key, partition, on_delivery=report)
                return
            except BufferError:
                served(producer, _RETRY_PAUSE_S)
            except KafkaException as failure:
                error = failure.args[0]
                raise TransactionError("changelog", error, replace=error.fatal()) from failure


def guarded(outlets: Outlets, clock: Clock, what: str, call: Callable[[], Any], within_s: float = NETWORK_TIMEOUT_S) -> None:
    """Call; repeat what may be repeated, and sort the rest into give up and replace.

    Raises:
        TransactionError: `what` failed for good.
    """
    deadline = clock.monotonic() + within_s
    while True:
        try:
            call()
            return
        except (KafkaException, SystemError) as failure:
            error = _said(failure)
            if error.retriable() and clock.monotonic() < deadline:
                # The client may have sent it twice by now: finish, then replace the producer.
                outlets.doubt.failed(what, error)
                served(outlets.outputs, _RETRY_PAUSE_S)
                continue
            # Nothing begun, nothing to abort: then only a new producer helps.
            raise _given_up(what, error, replace=not error.txn_requires_abort() or not outlets.begun) from failure


def request(outlets: Outlets, clock: Clock, what: str, call: Callable[[], Any], within_s: float = NETWORK_TIMEOUT_S) -> None:
    """The same for what goes to a coordinator, noting whether it may have been sent twice.

    Raises:
        TransactionError: `what` failed for good.
    """
    started = clock.monotonic()
    try:
        guarded(outlets, clock, what, call, within_s)
    finally:
        outlets.doubt.took(what, clock.monotonic() - started)


def refusal(outlets: Outlets, failure: TransactionError, known: TopicPartition, member: Callable[[], Any]) -> TransactionError:
    """Why, where the client only said that the state of its transaction is wrong: a broker has refused part of it.

    Who produces is not told more; who sends offsets is, at once and without a word to any broker.

    Args:
        outlets: with a transaction that was begun, and nobody who commits it.
        failure: as it was met.
        known: an offset that is committed already, so that nothing could come of it.
        member: gives the group's member and generation.
    """
    if failure.error is None or failure.error.code() != _WRONG_STATE or failure.replace:
        return failure
    try:
        outlets.outputs.send_offsets_to_transaction([known], member(), _ASK_S)
    except (KafkaException, SystemError) as told:
        error = _said(told)
        # One that did not fail before may be on its way to a broker now: then only a new producer helps.
        return _given_up(failure.cause, error, replace=not error.txn_requires_abort())
    return TransactionError(failure.cause, failure.error, replace=True)


def served(producer: Producer, wait_s: float) -> None:
    """Let a producer tell what happened: deliveries, the state of connections, its end.

    Raises:
        TransactionError: it is past use.
    """
    try:
        producer.poll(wait_s)
    except (KafkaException, SystemError) as failure:
        raise _past_use(_said(failure)) from failure


def _said(failure: KafkaException | SystemError) -> KafkaError:
    """The client's error; what is none of the client's is raised again."""
    error = _client_error(failure)
    if error is None:
        raise failure
    return error


def _client_error(failure: Exception) -> KafkaError | None:
    """The client's error, None where there is none in it.

    A call that reports deliveries too wraps it: the binding makes these reports with the error raised. At times it loses the
    error on that way, and only says that there was one; the producer is past use then too.
    """
    cause = failure.__cause__ if isinstance(failure, SystemError) else failure
    if cause is None:
        return KafkaError(_FATAL, f"the client has lost its error: {failure}", fatal=True)
    return cause.args[0] if isinstance(cause, KafkaException) else None


def _sorted(error: Exception) -> Exception:
    """A failure of a commit as the worker knows it; what is none of the client's stays as it is."""
    told = _client_error(error)
    return error if told is None else _past_use(told)


def _past_use(error: KafkaError) -> TransactionError:
    """What to make of an error that a producer tells of by the way, in whichever call comes next."""
    return _given_up("producer", error, replace=True)


def _given_up(what: str, error: KafkaError, *, replace: bool) -> TransactionError:
    """A failure for good; who was fenced has to be replaced in any case."""
    fenced = error.code() in _FENCES
    return TransactionError("fenced" if fenced else what, error, replace=replace or fenced)
