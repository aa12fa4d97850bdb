"""Clients of the in-memory log that fail at a scripted call, with librdkafka's states: after an error only an abort helps."""

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import EarliestSpec, ListOffsetsResultInfo, OffsetSpec
from confluent_kafka.admin._metadata import ClusterMetadata

from streamer.inference.model import Features
from streamer.kafka.memory_admin import MemoryAdmin
from streamer.kafka.memory_clients import MemoryConsumer, MemoryProducer, Report
from streamer.kafka.memory_log import MemoryLog
from streamer.operators.infer.stage import Infer
from streamer.operators.operator import Run
from streamer.planning.assemble import Flow
from streamer.rows.batch import Batch
from streamer.stages.commit.committing import Ending, Job
from streamer.stages.commit.transaction import Committed
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker
from tests.kit.inside import InsideTest

ABORTABLE, FATAL, UNAUTHORIZED = "abortable", "fatal", "unauthorized"


def kafka_error(kind: str) -> KafkaException:
    """The exception that the binding raises for an error of this kind."""
    errors = {
        "unauthorized": KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "scripted", txn_requires_abort=True),
        "abortable": KafkaError(KafkaError._ALL_BROKERS_DOWN, "scripted", txn_requires_abort=True),
        "retriable": KafkaError(KafkaError._TIMED_OUT, "scripted", retriable=True),
        "lost_answer": KafkaError(KafkaError._TIMED_OUT, "scripted", retriable=True),
        "fatal": KafkaError(KafkaError._FATAL, "scripted", fatal=True),
        "fenced": KafkaError(KafkaError._FENCED, "scripted", fatal=True),
        "gone": KafkaError(KafkaError._FATAL, "Fatal error: Broker: The group id does not exist"),
        "plain": KafkaError(KafkaError._TRANSPORT, "scripted"),
        "epoch": KafkaError(KafkaError.FENCED_LEADER_EPOCH, "Leader epoch is older than broker epoch"),
        "stale": KafkaError(KafkaError.ILLEGAL_GENERATION, "not a member any more", txn_requires_abort=True),
        "concurrent": KafkaError(KafkaError.CONCURRENT_TRANSACTIONS, "another operation is under way"),
        "state": KafkaError(KafkaError._STATE, "not valid in this state"),
    }
    return KafkaException(errors[kind])


