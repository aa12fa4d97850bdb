"""Reading topics as a consumer downstream would: committed records only, each partition to its end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from tests.faults.names import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.names import Names

Position = tuple[str, int]
KNOWN_WITHIN_S = 20.0
BROKER_AWAY = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a log, with nothing interpreted."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def where(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> bytes | None:
        return next((value for found, value in self.headers if found == name), None)


def _header(name: str, value: object) -> tuple[str, bytes]:
    return name, value if isinstance(value, bytes) else str(value or "").encode()


def to_record(message: Message) -> Record:
    headers = tuple(_header(*pair) for pair in cast("Sequence[tuple[str, object]]", message.headers() or ()))
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Record(topic, partition, offset, message.key(), message.value(), message.timestamp()[1], headers)


def committed_offsets(bootstrap: str, names: Names) -> dict[Position, int]:
    """What the groups of a run committed, per input partition; partitions without a commit are left out.

    Asked through a consumer: the admin client's call can abort the process when the coordinator moves. What a
    transaction has pending is neither shown nor waited for.
    """
    found: dict[Position, int] = {}
    for group, topics in names.readers.items():
        settings = {"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_uncommitted"}
        consumer = Consumer({**settings, "enable.auto.commit": False, "log_level": 2})
        try:
            places = consumer.committed([TopicPartition(t, p) for t in topics for p in range(PARTITIONS)], timeout=15.0)
        finally:
            consumer.close()
        found |= {(p.topic, p.partition): p.offset for p in places if p.error is None and p.offset >= 0}
    return found


def records_from(bootstrap: str, places: dict[Position, int]) -> dict[Position, int]:
    """How many committed records stand at or after these offsets; markers of transactions are none."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "torture-reader-commits-nothing", "enable.auto.commit": False}
    reader = Consumer({**settings, "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 2})
    counts, open_ = dict.fromkeys(places, 0), set(places)
    try:
        reader.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in places.items()])
        deadline = time.monotonic() + 10.0
        while open_ and time.monotonic() < deadline:
            for message in reader.consume(1_000, 0.2):
                topic, partition, error = message.topic(), message.partition(), message.error()
                assert topic is not None
                assert partition is not None
                if error is None:
                    counts[topic, partition] += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_.discard((topic, partition))
    finally:
        reader.close()
    return {where: count + (where in open_) for where, count in counts.items()}


class LogReader:
    """Reads whole topics from their beginning, without a group; `read_committed` unless told otherwise."""

    def __init__(self, bootstrap: str, topics: Iterable[str], isolation: str = "read_committed") -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "torture-reader-commits-nothing",
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 10,
                "fetch.wait.max.ms": 50,
            }
        )
        self._partitions: set[Position] = set()
        for topic in topics:
            self._partitions |= {(topic, number) for number in self._numbers(topic)}
        self._consumer.assign([TopicPartition(t, p, 0) for t, p in sorted(self._partitions)])
        self._at_end: dict[Position, int] = {}

    def _numbers(self, topic: str) -> Iterable[int]:
        """Its partitions; a topic that was just made is not known at once."""
        deadline = time.monotonic() + KNOWN_WITHIN_S
        while (found := self._consumer.list_topics(topic, timeout=10.0).topics[topic]).error is not None:
            if found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
                raise KafkaException(found.error)
            time.sleep(0.1)
        return list(found.partitions)

    def poll(self, timeout_s: float = 0.2) -> Sequence[Record]:
        """What has arrived since the last call; notes the partitions whose end was met."""
        records = []
        for message in self._consumer.consume(2_000, timeout_s):
            error = message.error()
            if error is None:
                record = to_record(message)
                self._at_end.pop((record.topic, record.partition), None)
                records.append(record)
            elif error.code() == KafkaError._PARTITION_EOF:
                topic, partition, offset = message.topic(), message.partition(), message.offset()
                if topic is not None and partition is not None and offset is not None:
                    self._at_end[topic, partition] = offset
            elif error.code() not in BROKER_AWAY and not error.retriable():
                raise KafkaException(error)
        return records

    def read_to_end(self) -> list[Record]:
        """Every record up to the end of each partition as it is when first reached, in log order."""
        records: list[Record] = []
        self._at_end.clear()
        self._consumer.assign([TopicPartition(t, p, 0) for t, p in sorted(self._partitions)])
        while self._partitions - self._at_end.keys():
            records.extend(self.poll())
        return sorted(records, key=lambda r: (r.topic, r.partition, r.offset))

    @property
    def ends(self) -> dict[Position, int]:
        """The end offset of each partition whose end was met."""
        return dict(self._at_end)

    def close(self) -> None:
        self._consumer.close()
