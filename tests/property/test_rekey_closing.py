"""Closing windows behind an internal topic: however the partitions of the source are interleaved, the same windows close."""

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import Model, Topology, hopping, session, tumbling
from streamer.topology.closing import Closing
from tests.kit import rekeyed
from tests.kit.inside import InsideTest
from tests.kit.rekeyed import Payment, payment

LATE = "late"
IDLE_S, GRACE_S, SIZE_S, EVERY_S, GAP_S = 30, 5, 60, 20, 25
START_S = 1_700_000_040
PARTITIONS = 3
KINDS = {
    "tumbling": tumbling(f"{SIZE_S}s", grace=f"{GRACE_S}s", idle_timeout=f"{IDLE_S}s"),
    "hopping": hopping(f"{SIZE_S}s", hop=f"{EVERY_S}s", grace=f"{GRACE_S}s", idle_timeout=f"{IDLE_S}s"),
    "session": session(gap=f"{GAP_S}s", grace=f"{GRACE_S}s", idle_timeout=f"{IDLE_S}s"),
}
Window = tuple[str, float, float]


def topology(window: Closing) -> Topology:
    return (
        Topology("flow")
        .source(Payment, dead_letters=rekeyed.DEAD_LETTERS)
        .rekey("terminal", max_drift="10h")
        .window(window)
        .features(lambda w: {"n": w.count, "total": w.sum("amount"), "first": w.first("amount")})
        .infer(Model("stand-in"))
        .publish(predictions=rekeyed.PREDICTIONS, features=True, late_events=LATE)
    )


def flow(kind: str) -> InsideTest:
    return InsideTest(topology(KINDS[kind]), models=rekeyed.score, partitions=PARTITIONS)


def expected(events: list[tuple[str, float, float]], kind: str) -> dict[Window, tuple[int, float]]:
    """Terminal, start and end of each window -> events and their sum, from (terminal, time, amount)."""
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for terminal, ts, amount in events:
        times[terminal].append((ts, amount))
    found: dict[Window, tuple[int, float]] = {}
    for terminal, samples in times.items():
        for start, end in spans(sorted(ts for ts, _ in samples), kind):
            inside = [amount for ts, amount in samples if start <= ts < end]
            found[terminal, start, end] = len(inside), sum(inside)
    return found


