"""One scripted fault against one or two workers, small enough for a test: what the checker says of it.

The fault is carried out inside the worker by `mutants.py` at an exact commit, so that it hits every time; a worker
that it killed is started again, one that it stopped goes on once the group has given its partitions away.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import IsolationLevel

from tests.faults.checker import verify
from tests.faults.cluster import Cluster, TimedOutError, wait_for
from tests.faults.evidence import is_stopped, nothing_waits, story
from tests.faults.generator import Generator, Load
from tests.faults.make_model import write_model
from tests.faults.mutants import FAULT_VARIABLE, HIT
from tests.faults.names import IDLE_VARIABLE, JOIN_LATE_VARIABLE, PARTITIONS, Flow, Names
from tests.faults.processes import Child, Crew

if TYPE_CHECKING:
    from pathlib import Path

SESSION_MS = 2_500  # or the broker's minimum: how long a dead or stopped member keeps its partitions
START_S = 60.0
SETTLE_S = 40.0
SETTLE_WITH_A_BUG_S = 12.0  # some bugs leave a lag for ever; the log already shows what they did
STOP_S = 20.0
IDLE_S = 2.0
# Silence is only what a worker has listened to, and a first fetch may start late: on a busy machine a tick takes its time.
QUIET_S = 5 * IDLE_S
LOAD = Load(events=2_500, seconds=4.0, keys=40, bad_share=0.01, seed=5)
UNSETTLED = "unsettled"


@dataclass(slots=True)
class Ending:
    """How a scenario ended.

    Attributes:
        hit: whether all of the scripted fault happened.
        kinds: the checker's violations by name; `unsettled` if lag or open transactions never went away.
        detail: for the person who reads a failed test.
    """

    hit: bool = False
    kinds: set[str] = field(default_factory=set)
    detail: str = ""


class Scenario:
    """Runs `mutant` under `fault` on this broker."""

    def __init__(self, bootstrap: str, folder: Path, mutant: str, fault: str, flow: Flow = "rolling") -> None:
        self._names = Names(f"{mutant}-{os.getpid()}-{time.monotonic_ns() % 10**9}", flow=flow)
        self._bootstrap = bootstrap
        self._cluster = Cluster(bootstrap, self._names)
        command = (sys.executable, "-m", "tests.faults.mutants", mutant)
        session_ms = max(SESSION_MS, self._cluster.session_ms_min())
        speed = {"KAFKA_SESSION_TIMEOUT_MS": str(session_ms), "KAFKA_HEARTBEAT_INTERVAL_MS": str(session_ms // 4)}
        speed["KAFKA_FETCH_WAIT_MAX_MS"] = "50"
        speed |= {JOIN_LATE_VARIABLE: "1s", IDLE_VARIABLE: f"{IDLE_S:g}s", "STREAMER_KEYS_MAX": "2000"}
        speed["STREAMER_STATE_MEMORY"] = "8GiB"
        self._crew = Crew(bootstrap, self._names, folder, command, speed, http="127.0.0.1:0" if flow == "joined" else "off")
        self._fault = fault
        self._settle_s = SETTLE_S if mutant == "none" or flow == "closing" else SETTLE_WITH_A_BUG_S
        self._seen: object = None
        self._since = 0.0

    def play(self) -> Ending:
        """Set up, load, fault, heal, judge."""
        ending = Ending()
        try:
            write_model(self._crew.folder / "models")
            self._cluster.create_topics()
            faulty = self._start(0, self._fault)
            workers = [faulty, *([self._start(1, "")] if self._fault.startswith("pause") else [])]
            wait_for("the group becoming stable", lambda: self._cluster.members() == len(workers), START_S)
            Generator(self._bootstrap, self._names, LOAD).run()
            self._heal(ending)
            self._judge(ending)
            hits = faulty.log.read_text(errors="replace").count(HIT)
            ending.hit = hits == len(self._fault.split("+"))
            ending.detail += "\n" + "\n".join(child.tail() for child in {faulty.log: faulty, **self._now()}.values())
        finally:
            self._crew.bury()
        self._cluster.delete_topics()
        return ending

    def _now(self) -> dict[Path, Child]:
        return {child.log: child for child in self._crew.workers.values()}

    def _start(self, slot: int, fault: str) -> Child:
        self._crew.worker_environment = {**self._crew.worker_environment, FAULT_VARIABLE: fault}
        return self._crew.start_worker(slot)

    def _heal(self, ending: Ending) -> None:
        def healed() -> bool:
            for slot, child in list(self._crew.workers.items()):
                if not child.running:
                    self._start(slot, "")
                elif is_stopped(child.process.pid) and self._replaced():
                    child.send(signal.SIGCONT)
            return self._cluster.settled() and nothing_waits(self._crew) and self._all_closed()

        try:
            wait_for("lag and open transactions reaching zero", healed, self._settle_s)
        except TimedOutError as error:
            ending.kinds.add(UNSETTLED)
            ending.detail += str(error)
        for child in self._crew.workers.values():
            child.stop(STOP_S)

    def _all_closed(self) -> bool:
        """Whether the same workers read their partitions for so long, and nothing new was written, that all windows closed.

        A worker that died is a member until its session ends; only the log of the next one says when it reads.
        """
        if self._names.flow != "closing":
            return True
        ends = self._cluster.ends(self._names.outputs, IsolationLevel.READ_UNCOMMITTED)
        told = [story(child.log) for child in self._crew.workers.values()]
        reading = sum(len(worker.owned - worker.restoring) for worker in told)
        seen = (ends, reading, [worker.started for worker in told])
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return reading == PARTITIONS and time.monotonic() - self._since > QUIET_S

    def _replaced(self) -> bool:
        """Whether the group has given a stopped worker's partitions away and done its work."""
        return self._cluster.members() == len(self._crew.workers) - 1 and self._cluster.lag() == 0

    def _judge(self, ending: Ending) -> None:
        verdict = verify(self._bootstrap, self._names, self._crew.model, None)
        ending.kinds |= verdict.kinds.keys()
        ending.detail += "\n".join(("", *verdict.first[:8]))
