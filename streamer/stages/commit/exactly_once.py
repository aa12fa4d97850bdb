"""exactly once: outputs, state and offsets in one transaction, all seen or none; when in doubt, a new producer."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Producer, TopicPartition

from streamer.clock import Clock
from streamer.kafka.refusals import DeliveryReport, Refusals
from streamer.limits import COMMIT_AGE_BEHIND_S, TRANSACTION_TIMEOUT_S
from streamer.stages.commit.committing import Job
from streamer.stages.commit.producers import MakeTransactional
from streamer.stages.commit.requests import Requests, served
from streamer.stages.commit.state_writer import StateWriter
from streamer.stages.commit.transaction import Transaction, TransactionError
from streamer.telemetry.logs import get_logger
from streamer.telemetry.metrics import Metrics

_log = get_logger(__name__)

# For one answer of the coordinator, when all is given up and at the start.
_MEND_TIMEOUT_S = 2.0
# Without a limit the client may wait for ever for a coordinator that a broker's death took from it. A transaction that has
# timed out is past saving.
_OFFSETS_TRY_S = 5.0
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


class ExactlyOnce:
    """Owns the producer and its transactions.

    Args:
        make: builds the producer, with the worker's transactional id.
        timing: when to commit, and how long to wait.
        clock: for ages.
        metrics: doubts and new producers are counted.
        refusals: say whether deliveries are to be reported, and listen to them.
    """

    atomic = True

    def __init__(self, make: MakeTransactional, timing: Timing, clock: Clock, metrics: Metrics, refusals: Refusals) -> None:
        self._make, self._timing, self._clock, self._metrics, self._refusals = make, timing, clock, metrics, refusals
        self.unseen_s, self.stuck_s = timing.interval_s, timing.stuck_s
        self._producer, self._made_at = make(), clock.monotonic()
        self._rested_at = 0.0

    @property
    def outputs(self) -> Producer:
        """Of everything."""
        return self._producer.client

    def report(self) -> DeliveryReport | None:
        """Asked for after a refusal only, for a commit fails instead."""
        return self._refusals.report

    def open(self) -> None:
        """Have the coordinator let this producer in, if it does at once.

        Raises:
            StreamerError: it never will.
        """
        self._opened(_MEND_TIMEOUT_S)

    def describe(self) -> str | None:
        """What a new producer waits for; None when there is one, or it was made a moment ago, as after every doubt."""
        if self._producer.ready or self._clock.monotonic() - self._made_at < _OPEN_SOON_S:
            return None
        return f"transactions cannot begin yet: {self._producer.waits_for}"

    def admits(self) -> bool:
        """Whether a transaction is open or may be opened now.

        Right after a commit the coordinator would only send a new transaction away. Between two transactions a producer in
        doubt is replaced; until the new one is ready the rows wait, and nothing is rolled back.

        Raises:
            TransactionError: the producer is past use.
        """
        if self._producer.begun:
            return True
        if self._clock.monotonic() < self._rested_at:
            return False
        served(self.outputs, 0.0)
        if self._producer.doubt.reason is not None and self._producer.ready:
            self._renew()
        return self._opened(_OPEN_TRY_S)

    def begin(self) -> None:
        """Open a transaction if none is open; `admits` must have said so.

        Raises:
            TransactionError: the producer refuses.
        """
        producer = self._producer
        if producer.begun:
            return
        producer.doubt.opened()
        producer.requests.call("begin", producer.client.begin_transaction, begun=False)
        producer.begun = True

    def due(self, transaction: Transaction, *, behind: bool) -> float:
        """By its age, since nobody sees its outputs before; later in a flow that is behind, where fewer commits help more."""
        interval_s = self._timing.interval_s
        return transaction.opened + (max(interval_s, COMMIT_AGE_BEHIND_S) if behind else interval_s)

    def work(self, writer: StateWriter) -> "InTransaction":
        """The end of a transaction of the producer of now."""
        return InTransaction(self._producer.requests, writer, self._refusals)

    def ended(self, at: float) -> None:
        """A commit went well: the next transaction begins after a pause."""
        self._producer.begun = False
        self._producer.doubt.ended()
        self._rested_at = at + self._timing.rest_s

    def settle(self, offsets: list[TopicPartition], *, wait: bool) -> bool:  # noqa: ARG002 - it has them by the transaction
        """The offsets were in the transaction."""
        return True

    def reason(self, failure: TransactionError, known: TopicPartition, member: Callable[[], Any]) -> TransactionError:
        """The failure with what the client knows of an open transaction and did not say."""
        return self._producer.requests.refusal(failure, known, member) if self._producer.begun else failure

    def give_up(self, *, replace: bool, failed: bool) -> None:
        """Abort the open transaction, or have a new producer do so; the coordinator knows it by its id.

        Raises:
            TransactionError: no new producer can be had now; call again.
        """
        begun, self._producer.begun = self._producer.begun, False
        if begun and not replace and failed:
            replace = not self._aborted()
        # One that was made and is not ready yet has replaced the old one already.
        if (replace or self._producer.doubt.reason is not None) and self._producer.ready:
            self._renew()
        if not self._opened(_MEND_TIMEOUT_S):
            raise TransactionError("init", self._producer.waits_for, replace=True)

    def _aborted(self) -> bool:
        """End the open transaction; False if it is not certain that this is done, and done once."""
        requests = self._producer.requests
        if requests.doubt.reason is not None:
            return False
        try:
            requests.request("abort", lambda: requests.client.abort_transaction(_MEND_TIMEOUT_S))
        except TransactionError:
            return False
        return True

    def _renew(self) -> None:
        """Another producer with the same id: with it the coordinator refuses whatever the old one sent."""
        doubt = self._producer.doubt
        if doubt.reason is not None:
            _log.warning("doubt", reason=doubt.reason, what=doubt.what)
            self._metrics.add("streamer_doubts_total", 1, doubt.reason)
        self._metrics.add("streamer_producer_replacements_total")
        self._producer, self._made_at = self._make(), self._clock.monotonic()

    def _opened(self, timeout_s: float) -> bool:
        """Whether the producer is ready for transactions, within `timeout_s`."""
        waited = self._clock.monotonic() - self._made_at
        if self._producer.useless or (not self._producer.ready and waited > _OPEN_MAX_S):
            self._renew()
        return self._producer.open(timeout_s)


@dataclass(frozen=True, slots=True)
class InTransaction:
    """Ends a transaction, on the committing thread.

    Attributes:
        requests: of the producer that it was begun with.
        writer: of state.
        refusals: listen to deliveries.
    """

    requests: Requests
    writer: StateWriter
    refusals: Refusals

    def __call__(self, job: Job, passable: threading.Event) -> dict[int, int]:  # noqa: ARG002 - nothing may pass before its end
        """State, then the offsets, then the commit; outputs are in the transaction already."""
        client = self.requests.client
        blocks = self.writer.write(job, client, self.refusals)

        def offsets() -> None:
            client.send_offsets_to_transaction(list(job.offsets), job.member, _OFFSETS_TRY_S)

        # Records first. Else offsets could be refused while the last transaction still ends, to be sent again after a pause that
        # looks like a doubt; and the time that records take is none in which a request of the transaction is on its way.
        client.flush(TRANSACTION_TIMEOUT_S)
        self.requests.request("offsets", offsets, TRANSACTION_TIMEOUT_S)
        self.requests.request("commit", client.commit_transaction)
        return blocks
