"""A client that sleeps through the start of a partition is woken: in a restore soon and not too often, in the input at once."""

from typing import cast

from confluent_kafka import Consumer, Message, TopicPartition

from streamer.changelog.blocks import CommitMetadata
from streamer.changelog.restore import Restore
from streamer.clock import ManualClock
from streamer.kafka.memory_clients import MemoryConsumer, MemoryProducer
from streamer.kafka.memory_log import MemoryLog
from streamer.operators.rolling.store import RollingSpec, RollingStore
from streamer.stages.consume.consume import Consume
from streamer.topology.rolling import rolling
from tests.kit.faulty import kafka_error

STEP_S = 0.01
SPEC = RollingSpec(window=rolling(count=4), fields=("value",), needs=(0,), quantiles=((),), keeps_time=False)


class Sleeper(MemoryConsumer):
    """A client that reads nothing until it has to ask the broker something else, for the third time."""

    def __init__(self, log: MemoryLog, clock: ManualClock) -> None:
        super().__init__(log, {"group.id": "reader", "enable.partition.eof": True})
        self.clock, self.asked = clock, list[float]()

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        return super().consume(num_messages, timeout) if len(self.asked) > 2 else []

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float = 0, cached: bool = False) -> tuple[int, int]:
        assert not cached, "what is known already is not asked"
        self.asked.append(self.clock.monotonic())
        if len(self.asked) < 2:
            raise kafka_error("plain")
        return super().get_watermark_offsets(partition, timeout, cached)


def test_a_client_that_sleeps_is_woken() -> None:
    clock = ManualClock()
    sleeper = Sleeper(MemoryLog(1, clock), clock)
    restore = Restore(cast("Consumer", sleeper), "changelog", clock, strict=True)
    started = clock.monotonic()
    restore.begin(0, RollingStore(SPEC, 10), [None], CommitMetadata(None), (0, 0))
    while not restore.step(0.0):
        clock.advance(STEP_S)
        assert clock.monotonic() - started < 1.0, "nobody woke it"
    first, *_ = waits = [later - before for before, later in zip([started, *sleeper.asked], sleeper.asked, strict=False)]
    assert len(waits) == 3
    assert min(waits) > 0.03, "an answer may wait behind a long poll"
    assert first < 0.03 + 2 * STEP_S


def test_a_client_that_does_not_wake_is_left_alone() -> None:
    clock = ManualClock()
    sleeper = Sleeper(MemoryLog(1, clock), clock)
    restore = Restore(cast("Consumer", sleeper), "changelog", clock, strict=True)
    restore.begin(0, RollingStore(SPEC, 10), [None], CommitMetadata(None), (0, 0))
    clock.advance(2.0)
    for _ in range(100):
        assert not restore.step(0.0)
        clock.advance(STEP_S)
    assert not sleeper.asked


class Dozer(MemoryConsumer):
    """A client that goes on with a partition when it is told where, not when it is told that it may."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log, {"group.id": "g"})
        self.asleep = set[int]()

    def resume(self, partitions: list[TopicPartition]) -> None:
        super().resume(partitions)
        self.asleep = {place.partition for place in partitions}

    def seek(self, partition: TopicPartition) -> None:
        super().seek(partition)
        self.asleep.discard(partition.partition)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        return [] if self.asleep else super().consume(num_messages, timeout)


def test_partitions_start_awake_and_where_they_were_sought_to() -> None:
    clock = ManualClock()
    log = MemoryLog(2, clock)
    producer = MemoryProducer(log, {})
    for partition in (0, 0, 1, 1, 1):
        producer.produce("in", b"v", b"k", partition=partition)
    dozer = Dozer(log)
    consume = Consume(lambda: cast("Consumer", dozer), ["in"], clock, 1.0)
    dozer.incremental_assign([TopicPartition("in", 0, 0), TopicPartition("in", 1, 0)])
    consume.hold([0, 1])
    consume.seek(0, {"in": 1})
    consume.seek(1, {"in": 2})
    assert consume.poll(10, 0.0, 0.0) == []
    consume.start([0, 1])
    (records,) = consume.poll(10, 0.0, 0.0)
    assert sorted(zip(records.partitions.tolist(), records.offsets.tolist(), strict=True)) == [(0, 1), (1, 2)]
