"""What the driver asks the broker: topics made, lag, open transactions, members of the group."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from confluent_kafka import ConsumerGroupState, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from tests.faults.log import committed_offsets, records_from
from tests.faults.names import PARTITIONS, Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tests.faults.log import Position

WAIT_S = 15.0
FEW = 10
Answer = TypeVar("Answer")


class TimedOutError(Exception):
    """Something the driver waits for did not happen in time."""


class Cluster:
    """The broker as one run sees it."""

    def __init__(self, bootstrap: str, names: Names) -> None:
        self.names = names
        self._bootstrap = bootstrap
        self._admin = self._connect()

    def _connect(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 2})

    @contextmanager
    def away(self) -> Iterator[None]:
        """Hold no admin client while the broker dies: one that lives through it may abort, or hang when it ends."""
        del self._admin
        try:
            yield
        finally:
            self._admin = self._connect()

    def create_topics(self) -> None:
        """Input, outputs and changelog, as `streamer topics create` would make them."""
        names = self.names
        stamped = {"message.timestamp.type": "LogAppendTime"}
        topics = [] if names.source else [NewTopic(topic, PARTITIONS, 1, config=stamped) for topic in names.inputs]
        topics += [NewTopic(topic, PARTITIONS, 1) for topic in (*names.outputs, *self._between())]
        topics += [NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"}) for topic in names.changelogs]
        for made in self._admin.create_topics(topics, operation_timeout=WAIT_S).values():
            made.result(WAIT_S)

    def delete_topics(self) -> None:
        names = self.names
        own = [] if names.source else names.inputs
        for gone in self._admin.delete_topics([*own, *names.outputs, *self._between(), *names.changelogs]).values():
            gone.result(WAIT_S)

    def _between(self) -> tuple[str, ...]:
        return (self.names.forwarded,) if self.names.flow == "rekeyed" else ()

    def ends(self, topics: Iterable[str], isolation: IsolationLevel) -> dict[Position, int]:
        """End offset of every partition: the high watermark, or the last stable offset if read_committed."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(t, p): latest for t in topics for p in range(PARTITIONS)}

        def ask() -> dict[Position, int]:
            answers = self._admin.list_offsets(wanted, isolation_level=isolation)
            try:
                return {(p.topic, p.partition): f.result(WAIT_S).offset for p, f in answers.items()}
            except KafkaException as error:
                if error.args[0].code() == KafkaError.FENCED_LEADER_EPOCH:
                    # The client goes on asking with the epoch that a broker told it while it was still starting.
                    self._admin = self._connect()
                raise

        return _patiently(ask)

    def open_transactions(self, topics: Sequence[str] = ()) -> dict[Position, int]:
        """Last stable offset of the partitions (default: of outputs) on which a transaction is open right now."""
        topics = topics or self.names.outputs
        stable = self.ends(topics, IsolationLevel.READ_COMMITTED)
        high = self.ends(topics, IsolationLevel.READ_UNCOMMITTED)
        return {where: offset for where, offset in stable.items() if high[where] > offset}

    def committed(self) -> dict[Position, int]:
        return _patiently(lambda: committed_offsets(self._bootstrap, self.names))

    def lags(self) -> dict[Position, int]:
        """Per input partition, offsets between the group's commit and the committed end; none where zero."""
        read = [topic for topics in self.names.readers.values() for topic in topics]
        ends = self.ends(read, IsolationLevel.READ_COMMITTED)
        committed = self.committed()
        behind = {where: end - committed.get(where, 0) for where, end in ends.items()}
        behind = {where: lag for where, lag in behind.items() if lag > 0}
        # The internal topic of a re-keyed flow always ends with a marker, which nobody can commit.
        internal = [where for where, lag in behind.items() if where[0] == self.names.forwarded and lag < FEW]
        ending = {where: committed.get(where, 0) for where in internal}
        left = records_from(self._bootstrap, ending) if ending else {}
        return {where: lag for where, lag in behind.items() if where not in ending or left[where]}

    def lag(self) -> int:
        """Offsets between the group's commits and the committed end of the input, all partitions together."""
        return sum(self.lags().values())

    def members(self) -> int:
        """Members of the group if it is stable and every partition is assigned, else -1."""
        answer = self._admin.describe_consumer_groups([self.names.group])[self.names.group].result(WAIT_S)
        assigned = sum(len(m.assignment.topic_partitions) for m in answer.members if m.assignment)
        stable = answer.state == ConsumerGroupState.STABLE and assigned == PARTITIONS
        return len(answer.members) if stable else -1

    def session_ms_min(self) -> int:
        """The shortest session time-out the broker lets a group member have."""
        broker = ConfigResource(ResourceType.BROKER, str(next(iter(self._admin.list_topics(timeout=WAIT_S).brokers))))
        settings = self._admin.describe_configs([broker])[broker].result(WAIT_S)
        return int(settings["group.min.session.timeout.ms"].value)

    def topic_setting(self, topic: str, name: str) -> str:
        """A setting of a topic, its own or the broker's."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return str(self._admin.describe_configs([resource])[resource].result(WAIT_S)[name].value)

    def settled(self) -> bool:
        """Nothing left to read and no transaction open."""
        return self.lag() == 0 and not self.open_transactions()

    def state(self) -> str:
        """What is not settled, in one line."""
        try:
            opened = [f"{topic}/{partition}" for topic, partition in self.open_transactions()]
            return f"lag by partition {self.lags()}, open transactions on {opened}, {self.members()} members"
        except (KafkaException, TimeoutError) as error:
            return f"the broker does not tell what is not settled: {error}"


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask again for a while: a broker that has just started may refuse, or know less than its clients."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return ask()
        except (KafkaException, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (KafkaException, TimeoutError):
        return False


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float, every_s: float = 0.3) -> float:
    """Wait until the condition holds; a broker that does not answer counts as "not yet".

    Returns:
        The seconds waited.

    Raises:
        TimedOutError: it did not hold in time.
    """
    start = time.monotonic()
    while not _holds(condition):
        if time.monotonic() - start > timeout_s:
            raise TimedOutError(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(every_s)
    return time.monotonic() - start