@dataclass(slots=True)
class Script:
    """Faults by call: `(call, number) -> kind`; the n-th call of that name fails, once.

    Attributes:
        faults: what fails when.
        hits: faults that were reached.
        calls: how often each was called.
        removed: topic -> records at its start that retention removed, in every partition.
        leaderless: partitions of which no end is known; asked together with others, these are not answered for either.
        restarted: brokers have; until it asks for their metadata, a client asks with the epochs it knew.
    """

    faults: dict[tuple[str, int], str] = field(default_factory=dict)
    hits: list[tuple[str, int, str]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    removed: dict[str, int] = field(default_factory=dict)
    leaderless: set[int] = field(default_factory=set)
    restarted: bool = False

    def fail_next(self, call: str, kind: str, times: int = 1) -> None:
        """Let the next call fail, or the next few."""
        for n in range(times):
            self.faults[call, self.calls[call] + 1 + n] = kind

    def take(self, call: str) -> str | None:
        """Count a call; how it should fail, or None."""
        self.calls[call] += 1
        kind = self.faults.pop((call, self.calls[call]), None)
        if kind:
            self.hits.append((call, self.calls[call], kind))
        return kind


class Membership(str):
    """A group's name, and whether its coordinator still knows the member that asked for it."""

    __slots__ = ("known",)

    def __init__(self, _group: str) -> None:
        self.known = True


class FaultyProducer(MemoryProducer):
    """A producer that a script breaks; once broken it insists on the way out, as librdkafka does."""

    def __init__(self, log: MemoryLog, config: dict[str, Any], script: Script) -> None:
        super().__init__(log, config)
        self._script, self.broken, self._in_transaction, self.reports = script, "", False, False

    def init_transactions(self, timeout: float = 0) -> None:
        self._do("init", lambda: super(FaultyProducer, self).init_transactions(timeout))

    def begin_transaction(self) -> None:
        if self._in_transaction and not self.broken:
            raise kafka_error("state")
        self._do("begin", super().begin_transaction)
        self._in_transaction = True

    def produce(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, partition: int = -1,
        headers: list[tuple[str, Any]] | None = None, on_delivery: Report | None = None,
    ) -> None:  # fmt: skip
        call = "produce_changelog" if topic.endswith("changelog") else "produce"
        produce = super().produce
        self._do(call, lambda: produce(topic, value, key, partition, headers, on_delivery), enqueues=True)

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], on_delivery: Report | None = None) -> int:
        accepted, self.reports = len(messages), on_delivery is not None
        kind = self._script.take("produce_batch")
        if kind == "full":
            accepted //= 2
        elif self.broken:
            raise kafka_error(FATAL if self.broken == FATAL else "state")
        elif kind == UNAUTHORIZED:  # the client learns of it when the broker answers, and says so to nobody who only produces
            self.broken = kind
        for message in messages[:accepted]:
            place = message["value"], message["key"], message.get("partition", -1)
            MemoryProducer.produce(self, topic, *place, on_delivery=on_delivery)
        for message in messages[accepted:]:
            message["_error"] = KafkaError(KafkaError._QUEUE_FULL)
        return accepted

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], metadata: str, timeout: float = -1) -> None:
        assert timeout > 0, "a client that has lost its coordinator may wait for ever"
        if isinstance(metadata, Membership) and not metadata.known:
            self.broken = ABORTABLE
            raise kafka_error("stale")
        self._do("offsets", lambda: super(FaultyProducer, self).send_offsets_to_transaction(offsets, metadata))

    def commit_transaction(self) -> None:
        self._do("commit", super().commit_transaction)
        self._in_transaction = False

    def abort_transaction(self, timeout: float = 0) -> None:
        if self.broken in {ABORTABLE, UNAUTHORIZED}:
            self.broken = ""
        self._do("abort", lambda: super(FaultyProducer, self).abort_transaction(timeout))
        self._in_transaction = False

    def flush(self, timeout: float = 0) -> int:
        return 3 if self._script.take("flush") else super().flush(timeout)

    def _do(self, call: str, act: Callable[[], None], *, enqueues: bool = False) -> None:
        """Carry out a call, unless the script or the state of the producer says otherwise."""
        kind = self._script.take(call)
        if kind == ABORTABLE and self._id is None:
            kind = "retriable"  # without transactions there is nothing to abort
        if self.broken:
            raise kafka_error("state" if enqueues and self.broken != FATAL else self.broken)
        if kind == "full" and enqueues:
            raise BufferError("Local: Queue full")
        if kind == "lost_answer":
            act()  # it happened, and nobody heard of it
        if kind in {ABORTABLE, FATAL}:
            self.broken = kind
        if kind == "fenced" and self._id is not None:
            self._log.epochs[self._id] += 1
        if kind and kind != "full":
            raise kafka_error("plain" if enqueues and kind in {"retriable", "lost_answer"} else kind)
        act()


