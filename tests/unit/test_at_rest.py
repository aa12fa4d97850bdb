"""Behind transactional inputs lag comes to rest at 0, once per rest, and what was committed there restores."""

from collections.abc import Iterator

import pytest

from streamer import Model, Topology
from streamer.kafka.memory_log import MemoryLog
from streamer.limits import REST_S
from tests.kit import flows, rekeyed
from tests.kit.flows import send
from tests.kit.inside import InsideTest
from tests.kit.labelled import FLOW, LABELS, MATCHED, SCORED, Label, Scored

GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])


def gap(log: MemoryLog, topic: str, partition: int = 0) -> None:
    """What no reader of committed records is given; the log knows no markers, and aborted records lie there in the same way."""
    log.append(topic, b"a", b"never seen", partition).state = "aborted"


def turns(test: InsideTest, seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        for worker in test.workers:
            worker.turn()
            worker.let_commit(1.0)
        test.clock.advance(0.05)


def lag(test: InsideTest, worker: int = -1) -> dict[tuple[str, ...], float]:
    return {place: n for place, n in test.workers[worker].metrics.by_label("streamer_consumer_lag_records").items() if n}


def committed(test: InsideTest, topic: str, partition: int = 0, worker: int = -1) -> int:
    return (test.log.committed(test.workers[worker].plan.group, topic, partition) or (0, None))[0]


def topologies() -> Iterator[tuple[str, Topology]]:
    yield "rolling", flows.topology()
    yield "stateless", (
        Topology("flow").source(flows.Reading, dead_letters=flows.DEAD_LETTERS).features(lambda w: {"v": w.event("value")})
        .infer(Model("any")).publish(predictions=flows.PREDICTIONS)
    )  # fmt: skip


@GUARANTEES
@pytest.mark.parametrize(("name", "topology"), [*topologies()])
def test_the_end_is_committed_once_per_rest(name: str, topology: Topology, guarantee: str) -> None:
    model = flows.score if name == "rolling" else (lambda columns: columns["v"][:, None])
    with InsideTest(topology, models=model, partitions=2, settings={"guarantee": guarantee}) as test:
        for rest in range(1, 3):
            before = test.log.end(flows.SOURCE, 0)
            test.log.append(flows.SOURCE, b"a", flows.value_of("a", test.now, float(rest)), 0)
            gap(test.log, flows.SOURCE)
            turns(test, REST_S - 1.5)
            # The gauge knows at once; for the others it waits, since the next record may come any moment.
            assert lag(test) == {}
            assert committed(test, flows.SOURCE) == before + 1
            commits = test.worker.metrics.value("streamer_commits_total")
            turns(test, 60)
            assert committed(test, flows.SOURCE) == test.log.end(flows.SOURCE, 0)
            assert test.worker.metrics.value("streamer_commits_total") == commits + 1
            test.crash()
        assert len(test.read(flows.PREDICTIONS)) == 2
        if name == "rolling":
            send(test, range(3))
            test.run()
            assert test.worker.metrics.value("streamer_recoveries_total") == 0


def test_a_restore_behind_the_end_goes_on_from_there() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        send(test, range(3))
        gap(test.log, flows.SOURCE)
        turns(test, 10)
        assert committed(test, flows.SOURCE) == 4
        test.crash()
        test.log.append(flows.SOURCE, b"a", flows.value_of("a", test.now, 9.0), 0)
        rows = test.read(flows.PREDICTIONS)
    assert [row["window_n"] for row in rows] == [1, 2, 3, 3], "the window came back, and took the next record"


def test_a_partition_beside_a_busy_one_comes_to_rest() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=2) as test:
        test.log.append(flows.SOURCE, b"a", flows.value_of("a", test.now, 1.0), 0)
        gap(test.log, flows.SOURCE)
        for _ in range(300):
            test.log.append(flows.SOURCE, b"b", flows.value_of("b", test.now, 1.0), 1)
            turns(test, 0.05)
        assert committed(test, flows.SOURCE) == 2


def test_a_flow_at_rest_does_not_wake_the_next_one() -> None:
    with InsideTest(rekeyed.topology(), models=rekeyed.score, partitions=2) as test:
        test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, test.now))
        test.run()
        for topic, partitions in ((rekeyed.SOURCE, 2), (rekeyed.INTERNAL, 2)):
            for partition in range(partitions):
                gap(test.log, topic, partition)
        turns(test, 20)
        ends = [test.log.end(rekeyed.INTERNAL, partition) for partition in range(2)]
        commits = [worker.metrics.value("streamer_commits_total") for worker in test.workers]
        assert [committed(test, rekeyed.INTERNAL, n) for n in range(2)] == ends
        assert [committed(test, rekeyed.SOURCE, n, 0) for n in range(2)] == [test.log.end(rekeyed.SOURCE, n) for n in range(2)]
        assert lag(test, 0) == lag(test, 1) == {}
        turns(test, 60)
        assert [test.log.end(rekeyed.INTERNAL, partition) for partition in range(2)] == ends
        assert [worker.metrics.value("streamer_commits_total") for worker in test.workers] == commits


def test_each_input_of_several_comes_to_rest() -> None:
    with InsideTest(FLOW, partitions=1) as test:
        start = test.now
        test.send(Scored("payments/0/1", "p1", start, 0.75, True), step="0s")
        test.send(Label("p1", start + 1, True, "r"), step="0s")
        gap(test.log, SCORED)
        gap(test.log, LABELS)
        turns(test, 20)
        assert [committed(test, topic) for topic in (SCORED, LABELS)] == [2, 2]
        test.crash()
        test.send(Scored("payments/0/2", "p2", start, 0.75, True), step="0s")
        test.send(Label("p2", start + 1, True, "r"), step="0s")
        assert [row["key"] for row in test.read(MATCHED)] == ["p1", "p2"]
