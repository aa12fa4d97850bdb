"""What a commit writes beside its outputs: blocks of the changelog, a share of a base snapshot, marks; for every guarantee."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaException, Producer

from streamer.changelog import blocks as changelog
from streamer.changelog.blocks import ChangelogTopic
from streamer.changelog.snapshots import SnapshotSlice
from streamer.kafka.refusals import DeliveryReport, Refusals
from streamer.rows.batch import Batch
from streamer.stages.commit.committing import Job
from streamer.stages.commit.requests import RETRY_PAUSE_S, served
from streamer.stages.commit.transaction import TransactionError
from streamer.state.delta import merge

# What a transaction says at its end, beside its outputs: topic, partition and value of each record.
Marks = Callable[[Sequence[Batch]], Iterable[tuple[str, int, bytes]]]


@dataclass(frozen=True, slots=True)
class StateWriter:
    """Writes for the commits of one flow.

    Attributes:
        topics: of the inputs, the lead first.
        changelog: where state changes go, None for a flow without windows.
        marks: what to say at the end of a transaction, or None.
    """

    topics: tuple[str, ...]
    changelog: ChangelogTopic | None
    marks: Marks | None

    def write(self, job: Job, producer: Producer, refusals: Refusals | None = None) -> dict[int, int]:
        """Hand all of it to the producer; returns partition -> bytes of its blocks in the changelog.

        Args:
            job: the commit.
            producer: takes the records, in this order.
            refusals: are told of each delivery where they want that; without them the producer reports by itself.

        Raises:
            TransactionError: the producer does not take a record.
        """
        to = _To(producer, refusals)
        for topic, partition, value in self.marks(job.batches) if self.marks else ():
            to.send(topic, partition, value)
        blocks = dict[int, int]()
        state = self.changelog
        if state is None:
            return blocks
        for partition, (place, reached) in job.steps.items():
            covered = [(place.next_offsets[topic], reached.next_offsets[topic]) for topic in self.topics]
            deltas = [batch.deltas[partition] for batch in job.batches if partition in batch.deltas]
            merged = merge(deltas, state.fields)
            blocks[partition] = 0
            ids, most = state.ids, state.row_bytes_max
            for value in changelog.encode(merged, state.fingerprint, reached.seq, covered, ids=ids, most=most):
                to.send(state.topic, partition, value)
                blocks[partition] += len(value)
        if job.share is not None:
            to.send_share(job.share, state.topic)
        return blocks


@dataclass(frozen=True, slots=True)
class _To:
    """A producer that takes records one by one, and whom to tell of their delivery."""

    producer: Producer
    refusals: Refusals | None

    def send_share(self, share: SnapshotSlice, topic: str) -> None:
        """Messages of a base snapshot; the report of the first tells where it lies."""
        for number in share.numbers:
            key, value = share.under_way.snapshot.message(number)
            report = share.under_way.delivered if number == 0 else None
            self.send(topic, share.partition, value, key=key, report=report)

    def send(
        self, topic: str, partition: int, value: bytes, *, key: bytes | None = None, report: DeliveryReport | None = None
    ) -> None:
        """Hand a record over, as soon as there is room."""
        if report is None and self.refusals is not None:
            report = self.refusals.report
        while True:
            try:
                self.producer.produce(topic, value, key, partition, on_delivery=report)
                return
            except BufferError:
                served(self.producer, RETRY_PAUSE_S)
            except KafkaException as failure:
                error = failure.args[0]
                raise TransactionError("changelog", error, replace=error.fatal()) from failure
