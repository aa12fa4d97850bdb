"""produce: encoded records go to output topics. A full producer queue is back-pressure, not an error."""

from collections import deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from streamer.clock import Clock
from streamer.kafka.message_sizes import MessageSizes
from streamer.kafka.refusals import DeliveryReport
from streamer.rows.batch import Batch
from streamer.rows.outgoing import Outgoing
from streamer.stages.commit.transaction import TransactionError
from streamer.stages.produce.encode import dead_letter


class Produce:
    """Hands encoded batches to the producer as it has room, in order.

    Attributes:
        rows: records that wait, dead letters included.
    """

    def __init__(self, clock: Clock, sizes: MessageSizes, report: Callable[[], DeliveryReport | None]) -> None:
        """Send nothing yet.

        Args:
            clock: stamps.
            sizes: what the topics take.
            report: asked for what is to be told of each delivery; without transactions the producer reports by itself.
        """
        self._clock, self._sizes, self._report = clock, sizes, report
        self._waiting: deque[Outgoing] = deque()
        self.rows = 0

    def add(self, outgoing: Outgoing) -> None:
        """Put an encoded batch in line."""
        self._waiting.append(outgoing)
        self.rows += outgoing.batch.weight

    def send(self, producer: Producer) -> Batch | None:
        """Hand over the oldest batch; returns it when all of it is with the producer, None when there is no more room.

        Raises:
            TransactionError: the producer refuses for another reason.
        """
        if not self._waiting:
            return None
        outgoing = self._waiting[0]
        report = self._report()
        try:
            if not (_send_rows(producer, outgoing, report) and self._send_letters(producer, outgoing, report)):
                return None
        except KafkaException as failure:
            error = failure.args[0]
            raise TransactionError("produce", error, replace=error.fatal()) from failure
        self._waiting.popleft()
        self.rows -= outgoing.batch.weight
        outgoing.batch.stamps.produced = self._clock.monotonic()
        return outgoing.batch

    def _send_letters(self, producer: Producer, outgoing: Outgoing, report: DeliveryReport | None) -> bool:
        """Dead letters are written as they go: what says why is a kilobyte each, and they may wait by the ten thousand."""
        while outgoing.letters:
            topic, letter = outgoing.letters[0]
            key, value, headers = dead_letter(letter, self._sizes.record(topic))
            try:
                producer.produce(topic, value, key, headers=headers, on_delivery=report)
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


def _send_rows(producer: Producer, outgoing: Outgoing, report: DeliveryReport | None) -> bool:
    while outgoing.rows:
        topic, messages = outgoing.rows[0]
        if messages and "headers" in messages[0]:
            if left := _send_each(producer, topic, messages, report):
                outgoing.rows[0] = (topic, left)
                return False
            outgoing.rows.popleft()
            continue
        try:
            accepted = producer.produce_batch(topic, messages, on_delivery=report)
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
