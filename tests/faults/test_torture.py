"""The torture driver itself: what it makes of its arguments, and what it keeps."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from tests.faults import schedule
from tests.faults.cluster import Cluster
from tests.faults.names import FLOWS, Flow, Names
from tests.faults.outcome import Outcome, Plan
from tests.faults.processes import Crew
from tests.faults.run import Run
from tests.faults.strikes import Strikes
from tests.faults.torture import _faults, _kinds, torture

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.dev_broker import DevBroker


@pytest.mark.parametrize(("word", "keeps"), [("FAILED", True), ("INVALID", True), ("passed", False)])
def test_a_run_that_is_not_green_keeps_the_brokers_log(
    word: str, keeps: bool, broker: DevBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(run: Run) -> Outcome:
        run.outcome.verdict = {"violations": word == "FAILED"}
        run.outcome.unproven += ["nothing hit"] * (word == "INVALID")
        return run.outcome

    monkeypatch.setattr(Run, "go", go)
    monkeypatch.setattr(Cluster, "delete_topics", lambda _: None)
    outcome = torture(Plan(1, ()), broker.bootstrap, tmp_path, broker)
    assert outcome.word == word
    kept = tmp_path / "broker.log"
    assert kept.exists() is keeps
    assert (str(kept) in outcome.report()) is keeps
    assert not keeps or kept.read_bytes() == broker.log.read_bytes()


def test_without_a_proxy_no_network_fault_is_proven(kafka: str, tmp_path: Path) -> None:
    outcome, names = Outcome(Plan(1, ("drop",), "stateless")), Names("unproven", flow="stateless")
    strikes = Strikes(outcome, Cluster(kafka, names), Crew(kafka, names, tmp_path), None)
    strikes.strike(schedule.Fault(0.0, "drop", 0.0))
    outcome.verdict = {"violations": 0}
    assert outcome.word == "INVALID"
    assert "NOT PROVEN: drop" in outcome.report()


def test_groups_of_faults_have_a_name() -> None:
    assert _kinds("network") == schedule.NETWORK
    assert _kinds("kill,host") == ("kill", *schedule.HOST)
    with pytest.raises(argparse.ArgumentTypeError, match="late-end"):
        _kinds("late")


def test_one_seed_breaks_the_network_of_all_flows_but_two() -> None:
    broken = {flow for flow in FLOWS if schedule.NETWORK in _faults(1, flow)}
    assert broken == {"rolling", "joined", "rekeyed", "stateless"}
    without_state: tuple[Flow, ...] = ("stateless", "raw")
    for flow in without_state:
        assert "kill-restoring" not in {kind for seed in range(20) for kind in _faults(seed, flow)[0]}
