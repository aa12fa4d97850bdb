"""What a worker does to the cluster, and when: asks about topics as it is made, is let in by `open`, a member by `start`."""

from pathlib import Path

import pytest

from streamer.clock import ManualClock
from streamer.kafka.memory_log import MemoryLog
from streamer.planning.plan import plan_of
from streamer.settings.settings import Settings
from streamer.testing import stand_in
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker
from tests.kit import flows
from tests.kit.faulty import FaultyClients, Script


def made(guarantee: str) -> tuple[Worker, FaultyClients, Script]:
    clock, script = ManualClock(), Script()
    clients = FaultyClients(MemoryLog(1, clock), script)
    settings = Settings.load(None, bootstrap="nowhere:1", guarantee=guarantee)
    (flow,) = plan_of(flows.topology(), settings, Path(), model=stand_in(flows.score)).flows
    return Worker(parts_of(flow, settings, clients=clients, clock=clock)), clients, script


@pytest.mark.parametrize(("guarantee", "inits"), [("exactly-once", 1), ("at-least-once", 0)])
def test_nobody_is_fenced_and_no_group_is_joined_before_its_time(guarantee: str, inits: int) -> None:
    worker, clients, script = made(guarantee)
    group = clients.consumers[0]
    assert script.calls["init"] == 0, "another worker with this id was fenced by one that does not run yet"
    worker.open()
    assert script.calls["init"] == inits
    assert group._topics == []
    worker.start()
    assert script.calls["init"] == inits, "open asks once"
    assert group._topics == [flows.SOURCE]
    worker.close()
