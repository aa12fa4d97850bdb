"""The topics of a topology on a cluster: made as they must be, and the rights that a worker needs on them."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic  # its public home does not export it to type checkers

from streamer.errors import TopicError
from streamer.kafka.clients import KafkaClients
from streamer.kafka.config import READERS, admin_config, partitions_of, rekeyed_bytes_max
from streamer.settings.settings import Settings
from streamer.topology.topics import Topics

# Copies of each record as `default.replication.factor` of the brokers says.
_BROKERS_DEFAULT = -1
# Of a changelog: Kafka's defaults, 1 GiB and a week, would keep a partition of a few megabytes a thousand times over.
SEGMENTS = {"segment.bytes": str(64 * 2**20), "segment.ms": str(6 * 3600 * 1000)}


def create_topics(settings: Settings, topics: Topics, *, partitions: int, replication: int | None = None) -> dict[str, bool]:
    """Create what is missing; topic -> whether it was created.

    Raises:
        TopicError: the broker refuses, or a changelog exists with another number of partitions than the source.
    """
    existing = next((count for count in partitions_of(settings, topics.sources).values() if count), partitions)
    # Inputs and state belong together partition by partition; outputs are as wide as asked for.
    alike = {*topics.sources, topics.changelog}
    new = [
        NewTopic(name, existing if name in alike else partitions, replication or _BROKERS_DEFAULT, config=config)
        for name, config in configs(topics, settings.record_bytes_max).items()
    ]
    done = {}
    admin = KafkaClients().admin(admin_config(settings))
    for name, future in admin.create_topics(new).items():
        try:
            future.result()
            done[name] = True
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"topic {name} cannot be created: {error.args[0].str()}") from error
            done[name] = False
    return done


def configs(topics: Topics, record_bytes_max: int) -> dict[str, dict[str, str]]:
    """Configuration of each topic. Log time is the broker's: event times are judged against it."""
    plain = {"message.timestamp.type": "LogAppendTime"}
    found = {name: plain for name in topics.all() if name != topics.changelog}
    if topics.rekeyed:
        # A record of the source, however large, passes with its header in front.
        found[topics.rekeyed] = plain | {"max.message.bytes": str(rekeyed_bytes_max(record_bytes_max))}
    if topics.changelog:
        # The state is what the log says: nothing may be deleted by age. What is deleted by offset frees its disk only by whole
        # segments, and of a log that is hardly written to only once its segment has been closed.
        found[topics.changelog] = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete", **SEGMENTS}
    return found


def acls(topics: Topics, group: str) -> list[str]:
    """The rights a worker needs, no more, one a line."""
    readers = topics.readers(group)
    lines = [f"allow read,describe topic {name}" for name in readers]
    # Their configuration says how large a record they take.
    lines += [f"allow write,describe,describe_configs topic {name}" for name in topics.outputs()]
    if topics.changelog:
        lines.append(f"allow read,delete topic {topics.changelog}")
    groups = dict.fromkeys(readers.values())
    if topics.changelog:
        groups |= {READERS: None}  # nothing is committed in it, but a client that reads has to name one
    lines += [f"allow read group {name}" for name in groups]
    lines.append(f"allow write,describe transactional-id prefix {group}-")
    return lines
