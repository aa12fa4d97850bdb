"""One input, one outcome: whatever fails, and wherever the worker dies, every record has exactly one outcome."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.operators.rolling.store import RollingStore
from tests.kit import flows
from tests.kit.faulty import FaultTest, short_waits

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")

BAD = (b"", b"{", b'{"sensor":"a"}', b"\xff", None, b'{"sensor":"b","ts":1,"value":2,"load":3}')
CALLS = ("begin", "produce", "produce_changelog", "produce_batch", "offsets", "commit", "abort", "init", "flush")
FAULTS = ("abortable", "retriable", "lost_answer", "fatal", "full")
REQUESTS = ("committed", "list_offsets", "seek")

good = st.tuples(st.just("good"), st.sampled_from("abde"), st.integers(-1000, 1000))
bad = st.tuples(st.just("bad"), st.sampled_from("ad"), st.sampled_from(BAD))
turn = st.tuples(st.just("turn"), st.integers(1, 6), st.none())
restart = st.tuples(st.just("restart"), st.none(), st.none())
fault = st.tuples(st.just("fault"), st.sampled_from(CALLS), st.sampled_from(FAULTS))
request = st.tuples(st.just("fault"), st.sampled_from(REQUESTS), st.just("plain"))
fence = st.tuples(st.just("fault"), st.sampled_from(("offsets", "commit", "produce_changelog")), st.just("fenced"))
Step = tuple[str, Any, Any]


def play(test: FaultTest, steps: Sequence[Step]) -> None:
    """Carry out the steps one by one."""
    for kind, first, second in steps:
        if kind == "good":
            test.send_bytes(flows.SOURCE, first.encode(), flows.value_of(first, test.now, second / 8, second / 4))
        elif kind == "bad":
            test.send_bytes(flows.SOURCE, first.encode(), second)
        elif kind == "turn":
            test.turns(first)
        elif kind == "restart":
            test.restart()
        elif second != "fenced" or "fenced" not in [hit[2] for hit in test.script.hits]:
            test.script.fail_next(first, second)


def windows_are_right(test: FaultTest, count: int = flows.COUNT) -> bool:
    """Whether each live window equals the recomputation from the source topic."""
    last = {(key_of(o), id_.split("/")[1]): o.window for id_, o in flows.expected(test.log, count).items() if o.good}
    stores = test.worker._window.stores
    assert sum(map(len, stores.values())) == len(last)
    for (key, partition), window in last.items():
        store = stores[int(partition)]
        assert isinstance(store, RollingStore)
        found = store.samples(key)
        assert found is not None
        # fields are kept by name: load, value
        assert np.array_equal(found[1], np.array([[load for _, load in window], [value for value, _ in window]]))
    return True


def repeats_are_equal(test: FaultTest) -> bool:
    """Whether repetitions of a prediction differ in nothing but their latency."""
    seen: dict[str, Any] = {}
    for record in test.log.committed_records(flows.PREDICTIONS):
        row = json.loads(record.value or b"")
        row.pop("latency_ms")
        assert seen.setdefault(row["id"], row) == row
    return True


def key_of(outcome: flows.Outcome) -> bytes:
    assert outcome.key is not None
    return outcome.key


@settings(max_examples=150)
@given(steps=st.lists(st.one_of(good, good, good, bad, turn, turn, restart, fault, request, fence), max_size=40))
@example(steps=[("good", "a", 1), ("fault", "commit", "abortable"), ("turn", 6, None), ("good", "a", 2)])
@example(steps=[("good", "a", 1), ("fault", "commit", "lost_answer"), ("turn", 6, None), ("good", "a", 2)])
def test_exactly_once_whatever_fails(steps: list[Step]) -> None:
    with FaultTest(flows.topology(), models=flows.score, partitions=2) as test:
        play(test, steps)
        test.settle(fail=True)
        verdict = flows.judge(test.log)
        assert verdict.exactly_once, verdict
        assert windows_are_right(test)
        assert test.log.open == {}


@settings(max_examples=100)
@given(steps=st.lists(st.one_of(good, good, good, bad, turn, turn, restart, fault, request), max_size=40))
@example(steps=[("good", "a", 1), ("fault", "produce_changelog", "fatal"), ("turn", 6, None), ("good", "a", 2)])
@example(steps=[("good", "a", 750), ("fault", "produce_changelog", "abortable")])
def test_at_least_once_repeats_but_never_loses(steps: list[Step]) -> None:
    with FaultTest(flows.topology(), models=flows.score, partitions=2, settings={"guarantee": "at-least-once"}) as test:
        play(test, steps)
        test.turns(60)
        # Where a block is in the log and its offsets are not, the group's offsets stay behind until the next record.
        play(test, [("good", key, 0) for key in "abde"])
        test.settle()
        verdict = flows.judge(test.log)
        assert verdict.at_least_once, verdict
        assert repeats_are_equal(test)
        assert windows_are_right(test)
        if not test.script.hits and ("restart", None, None) not in steps:
            assert verdict.exactly_once, verdict
