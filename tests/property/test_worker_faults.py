"""One input, one outcome: whatever fails, and wherever the worker dies, every record has exactly one outcome."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kit import flows
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.steps import Step, bad, fault, fence, good, play, repeats_are_equal, request, restart, turn, windows_are_right

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")


@settings(max_examples=60)
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


@settings(max_examples=40)
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
