"""Consumers and producers of the in-memory log, with the methods of confluent-kafka's that the service uses."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from streamer.kafka.memory_log import MemoryLog, Stored
from streamer.rows.records import LOG_APPEND_TIME

_CREATE_TIME = 1


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
        self._generation = log.generation
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
            self._follow_the_group()
        found: list[Message] = []
        for (topic, partition), position in list(self._position.items()):
            if (topic, partition) not in self._paused:
                found += self._take(topic, partition, position, num_messages - len(found))
        self._log.quiet = not found
        return found

    def _follow_the_group(self) -> None:
        """Give up what is to be dealt anew, to be assigned at the next poll; partitions that were added are dealt to us too."""
        if self._generation != self._log.generation:
            self._generation, self._rebalance = self._log.generation, self._handlers["on_assign"]
            self._handlers["on_revoke"](self, self._owned())
            return
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
            self._handlers["on_revoke"](self, self._owned())

    def _owned(self) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for topic, partition in self._position if topic in self._topics]


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
