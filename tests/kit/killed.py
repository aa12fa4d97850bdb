"""A flow of the fault tests on a broker: its worker is killed half way, another one ends it, and all of it is recomputed."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.faults.checker import verify
from tests.faults.cluster import Cluster, wait_for
from tests.faults.generator import Generator, Load
from tests.faults.make_model import write_model
from tests.faults.names import Names
from tests.faults.processes import Crew

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.checker import Verdict
    from tests.faults.names import Flow

EVENTS = 4_000


@contextmanager
def killed_half_way(flow: Flow, kafka: str, folder: Path, *, bad_share: float, seed: int) -> Iterator[tuple[Names, Verdict]]:
    """Names of the topics, which are there within, and what the checker says when all events have been through."""
    names = Names(f"{flow}-{os.getpid()}-{time.monotonic_ns() % 10**9}", flow=flow)
    cluster, crew = Cluster(kafka, names), Crew(kafka, names, folder)
    crew.worker_environment = {"KAFKA_SESSION_TIMEOUT_MS": "6000"}
    write_model(folder / "models")
    cluster.create_topics()

    def half(number: int) -> None:
        load = Load(events=EVENTS // 2, seconds=2.0, keys=40, bad_share=bad_share, seed=seed + number)
        Generator(kafka, names, load).run()

    try:
        first = crew.start_worker(0)
        wait_for("the group becoming stable", lambda: cluster.members() == 1, 60.0)
        half(0)
        first.kill()
        half(1)
        second = crew.start_worker(0)
        wait_for("lag and open transactions reaching zero", cluster.settled, 90.0)
        assert second.stop(20.0) == 0, second.tail()
        verdict = verify(kafka, names, crew.model, None)
    finally:
        crew.bury()
    assert verdict.kinds == {}, verdict.first
    assert verdict.good > EVENTS / 2
    assert verdict.bad > 10
    yield names, verdict
    cluster.delete_topics()
