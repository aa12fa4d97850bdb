"""An in-memory log with Kafka's rules: partitions, groups of one, transactions with a last stable offset, and fencing.

It stands behind `streamer.testing`, and its clients in `memory_clients` and `memory_admin`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from confluent_kafka import KafkaError, TopicPartition, Uuid

from streamer.clock import Clock
from streamer.limits import MESSAGE_BYTES_DEFAULT

# What a broker counts beside the bytes of a record: the frame of a batch, and the least that stands before a record.
BATCH_BYTES = 61 + 7


@dataclass(slots=True)
class Record:
    """What was produced.

    Attributes:
        key: bytes, or None.
        value: bytes, or None.
        headers: names and bytes in their order; a name may be there twice.
    """

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]


@dataclass(slots=True)
class Stored(Record):
    """One record in the log.

    Attributes:
        timestamp_ms: milliseconds since the epoch.
        state: committed, aborted, or the name of the open transaction.
        created: whether the producer gave the timestamp, and not the log.
    """

    timestamp_ms: int
    state: str = "committed"
    created: bool = field(default=False, kw_only=True)


@dataclass(slots=True)
class _Group:
    offsets: dict[tuple[str, int], tuple[int, str | None]] = field(default_factory=dict)


class MemoryLog:
    """Topics by name, which are there when they are asked for; one that was deleted must be created again.

    Args:
        partitions: of every topic, unless it was created with another number or grew.
        clock: gives records their log time.
        message_bytes_max: topic -> largest record that is taken; Kafka's default for those that are not in it.

    Attributes:
        message_bytes_max: may be changed at any time, as with a broker.
        refusals: topic -> code with which all that is produced to it is refused, such as `TOPIC_AUTHORIZATION_FAILED`.
        undescribed: topics whose configuration may not be read.
    """

    def __init__(self, partitions: int, clock: Clock, message_bytes_max: Mapping[str, int] | None = None) -> None:
        self.partitions, self._clock = partitions, clock
        self.message_bytes_max: dict[str, int] = dict(message_bytes_max or {})
        self.refusals, self.undescribed = dict[str, int](), set[str]()
        self._topics: dict[str, list[list[Stored]]] = defaultdict(lambda: [[] for _ in range(partitions)])
        self._made: dict[str, int] = defaultdict(int)
        self.deleted: set[str] = set()
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._order: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.epochs: dict[str, int] = defaultdict(int)
        self.open: dict[str, list[Stored]] = {}
        self.lows: dict[tuple[str, int], int] = defaultdict(int)
        self.quiet, self.generation = True, 0

    def topic_id(self, topic: str) -> Uuid:
        """Another one each time the topic is made."""
        return Uuid(crc32(topic.encode()) + 1, self._made[topic])

    def count(self, topic: str) -> int:
        """Partitions of a topic; none of one that was deleted."""
        return 0 if topic in self.deleted else len(self._topics[topic])

    def delete_topic(self, topic: str) -> None:
        """Its records go, and with them what groups committed there."""
        self.deleted.add(topic)
        self._topics.pop(topic, None)
        self._order.pop(topic, None)
        self.lows = defaultdict(int, {place: low for place, low in self.lows.items() if place[0] != topic})
        for group in self._groups.values():
            group.offsets = {place: said for place, said in group.offsets.items() if place[0] != topic}

    def create_topic(self, topic: str, partitions: int | None = None) -> None:
        """Make one that was deleted, empty and with another id."""
        self.deleted.discard(topic)
        self._made[topic] += 1
        self._topics[topic] = [[] for _ in range(partitions or self.partitions)]

    def grow_topic(self, topic: str, partitions: int) -> None:
        """Add partitions; groups hear of it when they poll."""
        self._topics[topic] += [[] for _ in range(partitions - self.count(topic))]

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1,
        headers: list[tuple[str, Any]] | None = None, *, transaction: str | None = None, created_ms: int | None = None,
    ) -> Stored:  # fmt: skip
        """Write one record; its partition follows from the key, and its timestamp from the clock, unless given."""
        if partition < 0:
            partition = crc32(key or b"") % self.count(topic)
        timestamp_ms = self._clock.wall_us() // 1000 if created_ms is None else created_ms
        record = Stored(key, value, headers or [], timestamp_ms, transaction or "committed", created=created_ms is not None)
        self._topics[topic][partition].append(record)
        self._order[topic].append((partition, len(self._topics[topic][partition]) - 1))
        if transaction:
            self.open[transaction].append(record)
        return record

    def refusal(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, Any]] | None
    ) -> int | None:  # fmt: skip
        """Code with which a broker would refuse a record, or None."""
        if topic in self.deleted:
            return KafkaError.UNKNOWN_TOPIC_OR_PART
        if topic in self.refusals:
            return self.refusals[topic]
        of_headers = sum(len(name) + len(text or b"") for name, text in headers or [])
        size = BATCH_BYTES + len(key or b"") + len(value or b"") + of_headers
        return KafkaError.MSG_SIZE_TOO_LARGE if size > self.takes(topic) else None

    def takes(self, topic: str) -> int:
        """Bytes of the largest batch, and so of the largest record with its frame, that a topic takes."""
        return self.message_bytes_max.get(topic, MESSAGE_BYTES_DEFAULT)

    def end(self, topic: str, partition: int) -> int:
        """Offset after the last record, open transactions included."""
        return len(self._topics[topic][partition]) if partition < self.count(topic) else 0

    def stable_end(self, topic: str, partition: int) -> int:
        """Offset of the first record of an open transaction, else the end."""
        records = self._topics[topic][partition] if partition < self.count(topic) else []
        return next((n for n, record in enumerate(records) if record.state not in ("committed", "aborted")), len(records))

    def low(self, topic: str, partition: int) -> int:
        """Offset of the first record that was not deleted."""
        return self.lows[topic, partition]

    def delete_records(self, topic: str, partition: int, below: int) -> None:
        """Delete the records below an offset."""
        self.lows[topic, partition] = max(self.lows[topic, partition], below)

    def record(self, topic: str, partition: int, offset: int) -> Stored:
        """The record at an offset."""
        return self._topics[topic][partition][offset]

    def committed_records(self, topic: str) -> list[Stored]:
        """What a reader of committed records sees, in the order of writing."""
        ends = [self.stable_end(topic, p) for p in range(self.count(topic))]
        return [
            record
            for partition, offset in self._order[topic]
            if self.low(topic, partition) <= offset < ends[partition]
            and (record := self._topics[topic][partition][offset]).state == "committed"
        ]

    def committed(self, group: str, topic: str, partition: int) -> tuple[int, str | None] | None:
        """Committed offset and its metadata."""
        return self._groups[group].offsets.get((topic, partition))

    def commit(self, group: str, offsets: list[TopicPartition]) -> None:
        """Set offsets of a group."""
        for tp in offsets:
            self._groups[group].offsets[tp.topic, tp.partition] = (tp.offset, tp.metadata)

    def caught_up(self, group: str, topic: str) -> bool:
        """Whether the group committed everything there is in a topic."""
        return all((self.committed(group, topic, p) or (0, None))[0] >= self.end(topic, p) for p in range(self.count(topic)))

    def rebalance(self) -> None:
        """Have each group take all partitions from its member when that polls, and deal them anew at the poll after it."""
        self.generation += 1

    def crash(self) -> None:
        """Kill all producers: what they left open is aborted, and what they still try is refused."""
        for name in self.epochs:
            self.epochs[name] += 1
        for records in self.open.values():
            for record in records:
                record.state = "aborted"
        self.open.clear()
