"""The short torture runs: real workers, every fault proven to have hit, every record and the windows at the end checked.

`make torture` runs the long form; these are the same driver with a smaller plan each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.outcome import Plan
from tests.faults.torture import torture

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.dev_broker import DevBroker

SMALL: dict[str, Any] = {"rate": 1_200, "seconds": 10.0, "workers": 2, "keys": 120}
SHORT = (
    Plan(11, ("kill-restoring", "pause-session", "broker-kill"), protocol="classic", **SMALL),
    pytest.param(Plan(12, ("kill-twice", "pause-transaction", "storm"), protocol="consumer", **SMALL), marks=pytest.mark.again),
)


@pytest.mark.timeout(170)
@pytest.mark.parametrize("plan", SHORT, ids=lambda plan: plan.protocol)
def test_every_event_counts_once_whatever_happens(plan: Plan, broker: DevBroker, tmp_path: Path) -> None:
    outcome = torture(plan, broker.bootstrap, tmp_path, broker)
    assert outcome.word == "passed", outcome.report()
    assert outcome.faults == dict.fromkeys(plan.faults, 1)
    assert outcome.verdict["inputs"] >= plan.rate * plan.seconds
    assert outcome.verdict["bad"] >= outcome.verdict["inputs"] * plan.bad_share / 2
    assert outcome.verdict["watched"] > 0
    assert outcome.verdict["windows"] >= plan.keys / 2
