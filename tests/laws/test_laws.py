"""The laws over every operator: what comes of a flow follows from its input, whatever happens to those who work on it."""

import pytest

from tests.kit.bases import small_snapshots
from tests.kit.faulty import short_waits
from tests.laws import laws
from tests.laws.oracles import ORACLES
from tests.laws.run import running
from tests.laws.table import FLOWS, folders, missing

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")
SEEDS = [1, 2, *(pytest.param(seed, marks=pytest.mark.again) for seed in range(3, 13))]
any_flow = pytest.mark.parametrize("name", FLOWS)
any_seed = pytest.mark.parametrize("seed", SEEDS)


@pytest.fixture(params=["blocks", "bases"])
def _changelog(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, short_waits: None) -> None:
    """As in service, where these runs are too short for a base snapshot, and with one after the other, in small pieces."""
    if request.param == "bases":
        small_snapshots(monkeypatch)


def test_every_operator_is_under_the_laws() -> None:
    found = folders()
    assert {"rolling", "infer"} <= set(found)
    assert missing(found) == []


def test_a_new_operator_is_told_what_to_add() -> None:
    (said,) = missing(["rolling", "dedupe"])
    assert said == (
        "streamer/operators/dedupe/ is under no law: give FLOWS in tests/laws/table.py a Flow with operators=('dedupe',)"
    )


@any_seed
@pytest.mark.parametrize("name", ORACLES)
def test_undisturbed_it_is_what_the_oracle_says(name: str, seed: int) -> None:
    with running(name, seed, cut=lambda: 1) as run:
        for _ in run.feed(seed):
            run.drain()
        run.end()
        ORACLES[name](run)


@any_seed
@any_flow
def test_any_cut_of_the_input_gives_the_same(name: str, seed: int) -> None:
    laws.cut(name, seed)


@any_seed
@any_flow
def test_what_was_dumped_and_loaded_goes_on_alike(name: str, seed: int) -> None:
    laws.dump_and_load(name, seed)


@pytest.mark.usefixtures("_changelog")
@any_seed
@any_flow
def test_a_replay_of_the_changelog_gives_the_state_back(name: str, seed: int) -> None:
    laws.replay(name, seed)


@pytest.mark.usefixtures("_changelog")
@any_seed
@any_flow
def test_a_crash_at_any_turn_leaves_each_output_once(name: str, seed: int) -> None:
    laws.crash(name, seed)


@any_seed
@any_flow
@pytest.mark.parametrize("handler", ["on_revoke", "on_lost"])
def test_partitions_that_go_at_any_turn_leave_each_output_once(name: str, seed: int, handler: str) -> None:
    laws.moved(name, seed, handler)


@pytest.mark.usefixtures("_changelog")
@any_seed
@any_flow
def test_a_call_that_fails_leaves_each_output_once(name: str, seed: int) -> None:
    laws.failing(name, seed)


@any_seed
@any_flow
def test_a_full_producer_loses_and_repeats_nothing(name: str, seed: int) -> None:
    laws.full(name, seed)


@any_seed
@any_flow
def test_at_least_once_never_loses_or_changes_an_output(name: str, seed: int) -> None:
    laws.at_least_once(name, seed)


@any_seed
@any_flow
@pytest.mark.parametrize("ending", laws.ENDINGS)
def test_time_without_rows_ends_what_it_must_and_dies_nowhere(name: str, seed: int, ending: str) -> None:
    laws.tick(name, seed, ending)


# Of these a tick gives rows.
TICKING = [name for name, flow in FLOWS.items() if {"closing", "join", "match"} & set(flow.operators) and name != "early"]


@any_seed
@pytest.mark.parametrize("name", TICKING)
def test_rows_that_one_tick_gives_leave_by_event_time(name: str, seed: int) -> None:
    laws.order(name, seed)


@pytest.mark.parametrize("name", TICKING)
def test_those_of_one_time_leave_by_key(name: str) -> None:
    for seed in range(1, 4):
        laws.order_of_ties(name, seed)
