"""An in-memory log with Kafka's rules: partitions, groups of one, transactions with a last stable offset, and fencing.

It stands behind `streamer.testing`; the clients here have the methods of confluent-kafka's that the service uses.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition, Uuid

from streamer.clock import Clock
from streamer.limits import MESSAGE_BYTES_DEFAULT
from streamer.rows.records import LOG_APPEND_TIME

_CREATE_TIME = 1
# What a broker counts beside the bytes of a record: the frame of a batch, and the least that stands before a record.
BATCH_BYTES = 61 + 7


@dataclass(slots=True)
class Stored:
    """One record in the log.

    Attributes:
        key, value, headers: as they were produced.
        timestamp_ms: milliseconds since the epoch.
        state: committed, aborted, or the name of the open transaction.
        created: whether the producer gave the timestamp, and not the log.
    """

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]
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
        self.quiet = True

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

    def crash(self) -> None:
        """Kill all producers: what they left open is aborted, and what they still try is refused."""
        for name in self.epochs:
            self.epochs[name] += 1
        for records in self.open.values():
            for record in records:
                record.state = "aborted"
        self.open.clear()


class MemoryConsumer:
    """A consumer that owns all partitions of what it subscribes to, or those it was assigned."""

    def __init__(self, log: MemoryLog, config: dict[str, Any]) -> None:
        self._log, self._group = log, str(config["group.id"])
        self._committed_only = config.get("isolation.level") != "read_uncommitted"
        self._eof = bool(config.get("enable.partition.eof"))
        self._position: dict[tuple[str, int], int] = {}
        self._paused: set[tuple[str, int]] = set()
        self._at_end: dict[tuple[str, int], int] = {}
        self._rebalance: Any = None
        self._heard: dict[str, int] = {}
        self._topics: list[str] = []
        self._handlers: dict[str, Any] = {}

    def subscribe(self, topics: list[str], **handlers: Any) -> None:
        self._topics, self._handlers = topics, handlers
        self._rebalance = handlers["on_assign"]

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        if self._rebalance is not None:
            handler, self._rebalance = self._rebalance, None
            self._heard = {topic: self._log.count(topic) for topic in self._topics}
            handler(self, [TopicPartition(topic, p) for topic, count in self._heard.items() for p in range(count)])
        elif self._heard:
            self._hear_of_more()
        found: list[Message] = []
        for (topic, partition), position in list(self._position.items()):
            if (topic, partition) not in self._paused:
                found += self._take(topic, partition, position, num_messages - len(found))
        self._log.quiet = not found
        return found

    def _hear_of_more(self) -> None:
        """Partitions that were added are dealt to us too."""
        for topic, heard in self._heard.items():
            if (count := self._log.count(topic)) > heard:
                self._heard[topic] = count
                self._handlers["on_assign"](self, [TopicPartition(topic, p) for p in range(heard, count)])

    def _take(self, topic: str, partition: int, position: int, room: int) -> list[Message]:
        if room > 0 and (code := self._astray(topic, partition, position)) is not None:
            return [Message(topic=topic, partition=partition, offset=position, error=KafkaError(code))]
        end = (self._log.stable_end if self._committed_only else self._log.end)(topic, partition)
        position = max(position, self._log.low(topic, partition))
        found: list[Message] = []
        while position < end and len(found) < room:
            stored = self._log.record(topic, partition, position)
            if stored.state != "aborted" or not self._committed_only:
                found.append(_message(topic, partition, position, stored))
            position += 1
        self._position[topic, partition] = position
        if self._eof and position >= end and len(found) < room and self._at_end.get((topic, partition)) != position:
            self._at_end[topic, partition] = position
            error = KafkaError(KafkaError._PARTITION_EOF)  # noqa: SLF001 - the name the binding gives it
            found.append(Message(topic=topic, partition=partition, offset=position, error=error))
        return found

    def _astray(self, topic: str, partition: int, position: int) -> int | None:
        """Code with which a fetch at this position would fail, or None."""
        if topic in self._log.deleted:
            return KafkaError.UNKNOWN_TOPIC_OR_PART
        if position > self._log.end(topic, partition):
            return KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - the name the binding gives it
        return None

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._position[tp.topic, tp.partition] = max(0, tp.offset)
            self._at_end.pop((tp.topic, tp.partition), None)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._position.pop((tp.topic, tp.partition), None)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {(tp.topic, tp.partition) for tp in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        resumed = {(tp.topic, tp.partition) for tp in partitions}
        self._paused -= resumed
        for place in resumed:  # the client fetches anew and meets the end again
            self._at_end.pop(place, None)

    def seek(self, partition: TopicPartition) -> None:
        self._position[partition.topic, partition.partition] = partition.offset
        self._at_end.pop((partition.topic, partition.partition), None)

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(tp.topic, tp.partition, self._position.get((tp.topic, tp.partition), -1001)) for tp in partitions]

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        found = []
        for tp in partitions:
            offset, metadata = self._log.committed(self._group, tp.topic, tp.partition) or (-1001, None)
            found.append(TopicPartition(tp.topic, tp.partition, offset, metadata or ""))
        return found

    def commit(self, offsets: list[TopicPartition], asynchronous: bool = True) -> None:  # noqa: FBT001, FBT002 - as the client
        self._log.commit(self._group, offsets)

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = 0, cached: bool = False  # noqa: FBT001, FBT002 - as the client
    ) -> tuple[int, int]:  # fmt: skip
        place = partition.topic, partition.partition
        return self._log.low(*place), self._log.end(*place)

    def consumer_group_metadata(self) -> str:
        return self._group

    def close(self) -> None:
        if self._topics and self._rebalance is None:
            owned = [TopicPartition(topic, partition) for topic, partition in self._position if topic in self._topics]
            self._handlers["on_revoke"](self, owned)


Report = Callable[[KafkaError | None, Message], None]


class MemoryProducer:
    """A producer, transactional when its configuration has an id; a newer one with that id fences it.

    What the log refuses is reported, and a transaction that holds such a record can only be aborted.
    """

    def __init__(self, log: MemoryLog, config: dict[str, Any]) -> None:
        self._log = log
        self._id: str | None = config.get("transactional.id")
        self._only_failures = bool(config.get("delivery.report.only.error"))
        self._report: Report | None = config.get("on_delivery")
        self._epoch = 0
        self._offsets: list[tuple[str, list[TopicPartition]]] = []
        self._reports: list[tuple[Report, KafkaError | None, Message]] = []
        self._refused: int | None = None

    def init_transactions(self, timeout: float = 0) -> None:
        assert self._id is not None, "not transactional"
        self._log.epochs[self._id] += 1
        self._epoch = self._log.epochs[self._id]
        self._end("aborted")

    def begin_transaction(self) -> None:
        self._check()
        assert self._id is not None, "not transactional"
        self._log.open[self._id] = []
        self._offsets, self._refused = [], None

    def produce(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, partition: int = -1,
        headers: list[tuple[str, Any]] | None = None, on_delivery: Report | None = None,
    ) -> None:  # fmt: skip
        self._check()
        report = on_delivery or self._report
        if (code := self._log.refusal(topic, key, value, headers)) is not None:
            self._refused = self._refused or code
            if report is not None:
                stored = Stored(key, value, headers or [], 0)
                self._reports.append((report, KafkaError(code), _message(topic, max(partition, 0), -1, stored)))
            return
        stored = self._log.append(topic, key, value, partition, headers, transaction=self._id)
        if report is not None and not self._only_failures:
            self._reports.append((report, None, _message(topic, partition, self._log.end(topic, partition) - 1, stored)))

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], on_delivery: Report | None = None) -> int:
        for message in messages:
            self.produce(topic, message["value"], message["key"], message.get("partition", -1), on_delivery=on_delivery)
        return len(messages)

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], metadata: str, timeout: float = -1) -> None:
        self._check()
        self._offsets.append((metadata, offsets))

    def commit_transaction(self) -> None:
        self._check()
        if self._refused is not None:
            self.poll()
            raise KafkaException(KafkaError(self._refused, "a record was refused", txn_requires_abort=True))
        for group, offsets in self._offsets:
            self._log.commit(group, offsets)
        self._end("committed")
        self.poll()

    def abort_transaction(self, timeout: float = 0) -> None:
        self._check()
        self._refused = None
        self._end("aborted")

    def poll(self, timeout: float = 0) -> int:
        reports, self._reports = self._reports, []
        for report, error, message in reports:
            report(error, message)
        return len(reports)

    def flush(self, timeout: float = 0) -> int:
        self.poll()
        return 0

    def purge(self) -> None:
        """Nothing is queued."""

    def _end(self, state: str) -> None:
        for record in self._log.open.pop(self._id or "", []):
            record.state = state

    def _check(self) -> None:
        if self._id is not None and self._epoch != self._log.epochs[self._id]:
            raise KafkaException(KafkaError(KafkaError._FENCED, fatal=True))  # noqa: SLF001 - the name the binding gives it


def _message(topic: str, partition: int, offset: int, stored: Stored) -> Message:
    return Message(
        topic=topic, partition=partition, offset=offset, key=stored.key, value=stored.value, headers=stored.headers or None,
        timestamp=(_CREATE_TIME if stored.created else LOG_APPEND_TIME, stored.timestamp_ms),
    )  # fmt: skip
