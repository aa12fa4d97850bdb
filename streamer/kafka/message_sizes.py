"""How large a record each topic takes that we write to: asked of the brokers once, at the start."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from streamer import limits
from streamer.errors import TopicError
from streamer.kafka.config import cluster_is_embedded, rekeyed_bytes_max
from streamer.settings.settings import Settings
from streamer.telemetry.logs import get_logger
from streamer.topology.topics import Topics

_log = get_logger(__name__)

SETTING = "max.message.bytes"
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class MessageSizes:
    """What fits where, in bytes.

    Attributes:
        topics: topic -> largest batch of records that its brokers take, compressed or not; a record alone is one too.
        client: largest record that our own client takes.
        batch: largest batch that our client makes of several records.
    """

    topics: Mapping[str, int]
    client: int
    batch: int

    def record(self, topic: str) -> int:
        """Bytes that key, value and headers of a record may have together."""
        return min(self.topics.get(topic, limits.MESSAGE_BYTES_DEFAULT), self.client) - limits.MESSAGE_ROOM_BYTES

    def too_large(self, what: str, topic: str, messages: Iterable[dict[str, Any]]) -> dict[int, str]:
        """Place and fault, in words, of each message that the topic would not take."""
        most = self.record(topic)
        sizes = (len(message["key"] or b"") + len(message["value"]) for message in messages)
        return {
            place: f"{what} has {size:,} bytes, {topic} takes {most:,} of a record ({SETTING} of the topic, less its frame)"
            for place, size in enumerate(sizes)
            if size > most
        }

    def producer_config(self) -> dict[str, int]:
        """Keys of librdkafka that keep to these sizes: the limit of a topic is on the whole batch."""
        return {"message.max.bytes": self.client, "batch.size": self.batch}


def message_sizes(admin: AdminClient, settings: Settings, topics: Topics) -> MessageSizes:
    """Ask what the outputs of a topology take, and put our client's own limits to it.

    Raises:
        TopicError: a topic of dead letters or late records has no room for the headers that say why.
    """
    found = _asked(admin, topics.outputs())
    for topic in (topics.dead_letters, *topics.joined.values(), topics.late_events):
        if topic and found[topic] < limits.LETTER_BYTES_MIN:
            raise TopicError(
                f"{topic} takes records of {found[topic]:,} bytes ({SETTING}), and what a dead letter says of its record may "
                f"need {limits.LETTER_BYTES_MIN:,}: kafka-configs --alter --topic {topic} --add-config {SETTING}=1048588"
            )
    user = settings.producer_config()
    queue = int(user.get("queue.buffering.max.kbytes", limits.PRODUCER_QUEUE_KIB_MAX)) * 1024
    # What a topic takes our client must not refuse; what never finds room in its queue would be waited for without an end.
    client = int(user.get("message.max.bytes", max(rekeyed_bytes_max(settings.record_bytes_max), *found.values())))
    batch = min(int(user.get("batch.size", limits.PRODUCER_BATCH_BYTES_MAX)), *found.values())
    return MessageSizes(found, min(client, queue), batch)


def _asked(admin: AdminClient, topics: list[str]) -> dict[str, int]:
    """The limit of each topic; the default of a broker where it cannot be had."""
    sizes = dict.fromkeys(topics, limits.MESSAGE_BYTES_DEFAULT)
    if cluster_is_embedded(admin):
        return sizes  # it has no such limits, and would let us wait for an answer
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in sizes]
    for resource, answer in admin.describe_configs(resources, request_timeout=_TIMEOUT_S).items():
        try:
            sizes[resource.name] = int(answer.result()[SETTING].value)
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue  # told of elsewhere
            taken = limits.MESSAGE_BYTES_DEFAULT
            _log.warning(
                "message_size_unknown", topic=resource.name, error=error.str(), taken=taken, hint="grant describe_configs on it"
            )
    return sizes
