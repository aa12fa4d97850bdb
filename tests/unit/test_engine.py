"""An engine that is ill or hangs: nothing of the input pays for it, and health says so."""

import math
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.clock import ManualClock
from streamer.inference.model import Features
from streamer.kafka.memory_log import MemoryLog
from streamer.limits import RUN_STUCK_S
from streamer.planning.plan import Plan, plan_of
from streamer.settings.settings import Settings
from streamer.testing import stand_in
from streamer.testing.clients import MemoryClients
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker
from tests.kit import flows
from tests.kit.inside import InsideTest

Floats = NDArray[np.float32]


class Engine:
    """Scores like the stand-in of `flows`, unless told to be ill."""

    def __init__(self) -> None:
        self.illness: str | None = None
        self.calls = 0

    def __call__(self, given: Features) -> Floats:
        self.calls += 1
        if self.illness == "raises":
            raise RuntimeError("device lost")
        return flows.score(given) * np.float32(math.nan if self.illness == "nan" else 1.0)


def send(test: InsideTest, first: int, rows: int = 30) -> None:
    for n in range(first, first + rows):
        test.send_bytes(flows.SOURCE, b"abc"[n % 3 : n % 3 + 1], flows.value_of("abc"[n % 3], test.now, float(n), float(n)))


@pytest.mark.parametrize("illness", ["raises", "nan"])
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_an_ill_engine_costs_no_row_and_is_tried_again_at_growing_intervals(illness: str, guarantee: str) -> None:
    engine = Engine()
    with InsideTest(flows.topology(), models=engine, partitions=2, settings={"guarantee": guarantee}) as test:
        send(test, 0)
        test.run()
        engine.illness = illness
        send(test, 30)
        tries = list(attempts(test, engine, 6))
        assert all(after >= 1.5 * before for before, after in pairwise(tries)), tries
        assert 0.05 <= tries[1] <= 0.2
        assert engine.calls < 60, "an ill engine is asked about the batch and the row it knows, not about every row"
        assert test.log.committed_records(flows.DEAD_LETTERS) == []
        test.worker.turn()  # rolls back, and only then pauses: nothing is left open meanwhile
        ready = test.worker.ready()
        assert ready is not None
        assert "rolled back 6 times in a row: engine: the model refuses every row" in ready
        assert test.worker.live() is None, "a new process would not help an engine that is away"
        engine.illness = None
        test.clock.advance(10.0)
        test.run()
        assert test.worker.ready() is None
        assert flows.judge(test.log).exactly_once


def attempts(test: InsideTest, engine: Engine, times: int) -> Iterator[float]:
    """Seconds before each attempt to score."""
    for _ in range(times):
        calls, started = engine.calls, test.clock.monotonic()
        while engine.calls == calls:
            test.worker.turn()
            test.clock.advance(0.02)
        yield test.clock.monotonic() - started


def test_rows_that_are_bad_all_together_are_not_the_engines_illness() -> None:
    def picky(given: Features) -> Floats:
        if (given["total"] < 0).any():
            raise ValueError("no negative numbers")
        return flows.score(given)

    with InsideTest(flows.topology(), models=picky, partitions=1) as test:
        for value in (1.0, -9.0, -9.0, -9.0):
            test.send(flows.Reading("a", test.now, value))
            test.run()
        assert len(test.log.committed_records(flows.DEAD_LETTERS)) == 3
        assert test.worker.ready() is None


def test_a_stop_does_not_wait_for_the_pause_after_a_refusal() -> None:
    engine = Engine()
    with InsideTest(flows.topology(), models=engine, partitions=1) as test:
        send(test, 0)
        test.run()
        engine.illness = "raises"
        send(test, 30)
        list(attempts(test, engine, 3))
        test.worker.stop()
        test.worker.run()
    assert flows.judge(test.log).missing, "what could not be scored is left to the next start"
    assert test.log.committed_records(flows.DEAD_LETTERS) == []


class Hanging:
    """A worker whose model does not come back until `gate` opens."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.clock = ManualClock()
        self.log = MemoryLog(1, self.clock)
        model = stand_in(self._score)
        model.seconds_per_row = None
        plan = plan_of(flows.topology(), Settings(), Path(), model=model)
        assert isinstance(plan, Plan)
        self.worker = Worker(parts_of(plan, Settings(), clients=MemoryClients(self.log), clock=self.clock))
        self.worker.start()

    def _score(self, given: Features) -> Floats:
        self.entered.set()
        assert self.gate.wait(30.0)
        return flows.score(given)

    def turn(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.worker.turn()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.gate.set()
    made.worker.close()


def test_a_run_that_hangs_shows_in_both_kinds_of_health(hanging: Hanging) -> None:
    hanging.log.append(flows.SOURCE, b"a", flows.value_of("a", hanging.clock.wall_us() / 1e6, 1.0))
    while not hanging.entered.is_set():
        hanging.turn(0.001)
    hanging.turn(RUN_STUCK_S - 1)
    assert hanging.worker.live() is None
    hanging.turn(2.0)
    says = "the model has been at work on 1 rows for 61 s"
    assert (hanging.worker.live(), hanging.worker.ready()) == (says, says)
    hanging.gate.set()
    while not hanging.worker.idle:
        hanging.turn(0.05)
    assert (hanging.worker.live(), hanging.worker.ready()) == (None, None)


def test_a_loop_that_does_not_turn_is_not_ready_either(hanging: Hanging) -> None:
    hanging.turn(0.0)
    hanging.turn(0.0)
    assert hanging.worker.ready() is None
    hanging.clock.advance(200.0)
    assert hanging.worker.ready() == hanging.worker.live() == "the worker's loop has not turned for 200 s"
