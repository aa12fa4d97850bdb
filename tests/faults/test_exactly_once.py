"""The short torture run: real workers, a proven kill, one worker added and one removed, every record checked.

`make torture` runs the long form; this one is the same driver with a smaller plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.torture import Plan, torture

if TYPE_CHECKING:
    from pathlib import Path

SHORT = Plan(seed=11, events=20_000, seconds=14.0, kills=1, keys=120)


@pytest.mark.kafka
@pytest.mark.timeout(150)
def test_every_event_counts_once_through_a_kill_and_two_rebalances(kafka: str, tmp_path: Path) -> None:
    outcome = torture(SHORT, kafka, tmp_path)
    assert outcome.word == "passed", outcome.report()
    assert outcome.faults == {"kill": 1, "add": 1, "remove": 1}
    assert outcome.verdict["inputs"] >= SHORT.events
    assert outcome.verdict["bad"] >= SHORT.events * SHORT.bad_share / 2
    assert outcome.verdict["watched"] > 0
