"""Torture on a bad network, small: every kind of fault once, and what the checker says where a resend is no doubt.

The flow is the one without windows: nothing but offsets says there what was done, so what goes wrong is lost or doubled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.outcome import Plan
from tests.faults.schedule import NETWORK
from tests.faults.torture import torture

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.dev_broker import DevBroker

SMALL: dict[str, Any] = {"flow": "stateless", "rate": 1_000, "seconds": 1.0, "keys": 120}


@pytest.mark.timeout(175)
def test_every_event_counts_once_on_a_bad_network(broker: DevBroker, tmp_path: Path) -> None:
    plan = Plan(13, NETWORK, hits=0.4, workers=2, **SMALL)
    outcome = torture(plan, broker.bootstrap, tmp_path, broker)
    assert outcome.word == "passed", outcome.report()
    assert outcome.faults == dict.fromkeys(NETWORK, 1)


@pytest.mark.again
@pytest.mark.timeout(120)
def test_a_resend_that_is_no_doubt_is_caught(broker: DevBroker, tmp_path: Path) -> None:
    """On a real broker what `tests/unit/test_mutants.py` shows in memory; with ten seeds see `docs/guarantees.md`."""
    plan = Plan(1, ("late-end",), hits=0.75, workers=1, mutant="resend_is_no_doubt", **SMALL)
    outcome = torture(plan, broker.bootstrap, tmp_path, broker)
    assert outcome.word == "caught", outcome.report()
    assert {"lost_prediction", "duplicate_prediction"} & set(outcome.verdict["kinds"])
