"""Calls of a producer to its coordinators: what may be repeated is, and the rest becomes a failure that the worker knows.

Both threads call here, the worker's and the committing one, each with the requests of the producer that it means: one that was
left to itself must find nothing of the producers that came after.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from streamer.clock import Clock
from streamer.stages.commit.doubt import Doubt
from streamer.stages.commit.transaction import TransactionError

NETWORK_TIMEOUT_S = 30.0
RETRY_PAUSE_S = 0.05
_ASK_S = 1.0
_FENCED = KafkaError._FENCED  # noqa: SLF001 - the name the binding gives it
_FATAL = KafkaError._FATAL  # noqa: SLF001 - the name the binding gives it
_WRONG_STATE = KafkaError._STATE  # noqa: SLF001 - the name the binding gives it
_FENCES = (_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)


@dataclass(frozen=True, slots=True)
class Requests:
    """What one producer with transactions asks for.

    Attributes:
        client: the producer.
        doubt: whether one of them may still be on its way.
        clock: for how long they took.
    """

    client: Producer
    doubt: Doubt
    clock: Clock

    def call(self, what: str, call: Callable[[], Any], within_s: float = NETWORK_TIMEOUT_S, *, begun: bool = True) -> None:
        """Call; repeat what may be repeated, and sort the rest into give up and replace.

        Args:
            what: short code for the metric.
            call: what to do.
            within_s: how long to repeat it.
            begun: whether there is a transaction that could be aborted; without one only a new producer helps.

        Raises:
            TransactionError: `what` failed for good.
        """
        deadline = self.clock.monotonic() + within_s
        while True:
            try:
                call()
                return
            except (KafkaException, SystemError) as failure:
                error = _said(failure)
                if error.retriable() and self.clock.monotonic() < deadline:
                    # The client may have sent it twice by now: finish, then replace the producer.
                    self.doubt.failed(what, error)
                    served(self.client, RETRY_PAUSE_S)
                    continue
                raise _given_up(what, error, replace=not error.txn_requires_abort() or not begun) from failure

    def request(self, what: str, call: Callable[[], Any], within_s: float = NETWORK_TIMEOUT_S) -> None:
        """The same for what goes to a coordinator, noting whether it may have been sent twice.

        Raises:
            TransactionError: `what` failed for good.
        """
        started = self.clock.monotonic()
        try:
            self.call(what, call, within_s)
        finally:
            self.doubt.took(what, self.clock.monotonic() - started)

    def refusal(self, failure: TransactionError, known: TopicPartition, member: Callable[[], Any]) -> TransactionError:
        """Why, where the client only said that the state of its transaction is wrong: a broker has refused part of it.

        Who produces is not told more; who sends offsets is, at once and without a word to any broker. A transaction must have
        begun, and nobody be committing it.

        Args:
            failure: as it was met.
            known: an offset that is committed already, so that nothing could come of it.
            member: gives the group's member and generation.
        """
        if failure.error is None or failure.error.code() != _WRONG_STATE or failure.replace:
            return failure
        try:
            self.client.send_offsets_to_transaction([known], member(), _ASK_S)
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


def as_failure(error: Exception) -> Exception:
    """A failure of a commit as the worker knows it; what is none of the client's stays as it is."""
    told = _client_error(error)
    return error if told is None else _past_use(told)


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


def _past_use(error: KafkaError) -> TransactionError:
    """What to make of an error that a producer tells of by the way, in whichever call comes next."""
    return _given_up("producer", error, replace=True)


def _given_up(what: str, error: KafkaError, *, replace: bool) -> TransactionError:
    """A failure for good; who was fenced has to be replaced in any case."""
    fenced = error.code() in _FENCES
    return TransactionError("fenced" if fenced else what, error, replace=replace or fenced)