def spans(times: list[float], kind: str) -> set[tuple[float, float]]:
    if kind == "session":
        starts = [n for n, ts in enumerate(times) if n == 0 or ts - times[n - 1] >= GAP_S]
        return {(times[a], times[b - 1] + GAP_S) for a, b in zip(starts, [*starts[1:], len(times)], strict=True)}
    every = SIZE_S if kind == "tumbling" else EVERY_S
    return {
        (start, start + SIZE_S)
        for ts in times
        for start in range(int(ts - SIZE_S) // every * every + every, int(ts) + 1, every)
        if start <= ts < start + SIZE_S
    }


def closed(test: InsideTest) -> dict[Window, tuple[int, float]]:
    found: dict[Window, tuple[int, float]] = {}
    ids = set()
    for record in test.log.committed_records(rekeyed.PREDICTIONS):
        row = json.loads(record.value or b"")
        assert row["final"]
        assert row["id"] not in ids
        ids.add(row["id"])
        window = row["key"], row["window_start"], row["window_end"]
        assert window not in found, f"{window} closed twice"
        found[window] = row["window_n"], row["features"]["total"]
    return found


def silence(test: InsideTest) -> None:
    """Long enough for every partition to be told silent, and for the second flow to hear of it."""
    test.run()
    for _ in range(3):
        test.clock.advance(IDLE_S + 1)
        for _ in range(20):
            for worker in test.workers:
                worker.turn()
            test.clock.advance(0.03)
    test.run()


# Of each partition of the source: how much later the next event is, and by how much it comes too late, within the grace.
one_source = st.lists(st.tuples(st.integers(0, 40), st.integers(0, GRACE_S), st.integers(0, 4)), max_size=14)
sources = st.lists(one_source, min_size=PARTITIONS, max_size=PARTITIONS)
# Which partition gives its next event, how many turns which flow then has, and whether the process dies.
flows = st.sampled_from([(0,), (1,), (0, 1)])
moves = st.lists(
    st.tuples(st.integers(0, PARTITIONS - 1), st.sampled_from([0, 0, 1, 2]), flows, st.integers(0, 9)),
    min_size=20,
    max_size=60,
)


def play(test: InsideTest, made: list[list[tuple[int, int, int]]], order: list[Any]) -> list[tuple[str, float, float]]:
    """Send the events of each partition in their order, the partitions in any; returns (terminal, time, amount)."""
    queues: list[list[tuple[str, float, float]]] = []
    for partition, steps in enumerate(made):
        now, queue = float(START_S), []
        for number, (step, behind, terminal) in enumerate(steps):
            now += step
            queue.append((f"t{terminal}", now - behind, float(100 * partition + number)))
        queues.append(queue)
    events = [event for queue in queues for event in queue]

    def give(partition: int) -> None:
        if queues[partition]:
            terminal, ts, amount = queues[partition].pop(0)
            test.log.append(rekeyed.SOURCE, b"c", payment(terminal, amount, ts), partition)

    for partition, turns, flows, dies in order:
        give(partition)
        for _ in range(turns):
            for number in flows:
                test.workers[number].turn()
            test.clock.advance(0.03)
        if dies == 0:
            test.crash()
    for partition in range(PARTITIONS):
        while queues[partition]:
            give(partition)
    return events


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(sources, moves)
def test_the_same_windows_close_however_partitions_interleave(
    kind: str, made: list[list[tuple[int, int, int]]], order: list[Any]
) -> None:
    with flow(kind) as test:
        events = play(test, made, order)
        silence(test)
        assert test.log.committed_records(LATE) == []
        assert closed(test) == expected(events, kind)
        assert test.worker.metrics.value("streamer_records_total", "dead") == 0


@settings(max_examples=40)
@given(sources, moves)
def test_what_is_late_is_late_against_the_slowest_partition(made: list[list[tuple[int, int, int]]], order: list[Any]) -> None:
    """Far out of order: every event is in exactly one closed window or late, and late only by what its log said."""
    wild = [[(step, behind * 30, terminal) for step, behind, terminal in steps] for steps in made]
    with flow("tumbling") as test:
        events = play(test, wild, order)
        silence(test)
        found, late = closed(test), test.log.committed_records(LATE)
        assert sum(n for n, _ in found.values()) + len(late) == len(events)
        for receiver in range(PARTITIONS):
            _, least = rekeyed.upstreams(test.log, receiver)
            ended = 0.0
            for (_, one), slowest in zip(rekeyed.sent(test.log, receiver), least, strict=True):
                if slowest is None:
                    break  # silence closed the rest
                if slowest != rekeyed.NO_TIME:
                    ended = max(ended, slowest / 1e6)
                if one.offset < 0:
                    continue
                row = json.loads(one.value)
                is_late = row["ts"] // SIZE_S * SIZE_S + SIZE_S + GRACE_S <= ended
                assert is_late == (one.value in {record.value for record in late})


def test_windows_wait_for_a_partition_and_not_for_a_silent_one() -> None:
    with flow("tumbling") as test:
        for n in range(30):
            test.log.append(rekeyed.SOURCE, b"c", payment("t0", 1.0, START_S + 10 * n), 0)
        test.log.append(rekeyed.SOURCE, b"c", payment("t0", 1.0, START_S), 1)
        test.run()
        assert closed(test) == {}  # one partition is slow, and of another nobody has heard
        test.clock.advance(IDLE_S + 1)
        for _ in range(30):
            test.log.append(rekeyed.SOURCE, b"c", payment("t0", 1.0, START_S + 300), 0)  # this one goes on
            for worker in test.workers:
                worker.turn()
            test.clock.advance(0.05)
        test.run()
        # The two others are silent: what is over by the time of the first has closed, its last window has not.
        assert max(end for _, _, end in closed(test)) <= START_S + 300
        assert len(closed(test)) >= 4
        # One of them speaks again, and is waited for.
        test.log.append(rekeyed.SOURCE, b"c", payment("t0", 1.0, START_S + 301), 1)
        test.run()
        before = closed(test)
        test.log.append(rekeyed.SOURCE, b"c", payment("t0", 1.0, START_S + 2_000), 0)
        test.run()
        assert max(end for _, _, end in closed(test)) == max(end for _, _, end in before)
        silence(test)
        assert sum(n for n, _ in closed(test).values()) + len(test.log.committed_records(LATE)) == 63


def test_silence_is_told_once_and_survives_a_restart() -> None:
    with flow("tumbling") as test:
        test.log.append(rekeyed.SOURCE, b"c", payment("t0", 1.0, START_S), 0)
        silence(test)
        words = [rekeyed.forwarded(record) for record in test.log.committed_records(rekeyed.INTERNAL)]
        assert [one.offset for one in words].count(-2) == PARTITIONS**2
        assert len(closed(test)) == 1
        test.crash()
        silence(test)
        for store in test.worker.pipeline.window.stores.values():
            assert store.upstreams.table[:, 2].tolist() == [1] * PARTITIONS
        assert len(closed(test)) == 1
