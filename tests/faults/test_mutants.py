"""The checker checked on the real service: each seeded bug is caught under the fault that makes it bite.

The same faults on the unchanged service must leave nothing to find, else a catch would prove nothing. The scenarios
mostly wait, so two run at a time; each test looks at the ending of its own.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.faults.names import Flow
from tests.faults.scenario import Ending, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

AT_ONCE = 2
Case = tuple[str, str, Flow]
BITES = {
    "stale_group_metadata": ("pause@3", {"duplicate_prediction"}),
    "no_rewind_after_abort": ("abort@2", {"lost_prediction"}),
    "position_committed": ("crash-in-flight@3", {"lost_prediction"}),
    "outputs_outside_the_transaction": ("abort@2", {"duplicate_prediction"}),
    "state_not_rolled_back": ("abort@2", {"wrong_window_n", "wrong_features"}),
    "restore_cut_short": ("crash@3", {"wrong_window_n", "wrong_features"}),
}
SURVIVED = ("pause@3", "abort@2+crash-in-flight@4")
# Once rows have begun to leave the join, while others wait.
JOINED = {
    "tick_not_logged": ("crash-leaving@5", {"duplicate_prediction"}),
    "follower_offsets_not_committed": ("crash-leaving@5", {"unsettled"}),
    "waiting_rows_lost": ("crash-leaving@5", {"lost_prediction"}),
}
REKEYED = {"outputs_outside_the_transaction": ("abort@2", {"duplicate_forward", "duplicate_prediction"})}
CLOSING = {"tick_not_logged": ("crash-tick@1", {"duplicate_prediction"})}
FLOWS: dict[Flow, dict[str, tuple[str, set[str]]]] = {
    "rolling": BITES,
    "joined": JOINED,
    "rekeyed": REKEYED,
    "closing": CLOSING,
}
CASES: list[Case] = [
    *((bug, fault, flow) for flow, bugs in FLOWS.items() for bug, (fault, _) in bugs.items()),
    *(("none", fault, "rolling") for fault in SURVIVED),
    ("none", "crash-leaving@5", "joined"),
    ("none", "abort@2", "rekeyed"),
    ("none", "crash-tick@1", "closing"),
]
# Each of a kind that another one shows too, or that the laws of the operators catch without a broker.
AGAIN = {
    *((bug, "rolling") for bug in ("position_committed", "no_rewind_after_abort", "outputs_outside_the_transaction")),
    ("tick_not_logged", "joined"),
    *((bug, "rekeyed") for bug in ("outputs_outside_the_transaction", "none")),
    *((bug, "closing") for bug in ("tick_not_logged", "none")),
}

Endings = dict[Case, Future[Ending]]


@pytest.fixture(scope="module")
def endings(kafka: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Endings]:
    """The scenarios of the selected tests, under way."""
    wanted = {item.callspec.params["case"] for item in request.session.items if item.path == request.path}  # type: ignore[attr-defined]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            case: pool.submit(Scenario(kafka, tmp_path_factory.mktemp(case[0]), *case).play) for case in CASES if case in wanted
        }


def _params(*, unchanged: bool) -> list[ParameterSet]:
    return [
        pytest.param(
            case,
            id=f"{case[2]}-{case[1] if unchanged else case[0]}",
            marks=[pytest.mark.again] if (case[0], case[2]) in AGAIN else [],
        )
        for case in CASES
        if (case[0] == "none") is unchanged
    ]


@pytest.mark.parametrize("case", _params(unchanged=False))
def test_a_seeded_bug_is_caught_by_name(case: Case, endings: Endings) -> None:
    ending = endings[case].result()
    assert ending.hit, ending.detail
    assert FLOWS[case[2]][case[0]][1] & ending.kinds, (ending.kinds, ending.detail)


@pytest.mark.parametrize("case", _params(unchanged=True))
def test_the_unchanged_service_survives_the_same_faults(case: Case, endings: Endings) -> None:
    ending = endings[case].result()
    assert ending.hit, ending.detail
    assert not ending.kinds, (ending.kinds, ending.detail)
