"""The checker checked on the real service: each seeded bug is caught under the fault that makes it bite.

The same faults on the unchanged service must leave nothing to find, else a catch would prove nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]

BITES = {
    "no_rewind_after_abort": ("abort@4", {"lost_prediction"}),
    "position_committed": ("crash@4", {"lost_prediction"}),
    "outputs_outside_the_transaction": ("abort@4", {"duplicate_prediction"}),
    "state_not_rolled_back": ("abort@4", {"wrong_window_n", "wrong_features"}),
    "restore_cut_short": ("crash@12", {"wrong_window_n", "wrong_features"}),
    "stale_group_metadata": ("pause@4", {"duplicate_prediction"}),
}


@pytest.mark.parametrize("bug", BITES)
def test_a_seeded_bug_is_caught_by_name(bug: str, kafka: str, tmp_path: Path) -> None:
    fault, named = BITES[bug]
    ending = Scenario(kafka, tmp_path, bug, fault).play()
    assert ending.hit, ending.detail
    assert named & ending.kinds, (ending.kinds, ending.detail)


@pytest.mark.parametrize("fault", ["abort@4", "crash@12", "pause@4"])
def test_the_unchanged_service_survives_the_same_faults(fault: str, kafka: str, tmp_path: Path) -> None:
    ending = Scenario(kafka, tmp_path, "none", fault).play()
    assert ending.hit, ending.detail
    assert not ending.kinds, (ending.kinds, ending.detail)
