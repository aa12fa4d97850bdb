"""Missing values through a real broker: readings that are null, a kill in between, every window recomputed."""

import os
import time
from pathlib import Path

import pytest

from tests.faults.checker import read_topic, verify
from tests.faults.cluster import Cluster, wait_for
from tests.faults.generator import Generator, Load
from tests.faults.make_model import write_model
from tests.faults.names import Names
from tests.faults.processes import Crew

EVENTS = 4_000


@pytest.mark.timeout(170)
def test_a_reading_without_a_value_counts_once_as_one(kafka: str, tmp_path: Path) -> None:
    names = Names(f"missing-{os.getpid()}-{time.monotonic_ns() % 10**9}", flow="missing")
    cluster, crew = Cluster(kafka, names), Crew(kafka, names, tmp_path)
    crew.worker_environment = {"KAFKA_SESSION_TIMEOUT_MS": "6000"}
    write_model(tmp_path / "models")
    cluster.create_topics()
    try:
        first = crew.start_worker(0)
        wait_for("the group becoming stable", lambda: cluster.members() == 1, 60.0)
        Generator(kafka, names, Load(events=EVENTS // 2, seconds=2.0, keys=40, bad_share=0.02, seed=5)).run()
        first.kill()
        Generator(kafka, names, Load(events=EVENTS // 2, seconds=2.0, keys=40, bad_share=0.02, seed=6)).run()
        second = crew.start_worker(0)
        wait_for("lag and open transactions reaching zero", cluster.settled, 90.0)
        assert second.stop(20.0) == 0, second.tail()
        verdict = verify(kafka, names, crew.model, None)
    finally:
        crew.bury()
    assert verdict.kinds == {}, verdict.first
    assert verdict.good > EVENTS / 2
    assert verdict.bad > 10
    without = [record for record in read_topic(kafka, names.input) if b'"value": null' in (record.value or b"")]
    assert len(without) > EVENTS / 10
    cluster.delete_topics()
