"""What a broker refuses for good, and the records it refuses."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message

from streamer.kafka.config import CREATE
from streamer.kafka.message_sizes import SETTING

DeliveryReport = Callable[[KafkaError | None, Message], None]

_RIGHTS = "streamer topics plan prints the rights that a worker needs"
_SETTING = "a setting of the topic forbids such records; kafka-configs --describe shows them"
# Answers that change only when somebody changes something, and what that is.
FINAL = {
    KafkaError.MSG_SIZE_TOO_LARGE: f"raise {SETTING} of the topic",
    KafkaError.RECORD_LIST_TOO_LARGE: "raise segment.bytes of the topic above the size of a batch",
    KafkaError.INVALID_MSG: _SETTING,
    KafkaError.INVALID_RECORD: _SETTING,
    KafkaError.INVALID_TIMESTAMP: _SETTING,
    KafkaError.POLICY_VIOLATION: _SETTING,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT: _SETTING,
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: "choose another compression.type in [kafka.producer]",
    KafkaError.INVALID_REQUIRED_ACKS: _SETTING,
    KafkaError.UNKNOWN_TOPIC_OR_PART: f"create the topic with {CREATE}",
    KafkaError._UNKNOWN_TOPIC: f"create the topic with {CREATE}",  # noqa: SLF001 - the name the binding gives it
    KafkaError._UNKNOWN_PARTITION: "the topic has fewer partitions than when the worker started",  # noqa: SLF001
    KafkaError.TOPIC_EXCEPTION: "the cluster does not accept this name of a topic",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: f"grant write on the topic; {_RIGHTS}",
    KafkaError.GROUP_AUTHORIZATION_FAILED: f"grant read on the group; {_RIGHTS}",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: f"grant write on the transactional id; {_RIGHTS}",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.OFFSET_METADATA_TOO_LARGE: "raise offset.metadata.max.bytes of the brokers",
}
_OF_ALL = {
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.OFFSET_METADATA_TOO_LARGE,
}  # fmt: skip
_ID = re.compile(rb'\{"id":"([^"]{1,200})"')
_KEY_SHOWN = 64


def of_topic(error: KafkaError) -> bool:
    """Whether an answer is about one of the topics."""
    return error.code() not in _OF_ALL


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that was not taken.

    Attributes:
        error: the answer.
        topic, partition: where it was to go; the partition is None where the client never learned it.
        size: bytes of key and value.
        name: what is known of it, in words.
    """

    error: KafkaError
    topic: str
    partition: int | None
    size: int
    name: str


@dataclass(slots=True)
class Refusals:
    """Listens to deliveries, and keeps the first record that was refused for good.

    Attributes:
        wanted: whether each delivery is to be reported: after a failure, since a report of each costs as much as sending it.
        first: that record.
    """

    wanted: bool = False
    first: Refused | None = None

    @property
    def report(self) -> DeliveryReport | None:
        """What a producer should tell of each record, None on the healthy way."""
        return self.note if self.wanted else None

    def note(self, error: KafkaError | None, message: Message) -> None:
        """A record was delivered, or was not."""
        if error is None or error.code() not in FINAL or self.first is not None:
            return
        key, value = message.key() or b"", message.value() or b""
        found = _ID.match(value)
        name = f"id {found[1].decode(errors='replace')!r}" if found else f"key {key[:_KEY_SHOWN]!r}"
        self.first = Refused(error, message.topic() or "", message.partition(), len(key) + len(value), name)
