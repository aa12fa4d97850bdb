"""What Kafka itself says: topics, committed offsets, append times, group members and generations.

Everything the benchmarks claim about the service is read here, from the broker, never from the service.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

OFFSETS_TOPIC = "__consumer_offsets"
GROUP_METADATA_KEY = 2  # version of the keys that hold a group's members and generation
PARTITIONS = 4
WAIT_S = 30.0
# A broker that has just started loads its groups first; asked then, it says so, or a request of ours runs out of time.
STARTING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._TIMED_OUT,  # noqa: SLF001 - the name the binding gives it
)


class Log:
    """One broker, looked at from outside."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        # Errors reach us as exceptions; the client need not print them as well when the broker goes.
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})

    def create(self, *topics: str, partitions: int = PARTITIONS) -> None:
        """Create topics whose record timestamps are the broker's append time."""
        config = {"message.timestamp.type": "LogAppendTime"}
        new = [NewTopic(topic, partitions, 1, config=config) for topic in topics]
        for future in self.admin.create_topics(new).values():
            future.result(WAIT_S)
        for topic in topics:
            self.partitions(topic)

    @contextmanager
    def lent(self, topic: str) -> Iterator[str]:
        """A topic for the length of a `with` block."""
        self.create(topic)
        try:
            yield topic
        finally:
            self.delete([topic])

    def delete(self, topics: Iterable[str]) -> None:
        """Delete those of the topics that exist."""
        there = [topic for topic in topics if topic in self.topics()]
        for future in self.admin.delete_topics(there).values() if there else ():
            future.result(WAIT_S)

    def topics(self) -> list[str]:
        """Names of all topics."""
        return list(self.admin.list_topics(timeout=WAIT_S).topics)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; a new topic may take the broker a moment to know."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if count := len(self.admin.list_topics(topic, timeout=WAIT_S).topics[topic].partitions):
                return count
            time.sleep(0.05)
        raise RuntimeError(f"{self.bootstrap} does not know the topic {topic!r}")

    def committed(self, group: str) -> int:
        """Sum of the offsets the group has committed; on a topic without transactions, events done."""
        asked = ConsumerGroupTopicPartitions(group)
        answer = self.admin.list_consumer_group_offsets([asked], request_timeout=WAIT_S)[group].result()
        return sum(max(place.offset, 0) for place in answer.topic_partitions)

    def members(self, group: str) -> tuple[str, ...]:
        """Ids of the members of a settled group; empty while it is rebalancing, gone, or has no coordinator yet."""
        try:
            answer = self.admin.describe_consumer_groups([group], request_timeout=WAIT_S)[group].result()
        except KafkaException as failure:
            if failure.args[0].code() not in STARTING:
                raise
            return ()
        return tuple(sorted(m.member_id for m in answer.members)) if answer.state.name == "STABLE" else ()

    def wait_for_members(self, group: str, timeout_s: float) -> bool:
        """True as soon as the group is settled with at least one member."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.members(group):
                return True
            time.sleep(0.2)
        return False

    def wait_until_empty(self, group: str, timeout_s: float) -> None:
        """Return once nobody is in the group any more; one who did not say goodbye stays for its session."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answer = self.admin.describe_consumer_groups([group], request_timeout=WAIT_S)[group].result()
            if answer.state.name == "EMPTY":
                return
            time.sleep(0.2)
        raise RuntimeError(f"the group {group} still has members after {timeout_s:.0f} s")

    def assigned_ms(self, group: str, since: Mapping[int, int]) -> int:
        """When the group's first assignment after `since` was written down, in the broker's clock (ms).

        `since` holds ends of the offsets topic (partition -> offset). The broker writes a generation together with
        what its members are assigned, and only then tells them.
        """
        partition = java_hash(group) % self.partitions(OFFSETS_TOPIC)
        for record in self.read(OFFSETS_TOPIC, [partition], "read_uncommitted", since):
            if generation(record, group):
                return record.timestamp()[1]
        raise RuntimeError(f"the group {group} was assigned nothing")

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> offset after the last record there is."""
        with _reader(self.bootstrap) as consumer:
            places = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
            marks = [(place.partition, consumer.get_watermark_offsets(place, WAIT_S)) for place in places]
        return {partition: mark[1] for partition, mark in marks if mark is not None}

    def firsts(self, topic: str, since: Mapping[int, int]) -> dict[int, Message]:
        """Partition -> the first record at or after an offset that a read_committed reader sees."""
        found: dict[int, Message] = {}
        for message in self.read(topic, since, since=since):
            found.setdefault(message.partition() or 0, message)
            if len(found) == len(since):
                break
        return found

    def generations(self, group: str) -> list[int]:
        """Every generation of a classic group that the broker has written down, in order."""
        partition = java_hash(group) % self.partitions(OFFSETS_TOPIC)
        records = self.read(OFFSETS_TOPIC, [partition], "read_uncommitted")
        found = [generation(record, group) for record in records]
        return [number for number in found if number]  # 0: a group that has no members yet

    def read(
        self,
        topic: str,
        partitions: Iterable[int],
        isolation: str = "read_committed",
        since: Mapping[int, int] = MappingProxyType({}),
    ) -> Iterator[Message]:
        """Every record of the partitions from their beginning, or an offset in `since`, to their present end."""
        with _reader(self.bootstrap, isolation) as consumer:
            open_partitions = set(partitions)
            consumer.assign([TopicPartition(topic, p, since.get(p, 0)) for p in open_partitions])
            while open_partitions:
                batch = consumer.consume(10_000, 10.0)
                if not batch:
                    raise RuntimeError(f"{topic}: no end of partitions {sorted(open_partitions)} within 10 s")
                for message in batch:
                    if message.error() is None:
                        yield message
                    else:  # the end of a partition is reported as an error
                        open_partitions.discard(message.partition() or 0)

    def span(self, topic: str) -> tuple[int, int, int]:
        """Records a read_committed reader sees, and the first and last time (ms) the broker appended one."""
        times = [message.timestamp()[1] for message in self.read(topic, range(self.partitions(topic)))]
        return len(times), min(times, default=0), max(times, default=0)


def generation(message: Message, group: str) -> int | None:
    """The generation in a record of the offsets topic, if that record describes this group."""
    key, value = message.key() or b"", message.value() or b""
    if len(key) < 4 or len(value) < 4 or struct.unpack_from(">h", key)[0] != GROUP_METADATA_KEY:
        return None
    (length,) = struct.unpack_from(">h", key, 2)
    if key[4 : 4 + length] != group.encode():
        return None
    (protocol_length,) = struct.unpack_from(">h", value, 2)  # after the version: the protocol type's length
    return int(struct.unpack_from(">i", value, 4 + max(protocol_length, 0))[0])


def java_hash(text: str) -> int:
    """`Math.abs(text.hashCode())`, as Kafka uses it to place a group."""
    code = 0
    for byte in text.encode("utf-16-be")[1::2]:
        code = (31 * code + byte) & 0xFFFFFFFF
    return min(code, 2**32 - code)


def _reader(bootstrap: str, isolation: str = "read_committed") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "load-reader",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "queued.min.messages": 200_000,
            "fetch.queue.backoff.ms": 20,
        }
    )
