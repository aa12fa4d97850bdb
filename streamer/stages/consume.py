"""consume: owns the group's consumer. Polls no more rows than asked for, and tells the worker of rebalances."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamer.batch import Records, partition_rows
from streamer.clock import Clock
from streamer.errors import LostOffsetsError, TopicError

_TIMESTAMP_LOG_APPEND = 2
_NETWORK_TIMEOUT_S = 30.0


class Listener(Protocol):
    """What the worker does when partitions come and go; called from inside `poll`."""

    def assigned(self, partitions: list[int]) -> None:
        """These are ours now; nothing is read from them until `Consume.start`."""

    def revoked(self, partitions: list[int]) -> None:
        """These go to somebody else: finish, commit, forget."""

    def lost(self, partitions: list[int]) -> None:
        """These are somebody else's already: forget, commit nothing."""


class Consume:
    """The consumer of one topic.

    Args:
        consumer: see `kafka.consumer_config`.
        topic: input topic.
        clock: stamps polls.
    """

    def __init__(self, consumer: Consumer, topic: str, clock: Clock) -> None:
        self.topic, self._clock = topic, clock
        self._consumer = consumer
        self._position: dict[int, int] = {}
        self._paused = False

    def subscribe(self, listener: Listener) -> None:
        """Join the group."""

        def relay(act: Callable[[list[int]], None]) -> Callable[[Any, list[TopicPartition]], None]:
            return lambda _consumer, partitions: act([tp.partition for tp in partitions])

        def assigned(partitions: list[int]) -> None:
            self._consumer.incremental_assign(self._at(dict.fromkeys(partitions, OFFSET_BEGINNING)))
            # Nothing is fetched before the windows are restored and the offset is known.
            self._consumer.pause(self._at(dict.fromkeys(partitions, 0)))
            listener.assigned(partitions)

        def given_up(act: Callable[[list[int]], None]) -> Callable[[list[int]], None]:
            def handle(partitions: list[int]) -> None:
                act(partitions)
                for partition in partitions:
                    self._position.pop(partition, None)
                self._consumer.incremental_unassign(self._at(dict.fromkeys(partitions, 0)))

            return handle

        self._consumer.subscribe(
            [self.topic],
            on_assign=relay(assigned),
            on_revoke=relay(given_up(listener.revoked)),
            on_lost=relay(given_up(listener.lost)),
        )

    def poll(self, rows: int, timeout_s: float, gather_s: float) -> Records | None:
        """At most `rows` records: what is there, or, after waiting up to `timeout_s` for a first one, what `gather_s` brings.

        Rebalance callbacks run in here. With `rows` 0 only they run (the consumer must be polled to stay in the group).
        """
        if rows <= 0:
            self._serve_callbacks()
            return None
        messages = self._consumer.consume(rows, 0)
        if not messages and timeout_s > 0:
            messages = self._consumer.consume(1, timeout_s)
            if messages and rows > 1 and gather_s > 0:
                messages += self._consumer.consume(rows - 1, gather_s)
        return self._records(messages) if messages else None

    def _serve_callbacks(self) -> None:
        """Poll without taking a record; polling is what keeps us in the group."""
        if not self._paused and self._position:
            return  # a short stall: a record would come, and there is no room
        for message in self._consumer.consume(1, 0):
            partition, offset = message.partition(), message.offset()
            if message.error() is None and partition is not None and offset is not None:
                self._consumer.seek(TopicPartition(self.topic, partition, offset))

    def _records(self, messages: list[Message]) -> Records | None:
        if any(map(Message.error, messages)):
            for message in messages:
                self._raise_if_serious(message.error())
            messages = [message for message in messages if message.error() is None]
        if not messages:
            return None
        n = len(messages)
        stamps = list(map(Message.timestamp, messages))
        records = Records(
            self.topic,
            np.fromiter(map(Message.partition, messages), np.int32, n),
            np.fromiter(map(Message.offset, messages), np.int64, n),
            np.fromiter(map(itemgetter(1), stamps), np.int64, n),
            stamps[0][0] == _TIMESTAMP_LOG_APPEND,
            list(map(Message.key, messages)),
            list(map(Message.value, messages)),
            self._clock.wall_us(),
        )
        return self._fresh(records)

    def _fresh(self, records: Records) -> Records | None:
        """Advance the position; drop what was fetched before a rewind or for a partition that is gone (usually nothing)."""
        stale = np.zeros(len(records), np.bool_)
        for partition, rows in partition_rows(records.partitions):
            position = self._position.get(partition)
            if position is None:
                stale[rows] = True
                continue
            if records.offsets[rows[0]] < position:
                stale[rows] = records.offsets[rows] < position
            self._position[partition] = max(position, int(records.offsets[rows[-1]]) + 1)
        if not stale.any():
            return records
        return records.only(np.flatnonzero(~stale)) if not stale.all() else None

    def _raise_if_serious(self, error: KafkaError | None) -> None:
        if error is None or error.retriable():
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - the name librdkafka's binding gives it
            raise LostOffsetsError(
                f"{self.topic}: {error.str()}. Retention removed records that were not processed. "
                "Start with on_lost_offsets = earliest (or latest) to go on from what is left"
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):  # noqa: SLF001
            raise TopicError(f"input topic {self.topic}: {error.str()}; create it with streamer topics create")
        if error.fatal() or error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise TopicError(f"input topic {self.topic}: {error.str()}")

    def committed(self, partitions: list[int]) -> dict[int, tuple[int | None, str | None]]:
        """Committed offset (None where there is none) and its metadata.

        Raises:
            KafkaException: the coordinator did not answer.
        """
        found = self._consumer.committed([TopicPartition(self.topic, p) for p in partitions], timeout=_NETWORK_TIMEOUT_S)
        for tp in found:
            if tp.error is not None:
                raise KafkaException(tp.error)
        return {tp.partition: (tp.offset if tp.offset >= 0 else None, tp.metadata) for tp in found}

    def lag(self) -> dict[int, int]:
        """Records between our position and the end of the log as last fetched, per partition."""
        behind = {}
        for partition, position in list(self._position.items()):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
            behind[partition] = max(0, high - position)
        return behind

    def hold(self, partitions: list[int]) -> None:
        """Stop reading these until `start`."""
        for partition in partitions:
            self._position.pop(partition, None)
        self._consumer.pause(self._at(dict.fromkeys(partitions, 0)))

    def start(self, partition: int, offset: int) -> None:
        """Read a partition from `offset`."""
        self._consumer.seek(TopicPartition(self.topic, partition, offset))
        self._position[partition] = offset
        if not self._paused:
            self._consumer.resume([TopicPartition(self.topic, partition)])

    def pause(self) -> None:
        """Stop fetching; the client throws its prefetch away, so do it rarely."""
        self._consumer.pause(self._at(self._position))
        self._paused = True

    def resume(self) -> None:
        """Fetch again."""
        self._paused = False
        self._consumer.resume(self._at(self._position))

    @property
    def paused(self) -> bool:
        """Whether fetching is stopped."""
        return self._paused

    def group_metadata(self) -> Any:
        """Member and generation as of now: a commit with an old one must fail."""
        return self._consumer.consumer_group_metadata()

    def commit(self, offsets: list[TopicPartition], *, wait: bool) -> None:
        """Commit outside a transaction (at-least-once)."""
        if wait:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        else:
            self._consumer.commit(offsets=offsets)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _at(self, offsets: dict[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
