"""On the way to a partition's first row: nothing is asked in a rebalance, one question for all, and none waits for another."""

from collections import Counter

import pytest

from tests.unit import flows
from tests.unit.faulty import FaultTest, short_waits

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")
PARTITIONS = 5


def flow() -> FaultTest:
    return FaultTest(flows.topology(), models=flows.score, partitions=PARTITIONS)


def feed(test: FaultTest, rows: int) -> None:
    for n in range(rows):
        key = f"k{n}"
        test.send_bytes(flows.SOURCE, key.encode(), flows.value_of(key, test.now, float(n)))


def committed(test: FaultTest) -> set[int]:
    group = test.worker.plan.group
    return {p for p in range(PARTITIONS) if test.log.committed(group, flows.SOURCE, p) is not None}


def test_the_callback_of_a_rebalance_asks_nothing() -> None:
    with flow() as test:
        feed(test, 50)
        test.run()
        test.move("on_revoke", [1, 2])
        test.turns(1)
        before = Counter(test.script.calls)
        test.worker.assigned([1, 2])  # what the consumer calls from inside a poll
        assert test.script.calls == before
        assert test.worker.ready() == "Kafka is asked where to go on: 2 of 5 partitions wait"


def test_one_question_for_all_partitions() -> None:
    with flow() as test:
        feed(test, 50)
        test.run()
        test.restart()
        before = Counter(test.script.calls)
        feed(test, 50)
        test.run()
        asked = test.script.calls - before
        assert asked["committed"] == 1
        assert asked["list_offsets"] == 4, "both ends of the changelog, then both of the input"
        assert flows.judge(test.log).exactly_once


def test_a_partition_without_a_leader_keeps_no_other_waiting() -> None:
    with flow() as test:
        test.script.leaderless = {1, 3}
        feed(test, 50)
        test.turns(200)
        assert committed(test) == {0, 2, 4}
        test.script.leaderless = set()
        test.turns(100)
        test.run()
        assert committed(test) == set(range(PARTITIONS))
        assert flows.judge(test.log).exactly_once


def test_epochs_from_before_a_restart_of_the_brokers_are_learned_anew() -> None:
    with flow() as test:
        feed(test, 50)
        test.run()
        test.restart()
        test.script.restarted = True
        feed(test, 50)
        test.run()
        assert not test.script.restarted, "the client was never told to ask for the leaders again"
        assert flows.judge(test.log).exactly_once
