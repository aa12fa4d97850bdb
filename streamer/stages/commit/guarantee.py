"""What differs between guarantees: when a transaction is due, what carries it out, and how its producers are mended.

Each guarantee owns the producers that keep it, in a file of its own. All but the work is called on the worker's thread.
"""

from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import Producer, TopicPartition

from streamer.kafka.refusals import DeliveryReport
from streamer.stages.commit.committing import Work
from streamer.stages.commit.state_writer import StateWriter
from streamer.stages.commit.transaction import Transaction, TransactionError


class Guarantee(Protocol):
    """A way to commit."""

    @property
    def atomic(self) -> bool:
        """Whether state and offsets become visible together, so that a restore may hold one against the other."""

    @property
    def unseen_s(self) -> float:
        """For how long a result waits to be seen when its flow keeps up, seconds; 0 when it is seen as it is sent."""

    @property
    def stuck_s(self) -> float:
        """Seconds after which a commit is left to itself."""

    @property
    def outputs(self) -> Producer:
        """Where outputs go."""

    def report(self) -> DeliveryReport | None:
        """What the producer of outputs is to be told to report of each record; None where it reports by itself, or need not."""

    def open(self) -> None:
        """Get ready, as far as the brokers allow it at once; `admits` goes on with it.

        Raises:
            StreamerError: it will never be.
        """

    def describe(self) -> str | None:
        """What keeps transactions from beginning; None when nothing does, or it is too early to tell."""

    def admits(self) -> bool:
        """Whether outputs may be handed over, while no commit is under way.

        Raises:
            TransactionError: the producer is past use.
        """

    def begin(self) -> None:
        """Open a transaction if none is open; `admits` must have said so.

        Raises:
            TransactionError: the producer refuses.
        """

    def due(self, transaction: Transaction, *, behind: bool) -> float:
        """When a transaction is to be committed, monotonic seconds; `behind`: there is more input than is taken in."""

    def work(self, writer: StateWriter) -> Work:
        """What carries out a commit of the open transaction, with the producers of now."""

    def ended(self, at: float) -> None:
        """A commit went well, at that monotonic second."""

    def settle(self, offsets: list[TopicPartition], *, wait: bool) -> bool:
        """See to it that the group has the offsets of a commit that went well; whether that is certain. `wait` for an answer."""

    def reason(self, failure: TransactionError, known: TopicPartition, member: Callable[[], Any]) -> TransactionError:
        """The failure with what the client knows of it and did not say; nobody may be committing.

        Args:
            failure: as it was met.
            known: an offset that is committed already.
            member: gives the group's member and generation.
        """

    def give_up(self, *, replace: bool, failed: bool) -> None:
        """Abort what is open, and make the producers usable again; nobody may be committing.

        Args:
            replace: they cannot be used any more.
            failed: no commit of what is open has gone well.

        Raises:
            TransactionError: that cannot be done now; call again.
        """
