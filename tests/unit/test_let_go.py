"""Clients that were replaced are let go at once, and not when Python's collector looks for cycles, which it hardly does.

One that stays keeps its threads and connections, and takes in statistics that nobody reads: 10 MiB a minute in a soak.
"""

import gc
import weakref
from collections.abc import Iterator

import pytest

from streamer.limits import COMMIT_STUCK_S
from tests.kit import flows
from tests.kit.faulty import FaultTest, FaultyClients, FaultyProducer, short_waits
from tests.kit.inside import InsideTest

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def send(test: InsideTest) -> None:
    for n in range(5):
        test.send_bytes(flows.SOURCE, b"a", flows.value_of("a", test.now, float(n)))


def left(clients: list[FaultyProducer]) -> int:
    """How many are alive when the double that made them forgets them."""
    known = [weakref.ref(client) for client in clients]
    clients.clear()
    return sum(each() is not None for each in known)


CALLS = ["begin", "produce_changelog", "offsets", "commit", "abort"]
FAILURES = [(call, kind) for call in CALLS for kind in ("fatal", "fenced")]
FAILURES += [("commit", "lost_answer"), ("offsets", "lost_answer")]


@pytest.mark.parametrize(("call", "kind"), FAILURES)
def test_a_producer_that_was_replaced(call: str, kind: str) -> None:
    with FaultTest(flows.topology(), models=flows.score, partitions=1) as test:
        for _ in range(2):  # the third fence within a minute would end it
            if call == "abort":
                test.script.fail_next("commit", "abortable")
            test.script.fail_next(call, kind)
            send(test)
            test.run()
        made = len(test.clients.producers)
        assert made > 1, "none was replaced"
        send(test)
        test.run()
        assert left(test.clients.producers) == 1


def test_the_producer_of_a_commit_that_was_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread comes back some time with a failure that nobody asks for."""
    monkeypatch.setattr(FaultyClients, "commit_stuck_s", COMMIT_STUCK_S)
    with FaultTest(flows.topology(), models=flows.score, partitions=1) as test:
        send(test)
        test.run()
        test.commits_held = True
        send(test)
        test.turns(20)
        test.commits_held = False
        test.clock.advance(COMMIT_STUCK_S)
        test.turns(3)
        assert test.worker.metrics.value("streamer_recoveries_total", "stuck") == 1
        test.release()
        test.settle()
        assert len(test.clients.producers) == 2
        assert left(test.clients.producers) == 1
