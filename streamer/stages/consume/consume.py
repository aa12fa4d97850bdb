"""consume: owns the group's consumer. Polls no more rows than asked for, and tells the worker of rebalances.

A flow with several inputs subscribes to the first, the lead. Partitions of the others are assigned by hand beside it, the
same numbers, since no assignor of the group promises that: cooperative-sticky does not, nor does KIP-848's `uniform`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Protocol

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamer.clock import Clock
from streamer.errors import FencedError, TopicError
from streamer.rows.partitions import partition_rows
from streamer.rows.records import Records, TopicAndPartition
from streamer.stages.commit.transaction import TransactionError
from streamer.stages.consume.columns import columns_of
from streamer.stages.consume.rejoin import SILENT_S, Rejoin
from streamer.telemetry.logs import get_logger

_log = get_logger(__name__)

# Nothing else moves meanwhile; a coordinator that is away is asked again.
_COMMITTED_TIMEOUT_S = 5.0
# The binding hands on the code that says "fatal" and forgets the flag.
_HOPELESS = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
_ELSEWHERE = (
    KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
)  # fmt: skip


class Listener(Protocol):
    """What the worker does when partitions come and go; called from inside `poll`."""

    def assigned(self, partitions: list[int]) -> None:
        """These are ours now; nothing is read from them until `Consume.start`."""

    def revoked(self, partitions: list[int]) -> None:
        """These go to somebody else: finish, commit, forget."""

    def lost(self, partitions: list[int]) -> None:
        """These are somebody else's already: forget, commit nothing."""


