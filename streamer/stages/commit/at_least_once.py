"""at least once: outputs are seen as they are sent, before the block and the offsets that say so; a crash repeats some."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import Producer, TopicPartition

from streamer.kafka.refusals import DeliveryReport
from streamer.limits import COMMIT_AGE_AT_LEAST_ONCE_S, COMMIT_QUIET_S
from streamer.stages.commit.committing import Job
from streamer.stages.commit.producers import MakePlain, PlainProducers
from streamer.stages.commit.requests import NETWORK_TIMEOUT_S
from streamer.stages.commit.state_writer import StateWriter
from streamer.stages.commit.transaction import Transaction, TransactionError
from streamer.telemetry.metrics import Metrics


class CommitOffsets(Protocol):
    """The group's consumer, as far as it commits."""

    def __call__(self, offsets: list[TopicPartition], *, wait: bool) -> bool:
        """Commit; whether that is certain."""


class AtLeastOnce:
    """Owns the producers; the offsets are committed by the consumer.

    Args:
        make: builds the producers.
        commit_offsets: commits offsets of the group.
        metrics: new producers are counted.
    """

    atomic = False
    unseen_s = 0.0
    stuck_s = math.inf

    def __init__(self, make: MakePlain, commit_offsets: CommitOffsets, metrics: Metrics) -> None:
        self._make, self._commit_offsets, self._metrics = make, commit_offsets, metrics
        self._producers = make()

    @property
    def outputs(self) -> Producer:
        """Of outputs."""
        return self._producers.outputs

    def report(self) -> DeliveryReport | None:
        """The producers report by themselves."""
        return None

    def open(self) -> None:
        """Nothing is asked."""

    def describe(self) -> str | None:
        """Nothing is waited for."""
        return None

    def admits(self) -> bool:
        """Always."""
        return True

    def begin(self) -> None:
        """Nothing is told to a broker."""

    def due(self, transaction: Transaction, *, behind: bool) -> float:  # noqa: ARG002 - nobody waits for it
        """Seldom: it is no matter to those who read the outputs, and what is redone after a crash repeats."""
        return min(transaction.opened + COMMIT_AGE_AT_LEAST_ONCE_S, transaction.newest + COMMIT_QUIET_S)

    def work(self, writer: StateWriter) -> "InTurn":
        """Flushes of the producers of now."""
        return InTurn(self._producers, writer)

    def ended(self, at: float) -> None:
        """The next outputs are on their way already."""

    def settle(self, offsets: list[TopicPartition], *, wait: bool) -> bool:
        """Commit the offsets; only a hint where to go on, for the blocks say it too."""
        return self._commit_offsets(offsets, wait=wait)

    def reason(
        self,
        failure: TransactionError,
        known: TopicPartition,  # noqa: ARG002 - there is nothing to ask
        member: Callable[[], Any],  # noqa: ARG002 - there is nothing to ask
    ) -> TransactionError:
        """The producers have said all they know."""
        return failure

    def give_up(self, *, replace: bool, failed: bool) -> None:  # noqa: ARG002 - there is nothing to abort
        """Throw away what was not sent."""
        self._producers.purge()
        if replace:
            self._metrics.add("streamer_producer_replacements_total")
            self._producers = self._make()


@dataclass(frozen=True, slots=True)
class InTurn:
    """Makes outputs durable, then what says so, on the committing thread.

    Attributes:
        producers: that the outputs went to.
        writer: of state.
    """

    producers: PlainProducers
    writer: StateWriter

    def __call__(self, job: Job, passable: threading.Event) -> dict[int, int]:
        """Outputs are durable before the block that says so: after a crash they may repeat, never miss."""
        self._flush(self.producers.outputs)
        passable.set()
        blocks = self.writer.write(job, self.producers.changelog)
        self._flush(self.producers.changelog)
        return blocks

    def _flush(self, producer: Producer) -> None:
        left, undelivered = producer.flush(NETWORK_TIMEOUT_S), self.producers.undelivered
        if left or undelivered:
            why = undelivered[0] if undelivered else f"{left} records waited for {NETWORK_TIMEOUT_S:g} s"
            undelivered.clear()
            raise TransactionError("flush", why, replace=False)
