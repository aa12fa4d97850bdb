"""A flow that is fed, disturbed and brought to its end, with what came of it."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Message

from streamer.kafka.memory_log import MemoryLog, Stored
from streamer.limits import REST_S
from streamer.state.keyed_store import Dump
from streamer.worker.worker import Worker
from tests.kit.faulty import FaultTest, FaultyClients, FaultyConsumer, Script
from tests.kit.second import Second
from tests.laws.table import FLOWS, IDLE_S, Flow

Cut = Callable[[], int]
Outputs = Mapping[tuple[str, bytes | None], list[str]]
State = dict[tuple[int, int], Dump]
TURNS_MAX = 600
WHOLE = 10**6


@dataclass(slots=True)
class CutScript(Script):
    """A script that also says how the next poll goes.

    Attributes:
        cut: how many records it may take.
        order: puts the partitions, of all inputs, into another order for it; None leaves them.
    """

    cut: Cut = lambda: WHOLE
    order: Random | None = None


class CuttingConsumer(FaultyConsumer):
    """A consumer that gives no more at a time than the script says."""

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        if not self._topics:
            return super().consume(num_messages, timeout)
        assert isinstance(self._script, CutScript)
        if self._script.order is not None:
            places = list(self._position.items())
            self._script.order.shuffle(places)
            self._position = dict(places)
        return super().consume(min(num_messages, self._script.cut()), timeout)


class CuttingClients(FaultyClients):
    """Makes them."""

    def consumer(self, config: dict[str, Any]) -> Consumer:
        made: Any = CuttingConsumer(self._log, config, self._script)
        self.consumers.append(made)
        return made  # type: ignore[no-any-return]  # the binding's class, as far as the service knows


class CutTest(FaultTest):
    """A topology over such clients."""

    make_clients = CuttingClients
    script: CutScript


def score(columns: Mapping[str, Any]) -> Any:
    """A stand-in model whose score shows all features of a row, and nothing of other rows."""
    columns_ = [np.asarray(column, np.float32) for column in columns.values()]
    return np.stack([(n + 1) * column for n, column in enumerate(columns_)]).sum(axis=0, dtype=np.float32)[:, None]


@dataclass(slots=True)
class Run:
    """One run of a flow.

    Attributes:
        name, flow: which flow.
        test: the workers and the log.
        random: decides what the run leaves open.
        guarantee: that of the workers.
        groups: of each of the topology's flows, once partitions are to move.
    """

    name: str
    flow: Flow
    test: CutTest
    random: Random
    guarantee: str
    groups: list["Group"] = field(default_factory=list)

    @property
    def log(self) -> MemoryLog:
        """The log."""
        return self.test.log

    @property
    def workers(self) -> list[Worker]:
        """All workers, those in front first."""
        return [*self.test.workers, *(group.second.worker for group in self.groups)]

    def feed(self, seed: int) -> Iterator[None]:
        """Send the records of a seed, some at a time."""
        sent = self.flow.feed(Random(seed))
        while sent:
            some = self.random.randrange(1, 9)
            for one in sent[:some]:
                # Whenever it is sent, it says the same.
                self.test.send_bytes(one.topic, one.key, one.value, created_ms=round(one.at_s * 1_000))
            sent = sent[some:]
            yield

    def turns(self, number: int) -> None:
        """Turn all workers so often, a little time between."""
        for _ in range(number):
            for worker in self.workers:
                worker.turn()
            self.test.clock.advance(0.005)

    def drain(self) -> None:
        """Turn until all that was sent is committed.

        At least once a block may be in the log when its offsets are not; then these stay behind until the next record. Behind
        the last record there may lie what was aborted, which is committed after a rest.
        """
        rested = 0
        for _ in range(TURNS_MAX):
            self.turns(1)
            rested = rested + 1 if all(map(rests, self.workers)) else 0
            if rested and (all(map(self.test._caught_up, self.plans)) or (rested > 40 and self.guarantee == "at-least-once")):
                return
            if rested > 40:
                self.test.clock.advance(1.0)
            assert rested < 40 + 10 * REST_S, "the group's offsets stay behind"
        raise AssertionError(f"{self.name} does not come to rest: {[worker.ready() for worker in self.workers]}")

    @property
    def plans(self) -> list[Any]:
        """What each of the topology's flows is."""
        return [worker.plan for worker in self.test.workers]

    def silence(self) -> None:
        """Nothing comes for so long that all that waits or is open has its end; what a flow says of it reaches the next one."""
        for _ in range(len(self.plans) + 1):
            self.test.clock.advance(IDLE_S + 100)
            self.turns(6)
            self.drain()

    def end(self) -> None:
        """Bring everything to its end."""
        self.drain()
        self.silence()

    def outputs(self) -> Outputs:
        """What a reader of committed records sees of each key, in its order."""
        found: dict[tuple[str, bytes | None], list[str]] = defaultdict(list)
        for topic in self.flow.outputs:
            for record in self.log.committed_records(topic):
                found[topic, record.key].append(told(record))
        return dict(found)

    def state(self) -> State:
        """All that is kept, by flow and partition."""
        stores: State = {}
        for worker in self.workers:
            place = next(n for n, plan in enumerate(self.plans) if plan.group == worker.plan.group)
            stores |= {(place, partition): store.dump() for partition, store in worker.pipeline.window.stores.items()}
        return stores