class Consume:
    """The consumer of one topic, or of several with equal partitions.

    Args:
        make: makes a consumer, see `kafka.consumer_config`.
        topics: input topics, the lead first.
        clock: stamps polls.
        between_polls_s: how much of the time between two polls counts as silence of an input.
    """

    def __init__(self, make: Callable[[], Consumer], topics: Sequence[str], clock: Clock, between_polls_s: float) -> None:
        self.topics, self._clock, self._between_polls_s = tuple(topics), clock, between_polls_s
        self._listened = clock.monotonic()
        self._make, self._consumer = make, make()
        self._rejoin = Rejoin(clock=clock)
        self._listener: Listener | None = None
        self._owned: set[int] = set()
        self._position: dict[TopicAndPartition, int] = {}
        self._sought: dict[TopicAndPartition, int] = {}
        self._ended: dict[TopicAndPartition, float] = {}
        self._waiting: set[TopicAndPartition] = set()
        self._paused = False

    @property
    def lead(self) -> str:
        """The topic that the group spreads over its members."""
        return self.topics[0]

    def subscribe(self, listener: Listener) -> None:
        """Join the group."""
        self._listener, consumer = listener, self._consumer

        def relay(act: Callable[[list[int]], None]) -> Callable[[Any, list[TopicPartition]], None]:
            def tell(_: Any, partitions: list[TopicPartition]) -> None:
                if consumer is self._consumer:  # one that has ended tells nothing more
                    act([tp.partition for tp in partitions if tp.topic == self.lead])

            return tell

        def assigned(partitions: list[int]) -> None:
            self._rejoin.joined()
            self._owned |= set(partitions)
            self._consumer.incremental_assign(self._at(self._places(partitions), OFFSET_BEGINNING))
            # Nothing is fetched before the windows are restored and the offset is known.
            self._consumer.pause(self._at(self._places(partitions)))
            listener.assigned(partitions)

        def given_up(act: Callable[[list[int]], None]) -> Callable[[list[int]], None]:
            def handle(partitions: list[int]) -> None:
                act(partitions)
                self._owned -= set(partitions)
                self._forget(partitions)
                self._consumer.incremental_unassign(self._at(self._places(partitions)))

            return handle

        def lost(partitions: list[int]) -> None:
            self._rejoin.lost()
            listener.lost(partitions)

        self._consumer.subscribe(
            [self.lead],
            on_assign=relay(assigned),
            on_revoke=relay(given_up(listener.revoked)),
            on_lost=relay(given_up(lost)),
        )

    def poll(self, rows: int, timeout_s: float, gather_s: float) -> list[Records]:
        """At most `rows` records: what is there, or, after waiting up to `timeout_s` for a first one, what `gather_s` brings.

        One entry for each topic with records, in the order of the topics.

        Rebalance callbacks run in here. With `rows` 0 only they run (the consumer must be polled to stay in the group).
        """
        self._discount_deafness()
        if self._rejoin.due() and self._listener is not None:
            self.subscribe(self._listener)
        if self._rejoin.silent:
            self._renew(f"the group took our partitions away and has said nothing for {SILENT_S:g} s")
        try:
            return self._poll(rows, timeout_s, gather_s)
        except KafkaException as failure:
            if not (failure.args[0].fatal() or failure.args[0].code() == KafkaError._FATAL):  # noqa: SLF001
                raise
            self._renew(failure.args[0].str())
            return []
        finally:
            self._listened = self._clock.monotonic()

    def _poll(self, rows: int, timeout_s: float, gather_s: float) -> list[Records]:
        if rows <= 0:
            self._serve_callbacks(timeout_s)
            return []
        messages = self._consumer.consume(rows, 0)
        if not messages and timeout_s > 0:
            messages = self._consumer.consume(1, timeout_s)
            if messages and rows > 1 and gather_s > 0:
                messages += self._consumer.consume(rows - 1, gather_s)
        return self._records(messages) if messages else []

    def left(self) -> str | None:
        """Why we are not in the group at the moment; None when we are, or were never."""
        return None if (reason := self._rejoin.outside) is None else f"joining the group again after: {reason}"

    def _renew(self, why: str) -> None:
        """This consumer is past use. Another one may be let in, as a new member: all that was ours is lost."""
        _log.warning("consumer_ended", topic=self.lead, error=why)
        self._rejoin.ended(why)
        ended, self._consumer = self._consumer, self._make()
        # Beside the worker, which its group and its health wait for: one that has lost its way may not end either.
        Thread(target=_close, args=(ended,), name="streamer-close", daemon=True).start()
        owned, self._owned = sorted(self._owned), set()
        if self._listener is not None:
            self._listener.lost(owned)
        self._position, self._sought, self._ended, self._waiting, self._paused = {}, {}, {}, set(), False

    def _discount_deafness(self) -> None:
        """Time in which nobody polled for long (a stopped process, a paused machine) is no silence of the inputs."""
        deaf = self._clock.monotonic() - self._listened - self._between_polls_s
        if deaf > 0:
            self._ended = {place: since + deaf for place, since in self._ended.items()}

    def _serve_callbacks(self, timeout_s: float) -> None:
        """Poll without taking a record; polling is what keeps us in the group."""
        if not self._paused and self._position:
            return  # a short stall: a record would come, and there is no room
        for message in self._consumer.consume(1, timeout_s):
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if message.error() is not None:
                self._is_end(message)
            elif topic is not None and partition is not None and offset is not None and (topic, partition) in self._position:
                # A callback may have given the partition away in the same call; where it is held, it will be sought anyway.
                self._consumer.seek(TopicPartition(topic, partition, offset))

    def _records(self, messages: list[Message]) -> list[Records]:
        ended: list[Message] = []
        if any(map(Message.error, messages)):
            ended = [message for message in messages if self._is_end(message)]
            messages = [message for message in messages if message.error() is None]
        if len(self.topics) == 1:
            found = [columns_of(self.lead, messages, self._clock.wall_us())] if messages else []
        else:
            apart: dict[str | None, list[Message]] = defaultdict(list)
            for message in messages:
                apart[message.topic()].append(message)
            found = [columns_of(topic, apart[topic], self._clock.wall_us()) for topic in self.topics if topic in apart]
        fresh = [records for every in found if (records := self._fresh(every)) is not None]
        self._note_ends(ended)
        return fresh

    def _fresh(self, records: Records) -> Records | None:
        """Advance the position; drop what was fetched before a rewind or for a partition that is gone (usually nothing)."""
        stale = np.zeros(len(records), np.bool_)
        for partition, rows in partition_rows(records.partitions):
            place = records.topic, partition
            position = self._position.get(place)
            if position is None:
                stale[rows] = True
                continue
            if records.offsets[rows[0]] < position:
                stale[rows] = records.offsets[rows] < position
            self._position[place] = max(position, int(records.offsets[rows[-1]]) + 1)
            self._ended.pop(place, None)
        if not stale.any():
            return records
        return records.take(np.flatnonzero(~stale)) if not stale.all() else None

    def _note_ends(self, ended: list[Message]) -> None:
        """Remember who has nothing more to read; only asked for by flows with several inputs."""
        now = self._clock.monotonic()
        for message in ended:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if topic is None or partition is None or offset is None:
                continue
            # An end that was met before a rewind is not the end.
            if (topic, partition) in self._position and offset >= self._position[topic, partition]:
                self._ended[topic, partition] = now

    def reading(self) -> list[int]:
        """Partitions that were started."""
        return sorted(partition for topic, partition in self._position if topic == self.lead)

    def silence_s(self, partition: int) -> list[float | None]:
        """Per input how long it has been at its end without a record; None while it may have records that we did not read."""
        now, places = self._clock.monotonic(), self._places([partition])
        if self._paused:
            return [None] * len(places)
        return [None if (since := self._ended.get(place)) is None else now - since for place in places]

    def _is_end(self, message: Message) -> bool:
        error = message.error()
        if error is None or error.retriable():
            return False
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the name librdkafka's binding gives it
            return True
        topic = message.topic() or self.lead
        if error.code() in _ELSEWHERE:
            # Retention went by, the log is shorter than it was, or the topic is another one: where to go on must be asked anew.
            raise TransactionError("input", f"{topic}: {error.str()}", replace=False)
        if error.code() == KafkaError._FATAL and "instance" in error.str().lower():  # noqa: SLF001
            raise FencedError(
                f"{error.str()}. Does another replica run with our group.instance.id? Give each its own. If this one crashed "
                "a moment ago, the group keeps its name until the session time-out is over: start it again then"
            )
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            raise KafkaException(error)
        if error.code() in _HOPELESS:
            raise TopicError(f"input topic {topic}: {error.str()}")
        return False

    def committed(self, partitions: list[int]) -> dict[TopicAndPartition, tuple[int | None, str | None]]:
        """Committed offset (None where there is none) and its metadata, for each topic and partition.

        Raises:
            KafkaException: the coordinator did not answer.
        """
        asked = [TopicPartition(*place) for place in self._places(partitions)]
        found = self._consumer.committed(asked, timeout=_COMMITTED_TIMEOUT_S)
        for tp in found:
            if tp.error is not None:
                raise KafkaException(tp.error)
        return {(tp.topic, tp.partition): (tp.offset if tp.offset >= 0 else None, tp.metadata) for tp in found}

    @property
    def read(self) -> dict[TopicAndPartition, int]:
        """Topic and partition -> offset after the last record that was read."""
        return dict(self._position)

    def reached(self) -> dict[TopicAndPartition, int]:
        """Topic and partition -> offset where the client stands: behind the last record, and behind what holds none.

        After a seek it stands nowhere until something came.
        """
        found = self._consumer.position(self._at(self._position)) if self._position else []
        return {(tp.topic, tp.partition): max(tp.offset, self._position[tp.topic, tp.partition]) for tp in found}

    def lag(self) -> dict[TopicAndPartition, int]:
        """Offsets between where the client stands and the end of the log as last fetched, per topic and partition."""
        behind = {}
        for place, position in self.reached().items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            behind[place] = max(0, high - position)
        return behind

    def hold(self, partitions: list[int]) -> None:
        """Stop reading these until `start`."""
        self._forget(partitions)
        self._consumer.pause(self._at(self._places(partitions)))

    def seek(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Go on in a partition of each topic at its offset, when it is started."""
        for topic, offset in offsets.items():
            self._consumer.seek(TopicPartition(topic, partition, offset))
            self._sought[topic, partition] = offset

    def start(self, partitions: list[int]) -> None:
        """Read these, all at once: what misses the first request to a broker waits until that is answered."""
        places = self._places(partitions)
        if places and not self._paused:
            self._consumer.resume(self._at(places))
            # The client's thread for a broker may sleep for up to a second in spite of that; it wakes from being told once more.
            for topic, partition in places:
                with suppress(KafkaException):
                    self._consumer.seek(TopicPartition(topic, partition, self._sought[topic, partition]))
        # Only now: where that raises, nobody may take them for partitions that are read.
        self._position |= {place: self._sought.pop(place) for place in places}

    def pause(self) -> None:
        """Stop fetching; the client throws its prefetch away, so do it rarely."""
        self._consumer.pause(self._at(self._position))
        self._ended.clear()
        self._paused = True

    def resume(self) -> None:
        """Fetch again."""
        self._paused = False
        self._consumer.resume(self._at(place for place in self._position if place not in self._waiting))

    def wait_for_others(self, partition: int, topics: Iterable[str]) -> int:
        """Let these inputs of a partition wait, and no others, until the rest has caught up; returns how many wait."""
        asked = {(topic, partition) for topic in topics}
        waiting = {place for place in self._waiting if place[1] == partition}
        if asked != waiting:
            for place in asked:
                self._ended.pop(place, None)
            self._waiting = self._waiting - waiting | asked
            if not self._paused:
                self._consumer.pause(self._at(asked - waiting))
                self._consumer.resume(self._at(place for place in waiting - asked if place in self._position))
        return len(asked)

    @property
    def paused(self) -> bool:
        """Whether fetching is stopped."""
        return self._paused

    def group_metadata(self) -> Any:
        """Member and generation as of now: a commit with an old one must fail."""
        return self._consumer.consumer_group_metadata()

    def commit(self, offsets: list[TopicPartition], *, wait: bool) -> bool:
        """Commit outside a transaction (at-least-once); whether it is certain, which takes waiting."""
        if not wait:
            self._consumer.commit(offsets=offsets)
            return False
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # The state is what the changelog says; the next owner goes on where its blocks end.
            _log.warning("offsets_not_committed", topics=self.topics, error=str(error))
            return False
        return True

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _places(self, partitions: Iterable[int]) -> list[TopicAndPartition]:
        return [(topic, partition) for partition in partitions for topic in self.topics]

    def _forget(self, partitions: Iterable[int]) -> None:
        for place in self._places(partitions):
            self._position.pop(place, None)
            self._sought.pop(place, None)
            self._ended.pop(place, None)
            self._waiting.discard(place)

    @staticmethod
    def _at(places: Iterable[TopicAndPartition], offset: int = 0) -> list[TopicPartition]:
        return [TopicPartition(topic, partition, offset) for topic, partition in places]


def _close(consumer: Consumer) -> None:
    with suppress(KafkaException, RuntimeError):
        consumer.close()
