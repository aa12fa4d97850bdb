"""A network that delivers a request twice: the copy that was sent first arrives in the next transaction of that producer.

The client never shows that it sent again. It waits a while before it does, that is all there is to see from outside.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, Message, TopicPartition

from streamer.clock import ManualClock
from streamer.kafka.memory_log import MemoryLog
from streamer.limits import RETRY_BACKOFF_S
from tests.kit.faulty import FaultTest, FaultyClients, FaultyProducer, Script

Report = Callable[[KafkaError | None, Message], None]
# The client takes up to a fifth off the wait it was told.
RESENT_AFTER_S = 0.8 * RETRY_BACKOFF_S


@dataclass(slots=True)
class LateScript(Script):
    """A script that may also delay one copy of a request.

    Attributes:
        delayed: call whose next request is sent twice.
        arrives: call of a later transaction before which its first copy reaches the broker.
        met: what became of the copy: "refused", or what it did.
        copy: the one that is on its way.
        transaction: number of the transaction.
    """

    delayed: str | None = None
    arrives: str = ""
    met: list[str] = field(default_factory=list)
    copy: "Copy | None" = None
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class Copy:
    """A request on its way, as the broker will read it."""

    what: str
    transaction: int
    epoch: int
    offsets: tuple[tuple[str, list[TopicPartition]], ...]


class LateProducer(FaultyProducer):
    """A producer over such a network."""

    def __init__(self, log: MemoryLog, config: dict[str, Any], script: Script) -> None:
        super().__init__(log, config, script)
        assert isinstance(script, LateScript)
        self._late, self._cut = script, False

    def _do(self, call: str, act: Callable[[], None], *, enqueues: bool = False) -> None:
        self._meet(call)
        super()._do(call, act, enqueues=enqueues)
        if self._late.delayed == call:
            self._late.delayed = None
            self._late.copy = Copy(call, self._late.transaction, self._epoch, tuple(self._offsets[-1:]))
            assert isinstance(self._log._clock, ManualClock)
            self._log._clock.advance(RESENT_AFTER_S)

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], on_delivery: Report | None = None) -> int:
        self._meet("produce_batch")
        return super().produce_batch(topic, messages, on_delivery)

    def begin_transaction(self) -> None:
        super().begin_transaction()
        self._late.transaction += 1
        self._cut = False

    def commit_transaction(self) -> None:
        if not self._cut:
            return super().commit_transaction()

        def end() -> None:
            for group, offsets in self._offsets:
                self._log.commit(group, offsets)
            self._end("aborted")  # what was produced since belongs to no transaction

        self._do("commit", end)
        self._in_transaction = False
        return None

    def _meet(self, call: str) -> None:
        """Let the copy arrive, as the broker takes it."""
        copy = self._late.copy
        if copy is None or call != self._late.arrives or not self._in_transaction or copy.transaction == self._late.transaction:
            return
        self._late.copy = None
        if copy.epoch != self._log.epochs[self._id or ""]:
            self._late.met.append("refused")
            return
        self._late.met.append(copy.what)
        if copy.what == "offsets":
            self._offsets += copy.offsets
            return
        for group, offsets in self._offsets if copy.what == "commit" else ():
            self._log.commit(group, offsets)
        self._offsets, self._cut = [], True
        self._end("committed" if copy.what == "commit" else "aborted")
        self._log.open[self._id or ""] = []


class LateClients(FaultyClients):
    """Clients over such a network."""

    make_producer = LateProducer


class LateTest(FaultTest):
    """A topology over such a network."""

    make_clients = LateClients
    script: LateScript

    def delay(self, call: str, arrives: str) -> None:
        """Send the next request of `call` twice; its first copy arrives before the call `arrives` of a later transaction."""
        self.script.delayed, self.script.arrives = call, arrives
