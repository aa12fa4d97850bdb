"""Partitions of a source beside each other: nobody runs far ahead, and nobody waits for a partition that gives nothing."""

import pytest

from streamer import limits
from streamer.kafka.memory_clients import MemoryConsumer
from tests.kit import rekeyed
from tests.kit.inside import InsideTest
from tests.kit.rekeyed import payment

ALIGN_S, START_S, STEP_S = 60, 1_700_000_000, 10
POLL = 4
# A card of each of the two partitions.
CARDS = ("card0", "card1")


@pytest.fixture(autouse=True)
def _small_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one poll takes everything there is."""
    monkeypatch.setattr(limits, "ROWS_PER_BATCH_MAX", POLL)


def flow(max_drift: str) -> InsideTest:
    return InsideTest(rekeyed.topology(max_drift=max_drift), models=rekeyed.score, partitions=2)


def send(test: InsideTest, partition: int, numbers: range) -> None:
    for n in numbers:
        test.log.append(rekeyed.SOURCE, b"c", payment(f"t{n % 3}", float(n), START_S + n * STEP_S), partition)


def lead_s(test: InsideTest) -> float:
    """How far ahead of the other a partition was at most while both had something to send, seconds of event time."""
    reached, most = {0: START_S * 1_000_000, 1: START_S * 1_000_000}, 0
    left = {0: test.log.end(rekeyed.SOURCE, 0), 1: test.log.end(rekeyed.SOURCE, 1)}
    for record in test.log.committed_records(rekeyed.INTERNAL):
        one = rekeyed.forwarded(record)
        if one.offset >= 0:
            reached[one.partition] = max(reached[one.partition], one.watermark_us)
            left[one.partition] -= 1
            if all(left.values()):
                most = max(most, abs(reached[0] - reached[1]))
    return most / 1e6


def waiting(test: InsideTest) -> float:
    return test.workers[0].metrics.value("streamer_rekey_partitions_waiting")


def test_without_it_a_partition_runs_ahead() -> None:
    with flow("10h") as test:
        for partition in (0, 1):
            send(test, partition, range(100))
        test.run()
        assert lead_s(test) > 5 * ALIGN_S
        assert rekeyed.judge(test.log) == []


def test_a_partition_far_ahead_waits_for_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = 0
    pause = MemoryConsumer.pause

    def counted(self: MemoryConsumer, partitions: list) -> None:  # type: ignore[type-arg]
        nonlocal pauses
        pauses += len(partitions)
        pause(self, partitions)

    with flow(f"{ALIGN_S}s") as test:
        test.run()
        monkeypatch.setattr(MemoryConsumer, "pause", counted)
        for partition in (0, 1):
            send(test, partition, range(100))
        test.run()
        assert rekeyed.judge(test.log) == []
        assert waiting(test) == 0
        # What was polled before it showed is on its way.
        assert lead_s(test) <= ALIGN_S + POLL * STEP_S
        # Half of it must be caught up before a partition goes on: no stop and go with every poll.
        assert 1 <= pauses <= 2 * 100 * STEP_S / (ALIGN_S / 2)


def test_a_partition_that_is_read_to_its_end_holds_nobody_back() -> None:
    with flow(f"{ALIGN_S}s") as test:
        send(test, 1, range(3))
        test.run()
        send(test, 0, range(200))
        for _ in range(60):
            test.workers[0].turn()
            assert waiting(test) == 0
        test.run()
        assert rekeyed.judge(test.log) == []


def test_a_partition_that_gives_nothing_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its broker is away: there is more to read, and nothing comes."""
    take = MemoryConsumer._take

    def deaf(self: MemoryConsumer, topic: str, partition: int, position: int, room: int) -> list:  # type: ignore[type-arg]
        return [] if (topic, partition) == (rekeyed.SOURCE, 1) and away else take(self, topic, partition, position, room)

    away = True
    monkeypatch.setattr(MemoryConsumer, "_take", deaf)
    with flow(f"{ALIGN_S}s") as test:
        send(test, 0, range(200))
        send(test, 1, range(200))
        front = test.workers[0]
        for _ in range(20):
            front.turn()
            test.clock.advance(0.01)
        assert waiting(test) == 1
        forwarded = front.metrics.value("streamer_records_total", "rekeyed")
        assert forwarded <= 2 * POLL
        front.let_commit(1.0)
        test.clock.advance(limits.ALIGN_WAIT_S)
        for _ in range(2_000):
            if front.metrics.value("streamer_records_total", "rekeyed") == 200:
                break
            front.turn()
            front.let_commit(1.0)  # its thread works in our time, the limits of a commit count in virtual time
            test.clock.advance(0.01)
        assert front.metrics.value("streamer_records_total", "rekeyed") == 200
        away = False
        test.run()
        assert rekeyed.judge(test.log) == []


def test_a_rebalance_forgets_who_waited() -> None:
    with flow(f"{ALIGN_S}s") as test:
        send(test, 0, range(50))
        send(test, 1, range(50))
        turns = 0
        while not waiting(test):
            test.workers[0].turn()
            turns += 1
            assert turns < 20
        test.workers[0].lost([])  # rolls back: every partition begins anew
        test.run()
        assert rekeyed.judge(test.log) == []
