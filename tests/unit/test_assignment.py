"""On the way to a partition's first row: nothing is asked in a rebalance, one question for all, and none waits for another."""

from collections import Counter

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from streamer import limits
from streamer.kafka.memory_clients import MemoryProducer
from tests.kit import flows
from tests.kit.faulty import FaultTest, FaultyAdmin, short_waits

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
        test.crash()
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
        test.crash()
        test.script.restarted = True
        feed(test, 50)
        test.run()
        assert not test.script.restarted, "the client was never told to ask for the leaders again"
        assert flows.judge(test.log).exactly_once


def test_an_answer_without_an_offset_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that comes back may answer so: -1001, and no error; a worker once ended with status 6 at that."""
    answer, left = FaultyAdmin._end, iter(range(30))

    def at_first(admin: FaultyAdmin, tp: TopicPartition, spec: OffsetSpec) -> int:
        return answer(admin, tp, spec) if next(left, None) is None else OFFSET_INVALID

    with flow() as test:
        feed(test, 50)
        test.run()
        test.crash()
        monkeypatch.setattr(FaultyAdmin, "_end", at_first)
        feed(test, 50)
        test.run()
        assert next(left, None) is None
        assert flows.judge(test.log).exactly_once


def test_a_time_out_says_what_it_may_come_from(caplog: pytest.LogCaptureFixture) -> None:
    """The offsets of a group are not given out while a transaction over them is open: the client says "Timed out" and no more."""
    with flow() as test:
        feed(test, 50)
        test.run()
        test.crash()
        test.script.fail_next("committed", "retriable")
        feed(test, 50)
        test.run()
        assert test.script.hits
        assert "a transaction over the group's offsets stays open" in caplog.text
        assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize("committed_too", [False, True])
def test_a_transaction_that_hangs_is_named(caplog: pytest.LogCaptureFixture, *, committed_too: bool) -> None:
    with flow() as test:
        feed(test, 50)
        test.run()
        changelog = test.worker.plan.topics.changelog
        assert changelog is not None
        lost = MemoryProducer(test.log, {"transactional.id": "lost"})
        lost.init_transactions()
        lost.begin_transaction()
        lost.produce(changelog, b"?", partition=3)
        offset = test.log.end(changelog, 3) - 1
        if committed_too:
            feed(test, 50)
            test.run()
        test.move("on_revoke", [3])
        test.turns(1)
        test.move("on_assign", [3])
        test.turns(5)
        test.clock.advance(2.0)
        caplog.set_level("INFO")
        ready = test.worker.ready()
        assert ready is not None
        assert f"is open has hidden changelog {changelog}/3 from offset {offset} for 2 s" in ready
        assert ("was committed: do not abort it" in ready) == committed_too
        assert committed(test) == set(range(PARTITIONS)), "the others go on"
        test.clock.advance(limits.TRANSACTION_TIMEOUT_S * 3)
        test.turns(2)
        assert "kafka-transactions.sh" in caplog.text
        assert "transaction_open_s" in caplog.text, "the seconds that are left are nobody's to know"
        lost.abort_transaction()
        feed(test, 50)
        test.run()
        assert test.worker.ready() is None
        assert flows.judge(test.log).exactly_once
