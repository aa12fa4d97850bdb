"""Replicas come and go under load: nothing is lost or doubled, and only what must move moves; under both group protocols."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from streamer.errors import FencedError
from tests.faults.checker import read_topic, verify
from tests.faults.cluster import Cluster, wait_for
from tests.faults.evidence import Story, metrics, story
from tests.faults.make_model import write_model
from tests.faults.names import PARTITIONS, Names
from tests.faults.processes import Crew
from tests.faults.torture import worker_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]

WAIT_S = 60.0
STOP_S = 20.0
RATE = 1_500
SCORE_CLOSE = 1e-6


@dataclass
class Group:
    """A run with its processes; ends them all."""

    crew: Crew
    cluster: Cluster

    @staticmethod
    def of(bootstrap: str, names: Names, folder: Path, protocol: str, *, static: bool = False) -> Group:
        write_model(folder / "models")
        crew = Crew(bootstrap, names, folder, worker_environment=worker_environment(protocol), http="127.0.0.1:0", static=static)
        cluster = Cluster(bootstrap, names)
        cluster.create_topics()
        return Group(crew, cluster)

    def stories(self) -> dict[int, Story]:
        return {slot: story(child.log) for slot, child in self.crew.workers.items()}

    def wait_until_whole(self) -> None:
        """Every worker is a member and reads all of its partitions."""

        def whole() -> bool:
            stories = self.stories().values()
            owned = sorted(p for told in stories for p in told.owned)
            reading = all(told.owned and not told.restoring for told in stories)
            return self.cluster.members() == len(self.crew.workers) and owned == list(range(PARTITIONS)) and reading

        wait_for("every worker reading its partitions", whole, WAIT_S, 0.1)

    def wait_until_all_advance(self) -> None:
        """Each partition gets a commit that it does not have yet."""
        before = self.cluster.committed()

        def further() -> bool:
            now = self.cluster.committed()
            return len(now) == PARTITIONS and all(now[p] > before.get(p, -1) for p in now)

        wait_for("a commit on every partition", further, WAIT_S, 0.1)

    def predictions(self) -> dict[str, dict[str, Any]]:
        """Committed predictions by id, without what depends on the moment."""
        found = {}
        for record in read_topic(self.crew.bootstrap, self.cluster.names.predictions):
            body = json.loads(record.value or b"")
            assert body["id"] not in found, f"{body['id']} was predicted twice"
            found[body["id"]] = {name: value for name, value in body.items() if name != "latency_ms"}
        return found


@pytest.fixture(params=["classic", pytest.param("consumer", marks=pytest.mark.again)])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _names(word: str) -> Names:
    return Names(f"{word}-{os.getpid()}-{time.monotonic_ns() % 10**9}")


@pytest.fixture
def group(kafka: str, tmp_path: Path, protocol: str) -> Iterator[Group]:
    group = Group.of(kafka, _names("replicas"), tmp_path, protocol)
    yield group
    group.crew.bury()


def test_one_three_two_replicas_give_what_one_gives(group: Group, kafka: str, tmp_path: Path, protocol: str) -> None:
    crew, cluster = group.crew, group.cluster
    crew.start_worker(0)
    wait_for("the first worker", lambda: cluster.members() == 1, WAIT_S)
    load = {"events": RATE * 120, "seconds": 120, "seed": 7, "keys": 150, "bad-share": 0.01}
    generator = crew.start_module("generator", *(word for k, v in load.items() for word in (f"--{k}", str(v))))
    group.wait_until_all_advance()

    for slot in (1, 2):
        crew.start_worker(slot)
    group.wait_until_whole()
    grown = group.stories()
    group.wait_until_all_advance()
    assert crew.workers[2].stop(STOP_S) == 0, crew.workers[2].tail()
    del crew.workers[2]
    group.wait_until_whole()
    shrunk = group.stories()
    group.wait_until_all_advance()

    generator.send(signal.SIGTERM)
    wait_for("the generator's end", lambda: not generator.running, WAIT_S)
    wait_for("lag and open transactions reaching zero", cluster.settled, WAIT_S)
    page = metrics(shrunk[0].address)
    for child in crew.workers.values():
        assert child.stop(STOP_S) == 0, child.tail()
    verdict = verify(kafka, cluster.names, crew.model, None)
    assert not verdict.kinds, verdict.first

    _moved_only_what_must(grown, shrunk)
    assert page['streamer_rebalances_total{kind="revoked"}'] >= len(shrunk[0].given)
    assert page["streamer_rebalance_stall_seconds_total"] > 0
    assert "streamer_rows_redone_total" in page
    _same(group.predictions(), _alone(kafka, cluster.names, tmp_path / "alone", protocol))
    cluster.delete_topics()


def _moved_only_what_must(grown: dict[int, Story], shrunk: dict[int, Story]) -> None:
    """From one worker to three, then to two, with eight partitions."""
    first = grown[0]
    assert first.taken == [list(range(PARTITIONS))]  # nothing it gave away came back
    # What it kept was never interrupted by the rebalance; a transaction undone meanwhile begins all it holds once more.
    assert first.started == PARTITIONS or first.undone
    gone = [p for told in grown.values() for call in told.given for p in call]
    # Even shares are 3, 3 and 2: five partitions must leave the first worker, and six moves do when they join in turn.
    assert 5 <= len(gone) <= 6, gone
    for slot, before in grown.items():
        if slot in shrunk:
            assert shrunk[slot].given == before.given  # who stays gives nothing away
            assert shrunk[slot].owned - before.owned <= grown[2].owned
    assert sum(len(told.owned) for told in shrunk.values()) == PARTITIONS


def _alone(kafka: str, names: Names, folder: Path, protocol: str) -> dict[str, dict[str, Any]]:
    """The predictions of one replica that reads the same input from its beginning to its end."""
    alone = Group.of(kafka, Names(f"{names.prefix}-alone", names.prefix), folder, protocol)
    try:
        worker = alone.crew.start_worker(0)
        wait_for("one replica reading everything", alone.cluster.settled, WAIT_S)
        assert worker.stop(STOP_S) == 0, worker.tail()
        return alone.predictions()
    finally:
        alone.crew.bury()
        alone.cluster.delete_topics()


def _same(found: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> None:
    """Ids and features exactly, scores but for the rounding of another batch size."""
    assert found.keys() == wanted.keys()
    for where, body in found.items():
        other = wanted[where]
        assert body["score"] == pytest.approx(other["score"], rel=SCORE_CLOSE), where
        assert {**body, "score": 0} == {**other, "score": 0}, where


def test_a_static_member_that_restarts_moves_nothing(kafka: str, tmp_path: Path, protocol: str) -> None:
    group = Group.of(kafka, _names("static"), tmp_path, protocol, static=True)
    crew = group.crew
    try:
        for slot in (0, 1):
            crew.start_worker(slot)
        group.wait_until_whole()
        before = group.stories()
        assert crew.workers[0].stop(STOP_S) == 0, crew.workers[0].tail()
        crew.start_worker(0)
        group.wait_until_whole()
        after = group.stories()
        assert after[0].owned == before[0].owned
        assert (after[1].taken, after[1].given) == (before[1].taken, before[1].given)
    finally:
        crew.bury()
        group.cluster.delete_topics()


@pytest.mark.parametrize("protocol", ["classic", pytest.param("consumer", marks=pytest.mark.again)])
def test_two_replicas_with_one_name_do_not_both_go_on(kafka: str, tmp_path: Path, protocol: str) -> None:
    """Under `classic` the newcomer takes the name, under `consumer` its holder keeps it; never is one of them just idle."""
    group = Group.of(kafka, _names("name"), tmp_path, protocol, static=True)
    crew = group.crew
    try:
        first = crew.start_worker(0)
        group.wait_until_whole()
        second = crew.start_worker(0)
        loser, winner = (first, second) if protocol == "classic" else (second, first)
        assert loser.process.wait(WAIT_S) == FencedError.exit_code, loser.tail()
        assert "group.instance.id" in loser.tail()
        crew.workers[0] = winner
        group.wait_until_whole()
    finally:
        crew.bury()
        group.cluster.delete_topics()
