"""The laws, each a function of a flow and a seed; what it says of the flow holds when it returns."""

import json
from collections import defaultdict
from collections.abc import Callable
from random import Random
from zlib import crc32

from streamer.changelog.blocks import decode
from streamer.state.murmur2 import partitions
from tests.kit.steps import FAULTS, REQUESTS
from tests.laws.run import WHOLE, Group, Outcome, Run, outcome, running, undisturbed
from tests.laws.table import IDLE_S, Flow

CALLS = ("begin", "produce", "produce_changelog", "produce_batch", "offsets", "commit", "abort", "flush")
PRODUCE = ("produce", "produce_batch", "produce_changelog")
Disturbance = Callable[[Run], None]


def same(found: Outcome, wanted: Outcome, *, steady: bool) -> None:
    """The outputs are those, and the state too where it follows from the input alone."""
    assert found.outputs == wanted.outputs
    if steady:
        assert found.state == wanted.state


def disturbed(name: str, seed: int, disturb: Disturbance) -> None:
    """However a flow is disturbed while rows are on their way, what comes of it is what comes of it undisturbed."""
    with running(name, seed) as run:
        for _ in run.feed(seed):
            run.turns(run.random.randrange(7))
            disturb(run)
        run.end()
        same(outcome(run), undisturbed(name, seed), steady=run.flow.steady)


# ---------------------------------------------------------------------- the input


def cut(name: str, seed: int) -> None:
    """Any cut of the input into polls, whoever is read first, gives the same outputs and the same state."""
    random = Random(seed)
    with running(name, seed, cut=lambda: random.choice([1, 2, 3, 7, WHOLE])) as run:
        run.test.script.order = random
        for _ in run.feed(seed):
            run.turns(run.random.randrange(4))
        run.end()
        same(outcome(run), undisturbed(name, seed), steady=run.flow.steady)


# ---------------------------------------------------------------------- the state


def reload(run: Run) -> None:
    """Put a store that was loaded from its dump in place of each."""
    for worker in run.workers:
        for partition, store in list(worker.pipeline.window.stores.items()):
            dump = store.dump()
            twin = worker.pipeline.window.open(partition)
            assert twin is not None
            twin.load(dump)
            assert twin.dump() == dump


def dump_and_load(name: str, seed: int) -> None:
    """A store that was dumped and loaded goes on like the one it was."""
    disturbed(name, seed, reload)


def replay(name: str, seed: int) -> None:
    """The changelog gives the live state back: to a worker that restores it, and block by block to the live `apply`."""
    with running(name, seed) as run:
        for _ in run.feed(seed):
            run.drain()
            _restored(run)
        run.silence()
        _restored(run)
        _applied(run)
        same(outcome(run), undisturbed(name, seed), steady=run.flow.steady)


def _restored(run: Run) -> None:
    live = run.state()
    run.test.crash()
    run.drain()
    assert run.state() == live


def _applied(run: Run) -> None:
    """Apply all blocks to empty stores; there is nothing to apply where base snapshots took their place."""
    for worker in run.workers:
        topic = worker.plan.topics.changelog
        for partition, store in list(worker.pipeline.window.stores.items()):
            assert topic is not None
            live, fields = store.dump(), len(store.spec.fields)
            if run.log.low(topic, partition):
                continue
            records = [run.log.record(topic, partition, offset) for offset in range(run.log.end(topic, partition))]
            values = [one.value or b"" for one in records if one.key is None and one.state == "committed"]
            twin = worker.pipeline.window.open(partition)
            assert twin is not None
            for value in values:
                twin.apply(decode(value, store.spec.fingerprint, topic).delta(fields))
            assert twin.dump() == live


# ---------------------------------------------------------------------- the workers


def crash(name: str, seed: int) -> None:
    """Workers that die at any turn, and what comes after them, give each output once."""

    def dies(run: Run) -> None:
        if run.random.randrange(2):
            run.test.crash()
            run.turns(run.random.randrange(5))

    disturbed(name, seed, dies)


def moved(name: str, seed: int, handler: str) -> None:
    """Partitions that are taken at any turn, and given back or to another worker, have each output once."""

    def moves(run: Run) -> None:
        if not run.groups:
            run.groups += [Group.of(run, place) for place in range(len(run.plans))]
        run.random.choice(run.groups).move(run, handler)

    disturbed(name, seed, moves)


