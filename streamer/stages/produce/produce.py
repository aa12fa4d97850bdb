"""produce: scores become records in output topics. A full producer queue is back-pressure, not an error."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from streamer.clock import Clock
from streamer.kafka.message_sizes import MessageSizes
from streamer.kafka.refusals import DeliveryReport
from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.oversize import refuse
from streamer.rows.pairs import Pairs
from streamer.rows.trace import attach
from streamer.stages.commit.transaction import TransactionError
from streamer.stages.produce.encode import Encoder, dead_letter
from streamer.topology.topics import Topics


class Sink(Protocol):
    """Turns batches into records."""

    def records(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:
        """Records by topic, in the order in which they are to be sent; `now_us` is wall time.

        Either all records of a list have `headers` or none has, see `rows.trace.attach`.
        """


@dataclass(slots=True)
class Results:
    """Predictions, and the anomalies among them.

    Attributes:
        encoder: writes them.
        topics: where they go.
        sizes: what these take.
    """

    encoder: Encoder
    topics: Topics
    sizes: MessageSizes

    def records(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:
        """Records by topic. A row one of whose records is too large becomes a dead letter."""
        values = self.encoder.predictions(batch, now_us)
        predictions = [{"key": key, "value": value} for key, value in zip(batch.keys, values, strict=True)]
        flagged = batch.flags.nonzero()[0].tolist() if self.topics.anomalies else []
        anomalies = [{"key": batch.keys[row], "value": self.encoder.anomaly(batch, row, values[row])} for row in flagged]
        if batch.traces:
            self._attach(batch, predictions, flagged, anomalies)
        if large := self._too_large(batch, predictions, flagged, anomalies):
            predictions = [message for row, message in enumerate(predictions) if row not in large]
            anomalies = [message for row, message in zip(flagged, anomalies, strict=True) if row not in large]
            refuse(batch, large)
        found = [(self.topics.predictions, predictions)]
        return [*found, (self.topics.anomalies, anomalies)] if self.topics.anomalies and anomalies else found

    def _attach(
        self, batch: Batch, predictions: list[dict[str, Any]], flagged: list[int], anomalies: list[dict[str, Any]]
    ) -> None:  # fmt: skip
        attach(predictions, batch.traces, self.sizes.record(self.topics.predictions))
        if self.topics.anomalies:
            attach(anomalies, [batch.traces[row] for row in flagged], self.sizes.record(self.topics.anomalies))

    def _too_large(
        self, batch: Batch, predictions: list[dict[str, Any]], flagged: list[int], anomalies: list[dict[str, Any]]
    ) -> dict[int, str]:
        """Row -> what is wrong; predictions are only looked at where one could be."""
        large = dict[int, str]()
        if anomalies and self.topics.anomalies:
            found = self.sizes.too_large("the anomaly", self.topics.anomalies, anomalies)
            large = {flagged[place]: fault for place, fault in found.items()}
        if self.encoder.record_bytes_max(batch) > self.sizes.record(self.topics.predictions):
            large |= self.sizes.too_large("the prediction", self.topics.predictions, predictions)
        return large


@dataclass(slots=True)
class Matches:
    """Predictions with their labels, and those that got none, `schemas/matched.v1.json`.

    Attributes:
        topics: where they go.
        sizes: what these take.
    """

    topics: Topics
    sizes: MessageSizes

    def records(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:  # noqa: ARG002 - nothing counts from now
        """Records by topic. One that is too large becomes a dead letter with the prediction in it."""
        if not len(batch):
            return []
        assert self.topics.unmatched is not None, "a topology with .match names it"
        pairs = Pairs.of(batch)
        rows = zip(batch.keys, pairs.bodies, pairs.labels, pairs.delays_us, strict=True)
        messages = [{"key": key, "value": _pair(body, label, delay_us)} for key, body, label, delay_us in rows]
        matched = [row for row, label in enumerate(pairs.labels) if label is not None]
        unmatched = [row for row, label in enumerate(pairs.labels) if label is None]
        found = list[tuple[str, list[dict[str, Any]]]]()
        large = dict[int, str]()
        for topic, places in ((self.topics.predictions, matched), (self.topics.unmatched, unmatched)):
            records = [messages[row] for row in places]
            if batch.traces:
                attach(records, [batch.traces[row] for row in places], self.sizes.record(topic))
            faults = self.sizes.too_large("the prediction with its label", topic, records)
            large |= {places[place]: fault for place, fault in faults.items()}
            found.append((topic, [record for place, record in enumerate(records) if place not in faults]))
        if large:
            self._refuse(batch, large)
        return [(topic, records) for topic, records in found if records]

    def _refuse(self, batch: Batch, large: dict[int, str]) -> None:
        """The place in a dead letter is that of the record which made the prediction leave; its value names its own."""
        batch.topic, topic = self.topics.source, batch.topic
        batch.values = list(Pairs.of(batch).bodies)
        refuse(batch, large)
        batch.topic = topic


def _pair(body: bytes, label: bytes | None, delay_us: int) -> bytes:
    """A prediction with its label, or as it is."""
    return body if label is None else b'%b,"label":%b,"delay_s":%b}' % (body[:-1], label, orjson.dumps(delay_us / 1e6))


@dataclass(slots=True)
class Outgoing:
    """Encoded records of one batch, and what of them is still to be handed to the producer."""

    batch: Batch
    rows: deque[tuple[str, list[dict[str, Any]]]]
    letters: deque[tuple[str, DeadLetter]] = field(default_factory=deque)
    report: DeliveryReport | None = None


class Produce:
    """Encodes batches at once and hands them to the producer as it has room, in order.

    Args:
        encoder: writes what goes out.
        topics: of the flow.
        clock: stamps.
        sizes: what the topics take.
        report: asked for what is to be told of each delivery; without transactions the producer reports by itself.
    """

    def __init__(
        self, sink: Sink, topics: Topics, clock: Clock, sizes: MessageSizes, report: Callable[[], DeliveryReport | None]
    ) -> None:
        self._sink, self._topics, self._clock, self._sizes, self._report = sink, topics, clock, sizes, report
        self._waiting: deque[Outgoing] = deque()
        self.rows = 0

    def encode(self, batch: Batch) -> None:
        """Encode a flagged batch and put it in line."""
        rows = deque(self._sink.records(batch, self._clock.wall_us()))
        assert batch.balanced, f"not every input has one outcome: {len(batch)} rows, {len(batch.dead)} letters, {batch.tally}"
        batch.values, batch.messages, batch.traces = [], [], []
        batch.stamps.encoded = self._clock.monotonic()
        letters = deque((self._topics.dead_letters_of(letter.topic), letter) for letter in batch.dead)
        letters += [(self._topics.late_events or "", letter) for letter in batch.payload.late]
        self._waiting.append(Outgoing(batch, rows, letters))
        self.rows += batch.weight

    def send(self, producer: Producer) -> Batch | None:
        """Hand over the oldest batch; returns it when all of it is with the producer, None when there is no more room.

        Raises:
            TransactionError: the producer refuses for another reason.
        """
        if not self._waiting:
            return None
        outgoing = self._waiting[0]
        outgoing.report = self._report()
        try:
            if not (_send_rows(producer, outgoing) and self._send_letters(producer, outgoing)):
                return None
        except KafkaException as failure:
            error = failure.args[0]
            raise TransactionError("produce", error, replace=error.fatal()) from failure
        self._waiting.popleft()
        self.rows -= outgoing.batch.weight
        outgoing.batch.stamps.produced = self._clock.monotonic()
        return outgoing.batch

    def _send_letters(self, producer: Producer, outgoing: Outgoing) -> bool:
        while outgoing.letters:
            topic, letter = outgoing.letters[0]
            key, value, headers = dead_letter(letter, self._sizes.record(topic))
            try:
                producer.produce(topic, value, key, headers=headers, on_delivery=outgoing.report)
            except BufferError:
                return False
            outgoing.letters.popleft()
        return True

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self.rows = 0

    def __len__(self) -> int:
        return len(self._waiting)


def _send_rows(producer: Producer, outgoing: Outgoing) -> bool:
    while outgoing.rows:
        topic, messages = outgoing.rows[0]
        if messages and "headers" in messages[0]:
            if left := _send_each(producer, topic, messages, outgoing.report):
                outgoing.rows[0] = (topic, left)
                return False
            outgoing.rows.popleft()
            continue
        try:
            accepted = producer.produce_batch(topic, messages, on_delivery=outgoing.report)
        except BufferError:
            return False
        if accepted < len(messages):
            refused = [message for message in messages if "_error" in message]
            _raise_if_not_full([message.pop("_error") for message in refused])
            outgoing.rows[0] = (topic, refused)
            return False
        outgoing.rows.popleft()
    return True


def _send_each(
    producer: Producer, topic: str, messages: list[dict[str, Any]], report: DeliveryReport | None
) -> list[dict[str, Any]]:  # fmt: skip
    """Records with headers, which the client's batch call does not take; returns those for which there was no room."""
    for place, message in enumerate(messages):
        try:
            producer.produce(topic, on_delivery=report, **message)
        except BufferError:
            return messages[place:]
    return []


def _raise_if_not_full(errors: list[KafkaError]) -> None:
    for error in errors:
        if error.code() != KafkaError._QUEUE_FULL:  # noqa: SLF001 - the name the binding gives it
            raise KafkaException(error)