def rests(worker: Worker) -> bool:
    """Whether a worker has nothing to do: its partitions, if it has any, are restored and committed."""
    said = worker.ready()
    return worker.idle and (said is None or said.startswith("joining"))


@dataclass(slots=True)
class Group:
    """The two workers of a flow's group, and which partitions are whose.

    Attributes:
        consumers: of the two.
        second: the one that had nothing at first.
        owned: partitions of the two.
    """

    consumers: tuple[FaultyConsumer, FaultyConsumer]
    second: Second
    owned: tuple[set[int], set[int]]

    @classmethod
    def of(cls, run: Run, place: int) -> "Group":
        """Let another worker join the group of a flow."""
        first = run.test.clients_of[run.plans[place].group].consumers[0]
        second = Second(run.test, place)
        return cls((first, second.consumer), second, (set(range(run.flow.partitions)), set()))

    def move(self, run: Run, handler: str) -> None:
        """Have one of the two give partitions up, or lose all it had; they go to the other one, or back to where they were."""
        giver = run.random.choice([n for n in (0, 1) if self.owned[n]])
        owned = sorted(self.owned[giver])
        some = owned if handler == "on_lost" else run.random.sample(owned, run.random.randint(1, len(owned)))
        self._tell(run, giver, handler, some)
        run.turns(run.random.randrange(3))
        taker = run.random.randrange(2)
        self._tell(run, taker, "on_assign", some)
        self.owned[giver].difference_update(some)
        self.owned[taker].update(some)

    def _tell(self, run: Run, member: int, handler: str, partitions: list[int]) -> None:
        self.consumers[member].moves.append((handler, partitions))
        for _ in range(TURNS_MAX):
            run.turns(1)
            if not self.consumers[member].moves:
                return
        raise AssertionError(f"{run.name} does not poll any more")


def told(record: Stored) -> str:
    """What a record says, but for how long it took."""
    if record.headers:
        headers = {name: value for name, value in record.headers if name.startswith("streamer.error.")}
        return f"{headers} {record.value!r}"
    row = json.loads(record.value or b"null")
    row.pop("latency_ms", None)
    return json.dumps(row, sort_keys=True)


@contextmanager
def running(name: str, seed: int, guarantee: str = "exactly-once", cut: Cut = lambda: WHOLE) -> Iterator[Run]:
    """A run of a flow of the table; it has its partitions."""
    flow = FLOWS[name]
    settings: dict[str, object] = {"keys_max": 100, "guarantee": guarantee, "commit_interval": "30ms"}
    with CutTest(flow.topology, models=score, partitions=flow.partitions, script=CutScript(cut=cut), settings=settings) as test:
        run = Run(name, flow, test, Random(seed), guarantee)
        try:
            run.turns(4)
            yield run
        finally:
            for group in run.groups:
                group.second.worker.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    outputs: Outputs
    state: State


def outcome(run: Run) -> Outcome:
    """What came of a run that has ended."""
    assert run.log.open == {}, "a transaction is open"
    return Outcome(run.outputs(), run.state())


_KNOWN: dict[tuple[str, int], Outcome] = {}


def undisturbed(name: str, seed: int) -> Outcome:
    """What comes of a flow that reads one record at a time and that nothing happens to."""
    if (name, seed) not in _KNOWN:
        with running(name, seed, cut=lambda: 1) as run:
            for _ in run.feed(seed):
                run.drain()
            run.end()
            _KNOWN[name, seed] = outcome(run)
    return _KNOWN[name, seed]