def failing(name: str, seed: int) -> None:
    """Calls that fail in any way, a producer that is fenced, and a crash on top lose nothing and repeat nothing."""

    def fails(run: Run) -> None:
        script, random = run.test.script, run.random
        script.fail_next(random.choice(CALLS), random.choice(FAULTS))
        if random.randrange(3) == 0:
            script.fail_next(random.choice(REQUESTS), "plain")
        if random.randrange(3) == 0 and "fenced" not in [kind for _, _, kind in script.hits]:
            script.fail_next(random.choice(("offsets", "commit")), "fenced")
        if random.randrange(4) == 0:
            run.test.crash()

    disturbed(name, seed, fails)


def full(name: str, seed: int) -> None:
    """A producer whose buffer is full at any call loses nothing and repeats nothing."""
    met = set[str]()

    def fills(run: Run) -> None:
        for call in PRODUCE:
            run.test.script.fail_next(call, "full", times=run.random.randrange(1, 4))
        run.turns(run.random.randrange(1, 5))
        met.update(call for call, _, _ in run.test.script.hits)

    disturbed(name, seed, fills)
    assert met >= ({"produce_batch"} if name == "stateless" else {"produce_batch", "produce_changelog"}), met


def at_least_once(name: str, seed: int) -> None:
    """The weaker guarantee may repeat an output, and never loses or changes one; undisturbed it is as good as the other."""
    wanted = undisturbed(name, seed)
    with running(name, seed, guarantee="at-least-once") as run:
        for _ in run.feed(seed):
            run.turns(run.random.randrange(7))
        run.end()
        assert outcome(run).outputs == wanted.outputs
    with running(name, seed, guarantee="at-least-once") as run:
        for _ in run.feed(seed):
            run.turns(run.random.randrange(7))
            if run.random.randrange(2):
                run.test.crash()
            else:
                run.test.script.fail_next(run.random.choice(CALLS), run.random.choice(FAULTS))
        run.end()
        found = run.outputs()
        assert {place: set(rows) for place, rows in found.items()} == {place: set(rows) for place, rows in wanted.outputs.items()}


# ---------------------------------------------------------------------- time without rows

ENDINGS = ("nothing", "crash", "on_revoke", "on_lost")


def tick(name: str, seed: int, ending: str) -> None:
    """Time that passes without a record ends what it must, once, whatever happens while it does, and nothing before."""
    wanted = undisturbed(name, seed)
    with running(name, seed) as run:
        for _ in run.feed(seed):
            run.drain()
        open_ = outcome(run)
        for _ in range(5):
            run.test.clock.advance(IDLE_S / 10)
            run.turns(2)
        # Behind another key the windows are told early who is silent; what is sent waits for the end of the wait all the same.
        same(outcome(run), open_, steady="rekey" not in run.flow.operators)
        if ending.startswith("on_"):
            run.groups += [Group.of(run, place) for place in range(len(run.plans))]
        run.test.clock.advance(IDLE_S + 100)
        run.turns(run.random.randrange(1, 8))
        if ending == "crash":
            run.test.crash()
        for group in run.groups:
            group.move(run, ending)
        run.end()
        ended = outcome(run)
        assert ended.outputs == wanted.outputs
        recoveries = [worker.metrics.value("streamer_recoveries_total") for worker in run.workers]
        assert ending == "on_lost" or not any(recoveries)
        run.end()
        same(outcome(run), ended, steady=True)


# ---------------------------------------------------------------------- the order of what a tick gives


def order(name: str, seed: int) -> None:
    """Rows that one tick gives leave by event time."""
    for rows in _given_by_ticks(name, seed):
        times = [time for time, _ in rows]
        assert times == sorted(times)


def order_of_ties(name: str, seed: int) -> None:
    """Those of one time leave by key, whatever their slots."""
    for rows in _given_by_ticks(name, seed):
        assert rows == sorted(rows)


def kept_in(flow: Flow) -> Callable[[bytes], int]:
    """Which partition keeps a key: the one its records were sent to, or, behind an internal topic, Kafka's own choice."""
    if "rekey" in flow.operators:
        return lambda key: int(partitions([key], flow.partitions)[0])
    return lambda key: crc32(key) % flow.partitions


def _given_by_ticks(name: str, seed: int) -> list[list[tuple[float, bytes]]]:
    """Event time and key of what leaves when nothing comes any more, by output and partition."""
    with running(name, seed) as run:
        for _ in run.feed(seed):
            run.drain()
        before = {topic: len(run.log.committed_records(topic)) for topic in run.flow.outputs}
        run.silence()
        home = kept_in(run.flow)
        given: dict[tuple[str, int], list[tuple[float, bytes]]] = defaultdict(list)
        for topic, known in before.items():
            for record in run.log.committed_records(topic)[known:]:
                key = record.key or b""
                given[topic, home(key)].append((json.loads(record.value or b"")["time"], key))
    assert max(map(len, given.values())) > 2, "a tick gave so few rows that nothing was shown"
    return list(given.values())
