"""Time behind another key: windows follow the slowest partition of the source, and a silent one holds nobody back."""

import pytest

from streamer import Model, Topology, rolling, tumbling
from streamer.topology.rolling import Rolling
from tests.kit import rekeyed
from tests.kit.inside import InsideTest
from tests.kit.rekeyed import Payment, payment

# A silence of a sixteenth of it holds nobody back.
TTL_S, IDLE_S = 160, 10
START_S = 1_700_000_000

FORGETFUL = rolling(count=9, ttl=f"{TTL_S}s")


def flow(window: Rolling = FORGETFUL, partitions: int = 2) -> InsideTest:
    topology = (
        Topology("flow").source(Payment, dead_letters=rekeyed.DEAD_LETTERS).rekey("terminal", max_drift="10h").window(window)
        .features(lambda w: {"n": w.count, "total": w.sum("amount")})
        .infer(Model("stand-in")).publish(predictions=rekeyed.PREDICTIONS)
    )  # fmt: skip
    return InsideTest(topology, models=rekeyed.score, partitions=partitions)


def pay(test: InsideTest, at_s: float, partition: int = 0, terminal: str = "t0") -> None:
    test.log.append(rekeyed.SOURCE, b"c", payment(terminal, 1.0, START_S + at_s), partition)


def counts(test: InsideTest) -> list[int]:
    return [row["window_n"] for row in test.read(rekeyed.PREDICTIONS)]


def quiet(test: InsideTest, seconds: float) -> None:
    """Nobody sends for so long."""
    test.run()
    test.clock.advance(seconds)


@pytest.mark.parametrize("partitions", [2, 5])
def test_a_partition_that_never_had_a_record_does_not_keep_windows_alive(partitions: int) -> None:
    with flow(partitions=partitions) as test:
        pay(test, 0)
        pay(test, 1)
        quiet(test, IDLE_S + 1)
        pay(test, 2_000)
        pay(test, 2_001)
        assert counts(test) == [1, 2, 1, 2]


def test_a_partition_that_fell_silent_does_not_keep_windows_alive() -> None:
    with flow() as test:
        pay(test, 0)
        pay(test, 1, partition=1, terminal="t1")
        quiet(test, IDLE_S + 1)
        pay(test, 2_000)
        assert counts(test) == [1, 1, 1]


def test_a_partition_is_waited_for_until_its_silence_is_long_enough() -> None:
    with flow() as test:
        pay(test, 0)
        pay(test, 0, partition=1, terminal="t1")
        quiet(test, IDLE_S / 2)
        pay(test, 2_000)
        # What the other one sends next may lie before that.
        assert counts(test) == [1, 1, 2]
        pay(test, 1, partition=1)
        assert counts(test) == [3]


def test_a_partition_that_speaks_again_is_waited_for_again() -> None:
    with flow() as test:
        pay(test, 0)
        quiet(test, IDLE_S + 1)
        pay(test, 100, partition=1, terminal="t1")
        pay(test, 100)
        test.run()
        pay(test, 2_000)
        assert sorted(counts(test)) == [1, 1, 2, 3]
        quiet(test, IDLE_S + 1)
        pay(test, 3_500)
        assert counts(test) == [1]


def test_what_was_said_of_silence_outlives_restarts_and_rollbacks() -> None:
    with flow() as test:
        pay(test, 0)
        quiet(test, IDLE_S + 1)
        test.run()
        test.crash()
        pay(test, 2_000)
        assert counts(test) == [1, 1]
        for worker in test.workers:
            worker.lost([])
        test.run()
        pay(test, 3_500)
        assert counts(test) == [1]


def test_windows_without_a_ttl_know_no_time_and_are_told_none() -> None:
    with flow(rolling(count=9)) as test:
        pay(test, 0)
        quiet(test, 1_000)
        words = [rekeyed.forwarded(record) for record in test.log.committed_records(rekeyed.INTERNAL)]
        assert [one.offset for one in words if one.offset == -2] == []


def test_early_results_alone_are_late_by_the_partitions_that_speak() -> None:
    """`emit="each"` sends nothing on close, but behind another key its windows close too, and need to hear of silence."""
    topology = (
        Topology("flow").source(Payment, dead_letters=rekeyed.DEAD_LETTERS).rekey("terminal")
        .window(tumbling("60s", idle_timeout="30s"), emit="each").features(lambda w: {"n": w.count})
        .infer(Model("stand-in")).publish(predictions=rekeyed.PREDICTIONS, late_events="late")
    )  # fmt: skip
    with InsideTest(topology, models=lambda columns: columns["n"][:, None], partitions=2) as test:
        pay(test, 0)
        pay(test, 1)
        quiet(test, 31)
        pay(test, 600)
        pay(test, 2)
        assert counts(test) == [1, 2, 1]
        assert len(test.log.committed_records("late")) == 1