class FaultyConsumer(MemoryConsumer):
    """A consumer whose requests fail when the script says so, and whose group moves partitions when a test says so."""

    def __init__(self, log: MemoryLog, config: dict[str, Any], script: Script) -> None:
        super().__init__(log, config)
        self._script = script
        self.moves: list[tuple[str, list[int]]] = []
        self.fetches_first = False
        self._membership = Membership(self._group)

    @property
    def reading(self) -> set[int]:
        """Partitions that are fetched from."""
        return {partition for topic, partition in self._position if (topic, partition) not in self._paused}

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        """Run the rebalance callbacks that are due, then read; or the other way about, as librdkafka may within one call."""
        kind = self._script.take("consume") if self._topics else None
        if kind == "raised":
            raise kafka_error("gone")
        if kind == "told":
            return [Message(error=kafka_error("gone").args[0])]
        if not self._topics or not self.moves:
            return super().consume(num_messages, timeout)
        fetched = super().consume(num_messages, timeout) if self.fetches_first else []
        while self.moves:
            handler, partitions = self.moves.pop(0)
            self._rebalance = None  # not everything at once any more
            if handler == "on_lost":
                self._membership.known, self._membership = False, Membership(self._group)
            self._handlers[handler](self, [TopicPartition(self._topics[0], partition) for partition in partitions])
        return fetched or super().consume(num_messages, timeout)

    def consumer_group_metadata(self) -> str:
        return self._membership

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._may_fail("committed")
        return super().committed(partitions, timeout)

    def seek(self, partition: TopicPartition) -> None:
        self._may_fail("seek")
        super().seek(partition)

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._may_fail("resume")
        super().resume(partitions)

    def _may_fail(self, call: str) -> None:
        if kind := self._script.take(call):
            raise kafka_error(kind)


class FaultyAdmin(MemoryAdmin):
    """An admin client that does not answer when the script says so, or not about some partitions."""

    def __init__(self, log: MemoryLog, script: Script) -> None:
        super().__init__(log)
        self._script = script

    def list_offsets(
        self, asked: dict[TopicPartition, OffsetSpec], request_timeout: float = 0
    ) -> "dict[TopicPartition, Future[ListOffsetsResultInfo]]":  # fmt: skip
        answers = super().list_offsets(asked, request_timeout)
        failed = self._script.take("list_offsets") or any(tp.partition in self._script.leaderless for tp in asked)
        for tp in answers if failed or self._script.restarted else ():
            answers[tp] = Future()
            answers[tp].set_exception(kafka_error("plain" if failed else "epoch"))
        return answers

    def list_topics(self, timeout: float = 0) -> ClusterMetadata:
        self._script.restarted = False
        return super().list_topics(timeout)

    def _end(self, tp: TopicPartition, spec: OffsetSpec) -> int:
        removed = self._script.removed.get(tp.topic, 0) if isinstance(spec, EarliestSpec) else 0
        return max(super()._end(tp, spec), min(removed, self._log.end(tp.topic, tp.partition)))


