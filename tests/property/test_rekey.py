"""Through the internal topic: outcomes, state and watermarks follow from its log alone, whatever fails and wherever it is cut."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.state.watermarks import ALL_IDLE, SourceWatermarks
from tests.kit import rekeyed
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.inside import InsideTest
from tests.kit.rekeyed import payment

__all__ = ["short_waits"]

Step = tuple[str, Any, Any]
# ttl / 16 is the step in which such windows are told the time.
TTL, STEP_US = "16000s", 1_000_000_000
START_S = 1_700_000_000

records = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([-2, -1, 0, 0, 0]), st.integers(0, 50)), max_size=40)


class Lines:
    """The table, slowly."""

    def __init__(self) -> None:
        self.table: dict[int, list[int]] = {}

    def take(self, count: int, partition: int, offset: int, reached: int) -> tuple[bool, int]:
        """Whether the record was there before, and the slowest partition after it."""
        for p in range(count):
            self.table.setdefault(p, [rekeyed.NO_TIME, -1, 0])
        line = self.table[partition]
        seen = 0 <= offset <= line[1]
        if not seen:
            self.table[partition] = [max(line[0], reached), max(line[1], offset), int(offset == -2)]
        return seen, min((line[0] for line in self.table.values() if not line[2]), default=int(ALL_IDLE))


@given(records, st.lists(st.integers(0, 40), max_size=3), st.integers(3, 5))
def test_the_slowest_partition_counts_however_records_are_cut(
    said: list[tuple[int, int, int]], cuts: list[int], count: int
) -> None:
    numbered: list[tuple[int, int, int]] = []
    for number, (partition, kind, reached) in enumerate(said):
        # Now and then one comes again.
        numbered.append((partition, number if kind == 0 else kind, reached))
        if kind == 0 and reached % 7 == 0:
            numbered.append((partition, max(0, number - 3), reached))
    slow, quick = Lines(), SourceWatermarks()
    expected = [slow.take(count, *one) for one in numbered]
    found: list[tuple[bool, int]] = []
    edges = sorted({0, len(numbered), *(cut for cut in cuts if cut < len(numbered))})
    for start, end in pairwise(edges):
        partitions, offsets, reached_us = (np.array(column) for column in zip(*numbered[start:end], strict=True))
        look = quick.look(count, partitions, offsets, reached_us)
        quick.apply(look.changed)
        found += zip(look.seen.tolist(), look.least.tolist(), strict=True)
    assert found == expected
    assert quick.table.tolist() == [slow.table[p] for p in sorted(slow.table)]


# ---------------------------------------------------------------------- the whole way

pay = st.tuples(st.just("pay"), st.integers(0, 7), st.integers(0, 15_000))
bad = st.tuples(st.just("bad"), st.integers(0, 7), st.none())
turn = st.tuples(st.just("turn"), st.sampled_from([0, 1]), st.integers(1, 4))
restart = st.tuples(st.just("restart"), st.none(), st.none())
fault = st.tuples(
    st.just("fault"),
    st.sampled_from(["begin", "produce", "produce_batch", "produce_changelog", "offsets", "commit"]),
    st.sampled_from(["abortable", "fatal", "lost_answer", "full"]),
)
steps_of = st.lists(st.one_of(pay, pay, pay, pay, bad, turn, turn, restart, fault), max_size=40)


def play(test: FaultTest, steps: Sequence[Step]) -> None:
    for number, (kind, first, second) in enumerate(steps):
        if kind == "pay":
            value = payment(f"t{first % 5}", float(number), START_S + second, f"card{first}")
            test.send_bytes(rekeyed.SOURCE, f"card{first}".encode(), value)
        elif kind == "bad":
            test.send_bytes(rekeyed.SOURCE, f"card{first}".encode(), b"{")
        elif kind == "turn":
            for _ in range(second):
                test.workers[first].turn()
                test.clock.advance(0.006)
        elif kind == "restart":
            test.crash()
        else:
            test.script.fail_next(first, second)


def state(test: InsideTest) -> dict[int, Any]:
    return {partition: store.dump() for partition, store in test.worker.pipeline.window.stores.items()}


def time_is_right(test: InsideTest) -> bool:
    """Whether each partition knows of the source, and has told its windows, what the internal topic says."""
    for partition, store in test.worker.pipeline.window.stores.items():
        lines, least = rekeyed.upstreams(test.log, partition)
        assert store.upstreams.table.tolist() == [list(line) for line in lines]
        moments = [time // STEP_US * STEP_US for time in least if time is not None and time != rekeyed.NO_TIME]
        assert store.watermark == max(moments, default=rekeyed.NO_TIME)
    return True


@pytest.mark.usefixtures("short_waits")
@settings(max_examples=60)
@given(steps_of)
def test_one_outcome_and_the_right_time_whatever_fails(steps: list[Step]) -> None:
    # A model that leaves no time to max_drift, so that partitions run ahead as they like.
    with FaultTest(rekeyed.topology(TTL, max_drift="10h"), models=rekeyed.score, partitions=3) as test:
        play(test, steps)
        test.settle(fail=True)
        assert rekeyed.judge(test.log) == []
        assert time_is_right(test)
        live = state(test)
        test.crash()
        test.settle()
        assert state(test) == live


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(-2_000, 2_000)), min_size=1, max_size=60), st.integers(1, 4))
def test_what_a_record_carries_is_no_more_than_what_came_before_it(sent: list[tuple[int, int]], every: int) -> None:
    """In the order of its source partition: else an event within grace there could be late here."""
    with InsideTest(rekeyed.topology(max_drift="10h"), models=rekeyed.score, partitions=3) as test:
        for number, (card, move) in enumerate(sent):
            ts = START_S + 10 * number + move
            test.send_bytes(rekeyed.SOURCE, f"card{card}".encode(), payment(f"t{card % 3}", 1.0, ts))
            if number % every == 0:
                test.workers[0].turn()
                test.clock.advance(0.03)
            if number == len(sent) // 2:
                test.crash()
        test.run()
        reached: dict[tuple[int, int], int] = {}
        for p in range(3):
            so_far = rekeyed.NO_TIME
            for offset in range(test.log.end(rekeyed.SOURCE, p)):
                ts_us = round(json.loads(test.log.record(rekeyed.SOURCE, p, offset).value or b"")["ts"] * 1e6)
                so_far = reached[p, offset] = max(so_far, ts_us)
        last = {p: reached.get((p, test.log.end(rekeyed.SOURCE, p) - 1), rekeyed.NO_TIME) for p in range(3)}
        for receiver in range(3):
            told: dict[int, int] = {}
            for _, one in rekeyed.sent(test.log, receiver):
                told[one.partition] = max(told.get(one.partition, rekeyed.NO_TIME), one.watermark_us)
                if one.offset >= 0:
                    assert one.watermark_us <= reached[one.partition, one.offset]
                    assert told[one.partition] <= reached[one.partition, one.offset]
            # And at rest every receiver has heard of all there is, also one that got nothing.
            assert told == {p: time for p, time in last.items() if time != rekeyed.NO_TIME}
