"""produce: scores become records in output topics. A full producer queue is back-pressure, not an error."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from streamer.batch import Batch, DeadLetter
from streamer.clock import Clock
from streamer.stages.encode import Encoder, dead_letter, dead_letter_key
from streamer.stages.transaction import TransactionError
from streamer.topics import Topics


class Encoding(Protocol):
    """Turns batches into records."""

    def outgoing(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:
        """Records by topic, in the order in which they are to be sent; `now_us` is wall time."""


@dataclass(slots=True)
class Results:
    """Predictions, and the anomalies among them.

    Attributes:
        encoder: writes them.
        topics: where they go.
    """

    encoder: Encoder
    topics: Topics

    def outgoing(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:
        """Records by topic."""
        values = self.encoder.predictions(batch, now_us)
        found = [(self.topics.predictions, [{"key": k, "value": v} for k, v in zip(batch.keys, values, strict=True)])]
        if self.topics.anomalies and batch.flags.any():
            flagged = batch.flags.nonzero()[0].tolist()
            anomalies = [{"key": batch.keys[row], "value": self.encoder.anomaly(batch, row, values[row])} for row in flagged]
            found.append((self.topics.anomalies, anomalies))
        return found


@dataclass(slots=True)
class Matches:
    """Predictions with their labels, and those that got none, `schemas/matched.v1.json`.

    Attributes:
        topics: where they go.
    """

    topics: Topics

    def outgoing(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:  # noqa: ARG002 - nothing counts from now
        """Records by topic."""
        assert batch.pairs is not None, "the stage before makes pairs"
        assert self.topics.unmatched is not None, "a topology with .match names it"
        matched, unmatched = list[dict[str, Any]](), list[dict[str, Any]]()
        pairs = batch.pairs
        for key, body, label, delay_us in zip(batch.keys, pairs.bodies, pairs.labels, pairs.delays_us, strict=True):
            if label is None:
                unmatched.append({"key": key, "value": body})
            else:
                value = b'%b,"label":%b,"delay_s":%b}' % (body[:-1], label, orjson.dumps(delay_us / 1e6))
                matched.append({"key": key, "value": value})
        found = (self.topics.predictions, matched), (self.topics.unmatched, unmatched)
        return [(topic, records) for topic, records in found if records]


@dataclass(slots=True)
class Outgoing:
    """Encoded records of one batch, and what of them is still to be handed to the producer."""

    batch: Batch
    rows: deque[tuple[str, list[dict[str, Any]]]]
    letters: deque[tuple[str, DeadLetter]] = field(default_factory=deque)


class Produce:
    """Encodes batches at once and hands them to the producer as it has room, in order.

    Args:
        encoder: writes what goes out.
        topics: of the flow.
        clock: stamps.
    """

    def __init__(self, encoder: Encoding, topics: Topics, clock: Clock) -> None:
        self._encoder, self._topics, self._clock = encoder, topics, clock
        self._waiting: deque[Outgoing] = deque()
        self.rows = 0

    def encode(self, batch: Batch) -> None:
        """Encode a flagged batch and put it in line."""
        rows = deque(self._encoder.outgoing(batch, self._clock.wall_us()))
        batch.values, batch.messages = [], []
        batch.stamps.encoded = self._clock.monotonic()
        letters = deque((self._topics.rejected_of(letter.topic), letter) for letter in batch.dead)
        letters += [(self._topics.late or "", letter) for letter in batch.late]
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
        try:
            if not (_send_rows(producer, outgoing) and _send_letters(producer, outgoing)):
                return None
        except KafkaException as failure:
            error = failure.args[0]
            raise TransactionError("produce", error, replace=error.fatal()) from failure
        self._waiting.popleft()
        self.rows -= outgoing.batch.weight
        outgoing.batch.stamps.produced = self._clock.monotonic()
        return outgoing.batch

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self.rows = 0

    def __len__(self) -> int:
        return len(self._waiting)


def _send_letters(producer: Producer, outgoing: Outgoing) -> bool:
    while outgoing.letters:
        topic, letter = outgoing.letters[0]
        value, headers = dead_letter(letter)
        try:
            producer.produce(topic, value, dead_letter_key(letter), headers=headers)
        except BufferError:
            return False
        outgoing.letters.popleft()
    return True


def _send_rows(producer: Producer, outgoing: Outgoing) -> bool:
    while outgoing.rows:
        topic, messages = outgoing.rows[0]
        try:
            accepted = producer.produce_batch(topic, messages)
        except BufferError:
            return False
        if accepted < len(messages):
            refused = [message for message in messages if "_error" in message]
            _raise_if_not_full([message.pop("_error") for message in refused])
            outgoing.rows[0] = (topic, refused)
            return False
        outgoing.rows.popleft()
    return True


def _raise_if_not_full(errors: list[KafkaError]) -> None:
    for error in errors:
        if error.code() != KafkaError._QUEUE_FULL:  # noqa: SLF001 - the name the binding gives it
            raise KafkaException(error)