class FaultyClients:
    """Makes clients of one log under one script, and remembers the newest."""

    make_producer: Callable[[MemoryLog, dict[str, Any], Script], FaultyProducer] = FaultyProducer

    rest_after_commit_s = 0.0
    silence_between_polls_s = math.inf  # the test moves the clock in one step ...
    commit_stuck_s = math.inf  # ... also while a commit is under way, whose thread works in real time

    def __init__(self, log: MemoryLog, script: Script) -> None:
        self._log, self._script = log, script
        self.producers: list[FaultyProducer] = []
        self.consumers: list[FaultyConsumer] = []

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A consumer."""
        self.consumers.append(FaultyConsumer(self._log, config, self._script))
        return cast("Consumer", self.consumers[-1])

    def producer(self, config: dict[str, Any]) -> Producer:
        """A producer."""
        self.producers.append(type(self).make_producer(self._log, config, self._script))
        return cast("Producer", self.producers[-1])

    def admin(self, _config: dict[str, Any]) -> AdminClient:
        """An admin client."""
        return cast("AdminClient", FaultyAdmin(self._log, self._script))


class FaultTest(InsideTest):
    """A topology over faulty clients. A commit and a run of the model end before their call returns, so that a test repeats."""

    make_clients: Callable[[MemoryLog, Script], FaultyClients] = FaultyClients

    def __init__(self, *args: Any, script: Script | None = None, **kwargs: Any) -> None:
        self.script = script or Script()
        self.scores_held = self.commits_held = False
        self.clients_of: dict[str, FaultyClients] = {}
        super().__init__(*args, **kwargs)

    def _new_worker(self, flow: Flow) -> Worker:
        self.clients = self.clients_of[flow.group] = type(self).make_clients(self.log, self.script)
        worker = Worker(parts_of(flow, self._settings, clients=self.clients, clock=self.clock))
        wait_for_each_score(worker)
        self._hold_scores(worker)
        self._hold_commits(worker)
        worker.start()
        return worker

    @property
    def group_consumer(self) -> FaultyConsumer:
        """The one that reads the source topic."""
        return self.clients.consumers[0]

    def move(self, handler: str, partitions: list[int], group: str | None = None) -> None:
        """Let the group (by default that of the last flow) assign, revoke or lose partitions at the next poll."""
        clients = self.clients_of[group] if group else self.clients
        clients.consumers[0].moves.append((handler, partitions))

    def _hold_scores(self, worker: Worker) -> None:
        """While `scores_held`, the model seems to run on and on."""
        collect = worker.pipeline.infer.collect

        def hold(timeout_s: float) -> Batch | None:
            if self.scores_held:
                self.clock.advance(timeout_s)
                return None
            return collect(timeout_s)

        worker.pipeline.infer.collect = hold  # type: ignore[method-assign]  # so that nothing is done

    def _hold_commits(self, worker: Worker) -> None:
        """While `commits_held`, a commit seems to hang; otherwise it has ended when `start` returns."""
        commit, held = worker._commit, list[tuple[Job, Ending]]()
        reap, submit = commit.reap, commit._committing.submit
        self.held_commits = held

        def hold(job: Job) -> Ending:
            if self.commits_held:
                held.append((job, Ending()))
                return held[-1][1]
            ending = submit(job)
            assert ending.finished.wait(10.0), "the commit hangs"
            return ending

        def look(timeout_s: float) -> Committed | None:
            if commit._running is not None and not commit._running.ending.finished.is_set():
                self.clock.advance(timeout_s)
                timeout_s = 0.0
            return reap(timeout_s)

        commit._committing.submit, commit.reap = hold, look  # type: ignore[method-assign]  # so that it waits

    def release(self) -> None:
        """Let the model and a held commit end."""
        self.scores_held = self.commits_held = False
        for job, ending in self.held_commits:
            self.worker._commit._committing._jobs.put((job, ending))
            assert ending.finished.wait(10.0), "the commit hangs"
        self.held_commits.clear()

    def turns(self, number: int) -> None:
        """Turn so often, a little time between."""
        for _ in range(number):
            self.worker.turn()
            self.clock.advance(0.005)

    def settle(self, *, fail: bool = False) -> None:
        """Run until every record is through and every partition restored; what did not fail yet will not, unless told."""
        if not fail:
            self.script.faults.clear()
        self.run()
        for _ in range(100):
            if self.worker.ready() is None:
                return
            self.turns(1)
        raise AssertionError(f"not ready: {self.worker.ready()}")


def wait_for_each_score(worker: Worker) -> None:
    """Make `submit` return when the batch is scored; it is collected later, as ever."""
    if not isinstance(worker.pipeline.infer, Infer):
        return
    engine = worker.pipeline.infer._engine
    submit = engine.submit

    def submit_and_wait(features: Features, rows: int) -> Run:
        task = submit(features, rows)
        assert task.wait(10.0), "the model hangs"
        return task

    engine.submit = submit_and_wait  # type: ignore[method-assign]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts, and an end for a worker that hangs."""
    monkeypatch.setattr("streamer.worker.worker._MEND_PAUSE_S", 0.0)
    monkeypatch.setattr("streamer.stages.commit.requests.RETRY_PAUSE_S", 0.0)
    monkeypatch.setattr("streamer.stages.commit.state_writer.RETRY_PAUSE_S", 0.0)
    monkeypatch.setattr("streamer.stages.commit.at_least_once.COMMIT_AGE_AT_LEAST_ONCE_S", 0.02)
    monkeypatch.setattr("streamer.stages.commit.at_least_once.NETWORK_TIMEOUT_S", 0.05)
    monkeypatch.setattr("streamer.testing.topology._TURNS_MAX", 2_000)
