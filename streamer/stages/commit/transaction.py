"""A transaction: the batches in it, what its commit owes and carries, and how that ended."""

import threading
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streamer.changelog.bases import Share
from streamer.rows.batch import Batch


@dataclass(slots=True)
class Place:
    """Where the chain of commits of a partition stands.

    Attributes:
        seq: number of the last commit.
        next: input topic -> offset after it.
    """

    seq: int
    next: dict[str, int]


Step = tuple[Place, Place]


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
    """What is committed together.

    Attributes:
        opened, newest: monotonic seconds of the poll of its oldest and its newest batch.
        batches: produced in it.
        steps: partition -> its places before and after; set when the commit starts. Places change hands in a rebalance, and a
            commit under way must say what it set out to say: the group decides whether that still counts.
        committing: its offsets, with sequence numbers as metadata; set when the commit starts.
        metadata: the group's member and generation, read when the commit starts.
        rows: in all batches, dead letters included.
        share: of a base snapshot, that goes with it.
        blocks: partition -> bytes of its blocks in the changelog.
        trims: partition -> changelog offset below which nothing is needed once this is committed.
        started: monotonic seconds of the start of the commit.
        passable: whether outputs may be sent beside the rest of the commit (at-least-once: its own are durable).
        abandoned: the commit did not end; whatever comes of it, nobody waits for it any more.
        committed: monotonic seconds of the end of the commit.
        took_s: how long the commit took.
        error: why it failed.
        finished: set when the commit has ended either way.
    """

    opened: float
    newest: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    steps: dict[int, Step] = field(default_factory=dict)
    committing: list[TopicPartition] = field(default_factory=list)
    metadata: Any = None
    rows: int = 0
    share: Share | None = None
    blocks: dict[int, int] = field(default_factory=dict)
    trims: dict[int, int] = field(default_factory=dict)
    started: float = 0.0
    passable: bool = False
    abandoned: bool = False
    committed: float = 0.0
    took_s: float = 0.0
    error: Exception | None = None
    finished: threading.Event = field(default_factory=threading.Event)

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
        return sorted(
            {partition for batch in self.batches for partition in (*batch.owed, *batch.deltas, *batch.told, *batch.quiet)}
        )
