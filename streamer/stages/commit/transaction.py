"""A transaction: the batches in it and what its commit owes; where partitions stand, and why it must be given up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streamer.rows.batch import Batch


@dataclass(slots=True)
class ChainPosition:
    """Where the chain of commits of a partition stands.

    Attributes:
        seq: number of the last commit.
        next_offsets: input topic -> offset after it.
    """

    seq: int
    next_offsets: dict[str, int]


class Advance(NamedTuple):
    """What a commit does to the chain of a partition."""

    before: ChainPosition
    after: ChainPosition


class TransactionError(Exception):
    """A transaction that must be given up: its rows are redone. Internal to the worker.

    Attributes:
        cause: short code for the metric.
        replace: whether the producer cannot be used any more.
        again: whether rolling back was tried before and the broker did not answer.
        refused: whether somebody said no to these rows and will again: a pause comes before the next attempt.
        error: the client's error, if one is the cause.
    """

    def __init__(self, cause: str, error: object, *, replace: bool, again: bool = False, refused: bool = False) -> None:
        super().__init__(f"{cause}: {error}")
        self.cause, self.replace, self.again, self.refused = cause, replace, again, refused
        answer = error.args[0] if isinstance(error, KafkaException) else error
        self.error: KafkaError | None = answer if isinstance(answer, KafkaError) else None
        if isinstance(error, TransactionError):
            self.error = error.error


@dataclass(slots=True)
class Transaction:
    """What is to be committed together.

    Attributes:
        opened, newest: monotonic seconds of the poll of its oldest and its newest batch.
        batches: produced in it.
        rows: in all batches, dead letters included.
    """

    opened: float
    newest: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    rows: int = 0

    def add(self, batch: Batch) -> None:
        """Enter a produced batch."""
        self.batches.append(batch)
        self.newest = batch.stamps.polled
        self.rows += batch.weight

    def offsets(self) -> dict[tuple[str, int], int]:
        """Topic and partition -> next offset, owed by the batches."""
        owed: dict[tuple[str, int], int] = {}
        for batch in self.batches:
            for partition, offset in batch.owed.items():
                place = batch.topic, partition
                owed[place] = max(offset, owed.get(place, 0))
        return owed

    def partitions(self) -> list[int]:
        """Partitions whose input or state it moves on."""
        return sorted({p for batch in self.batches for p in (*batch.owed, *batch.deltas, *batch.payload.partitions)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A transaction that is through.

    Attributes:
        batches: that were in it.
        rows: in all batches, dead letters included.
        offsets: of its inputs, with sequence numbers as metadata.
        trims: partition -> changelog offset below which nothing is needed any more.
        at: monotonic seconds of the end of the commit.
        took_s: how long the commit took.
    """

    batches: Sequence[Batch]
    rows: int
    offsets: Sequence[TopicPartition]
    trims: dict[int, int]
    at: float
    took_s: float
