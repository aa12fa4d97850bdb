"""The checker checked on the real service: each seeded bug is caught under the fault that makes it bite.

The same faults on the unchanged service must leave nothing to find, else a catch would prove nothing. The scenarios
mostly wait, so two run at a time; each test looks at the ending of its own.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.faults.scenario import Ending, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

AT_ONCE = 2
BITES = {
    "stale_group_metadata": ("pause@3", {"duplicate_prediction"}),
    "no_rewind_after_abort": ("abort@2", {"lost_prediction"}),
    "position_committed": ("crash-in-flight@3", {"lost_prediction"}),
    "outputs_outside_the_transaction": ("abort@2", {"duplicate_prediction"}),
    "state_not_rolled_back": ("abort@2", {"wrong_window_n", "wrong_features"}),
    "restore_cut_short": ("crash@3", {"wrong_window_n", "wrong_features"}),
}
SURVIVED = ("pause@3", "abort@2+crash-in-flight@4")
CASES = [*((bug, fault) for bug, (fault, _) in BITES.items()), *(("none", fault) for fault in SURVIVED)]

Endings = dict[tuple[str, str], Future[Ending]]


@pytest.fixture(scope="module")
def endings(kafka: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Endings]:
    """The scenarios of the selected tests, under way."""
    wanted = {item.callspec.params["case"] for item in request.session.items if item.path == request.path}  # type: ignore[attr-defined]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            case: pool.submit(Scenario(kafka, tmp_path_factory.mktemp(case[0]), *case).play) for case in CASES if case in wanted
        }


@pytest.mark.parametrize("case", [case for case in CASES if case[0] != "none"], ids=lambda case: case[0])
def test_a_seeded_bug_is_caught_by_name(case: tuple[str, str], endings: Endings) -> None:
    ending = endings[case].result()
    assert ending.hit, ending.detail
    assert BITES[case[0]][1] & ending.kinds, (ending.kinds, ending.detail)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] == "none"], ids=lambda case: case[1])
def test_the_unchanged_service_survives_the_same_faults(case: tuple[str, str], endings: Endings) -> None:
    ending = endings[case].result()
    assert ending.hit, ending.detail
    assert not ending.kinds, (ending.kinds, ending.detail)
