"""Predictions and labels while calls of the client fail, workers die and are fenced: one outcome each, and the right one."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kit import steps as faults
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.labelled import DAY_S, FLOW, MATCHED, UNMATCHED, Label, put, scored

__all__ = ["short_waits"]

pytestmark = pytest.mark.usefixtures("short_waits")

PLACES = 6
prediction = st.tuples(st.just("scored"), st.integers(0, PLACES - 1), st.none())
label = st.tuples(st.just("label"), st.integers(0, PLACES - 1), st.none())
day = st.tuples(st.just("day"), st.integers(1, 9), st.none())
fault = faults.fault.filter(lambda step: step[1] != "init")
any_step = st.one_of(prediction, prediction, label, label, day, faults.turn, faults.restart, fault, faults.fence)


def play(test: FaultTest, steps: Sequence[faults.Step]) -> tuple[dict[int, float], list[tuple[int, float]]]:
    """Carry out the steps one by one; time of each prediction, the first of its key, and of each label."""
    times: dict[int, float] = {}
    labels: list[tuple[int, float]] = []
    for step in steps:
        kind, place, _ = step
        if kind == "scored" and place not in times:
            times[place] = test.now
            scored(test, f"p{place}", test.now, place)
        elif kind == "label":
            labels.append((place, test.now))
            put(test, Label(f"p{place}", test.now, True))
        elif kind == "day":
            test.clock.advance(place * DAY_S)
        elif kind not in ("scored", "label"):
            faults.play(test, [step])
        test.clock.advance(0.001)
    return times, labels


@settings(max_examples=100)
@given(steps=st.lists(any_step, max_size=50))
@example(steps=[("scored", 0, None), ("label", 0, None), ("fault", "commit", "abortable"), ("turn", 6, None)])
@example(
    steps=[("scored", 0, None), ("turn", 6, None), ("label", 0, None), ("fault", "commit", "lost_answer"), ("turn", 6, None)]
)
def test_exactly_once_whatever_fails(steps: list[faults.Step]) -> None:
    with FaultTest(FLOW, partitions=2, settings={"keys_max": 100}) as test:
        times, labels = play(test, steps)
        test.settle(fail=True)
        test.restart()
        test.clock.advance(15 * DAY_S)
        test.settle(fail=True)
        matched, unmatched = test.read(MATCHED), test.read(UNMATCHED)
        wanted = {n for n, at in times.items() if any(n == m and at <= u <= at + 14 * DAY_S for m, u in labels)}
        assert sorted(row["id"] for row in matched) == sorted(f"payments/0/{n}" for n in wanted)
        assert sorted(row["id"] for row in unmatched) == sorted(f"payments/0/{n}" for n in times.keys() - wanted)
        assert test.log.open == {}
