"""The processes of one run: workers by slot, generator, reader; started, signalled and buried by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.dev_broker.process import Guard
from streamer.first_instant import stops_held
from tests.faults.names import PREFIX_VARIABLE, SOURCE_VARIABLE, Names

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
TOPOLOGIES = {
    "rolling": "tests/faults/topology.py:torture",
    "joined": "tests/faults/topology_joined.py:torture",
    "closing": "tests/faults/topology_closing.py:torture",
    "rekeyed": "tests/faults/topology_rekeyed.py:torture",
    "stateless": "tests/faults/topology_stateless.py:torture",
    "raw": "tests/faults/topology_raw.py:torture",
    "missing": "tests/faults/topology_missing.py:torture",
}
TAIL_LINES = 30
STACKS_S = 10.0
NOISE = "Connection refused"


@dataclass(slots=True)
class Child:
    """One process and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.process.pid, number)

    def stop(self, timeout_s: float) -> int:
        """SIGTERM, then wait.

        Returns:
            The exit status; -6 if the time ran out: it was made to write its threads' stacks into its log and die.
        """
        self.send(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.abort()
            return self.process.wait()

    def abort(self) -> str:
        """Let it write its threads' stacks into its log and die.

        Returns:
            The end of that log.
        """
        self.send(signal.SIGABRT)
        self.send(signal.SIGCONT)
        try:
            self.process.wait(STACKS_S)
        except subprocess.TimeoutExpired:
            self.kill()
        return self.tail()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()

    def tail(self) -> str:
        """The last lines it wrote."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if NOISE not in line]
        return "\n".join(f"    {self.name}| {line[:600]}" for line in lines[-TAIL_LINES:])


@dataclass(slots=True)
class Crew:
    """Starts the processes of one run and makes sure that none outlives it.

    Attributes:
        http: where workers serve metrics; port 0 takes a free one.
        through: address by which workers reach the broker, where it is not that of everybody else.
        root: the tree whose service and topology workers run.
        static: whether each worker is a static member of the group, named by its slot.
    """

    bootstrap: str
    names: Names
    folder: Path
    worker_command: tuple[str, ...] = (sys.executable, "-m", "streamer")
    worker_environment: Mapping[str, str] = field(default_factory=dict)
    http: str = "off"
    static: bool = False
    through: str = ""
    root: Path = ROOT
    workers: dict[int, Child] = field(default_factory=dict)
    _all: list[Child] = field(default_factory=list)
    _guards: list[Guard] = field(default_factory=list)

    @property
    def model(self) -> Path:
        return self.folder / "models" / "torture" / "1" / "model.onnx"

    def start_worker(self, slot: int) -> Child:
        """Start (again) the worker of this slot."""
        flags = ["--slot", str(slot), "--group", self.names.group, "--bootstrap", self.through or self.bootstrap]
        flags += ["--models", str(self.folder / "models"), "--http", self.http]
        member = {"KAFKA_GROUP_INSTANCE_ID": f"replica-{slot}"} if self.static else {}
        command = [*self.worker_command, "run", TOPOLOGIES[self.names.flow], *flags]
        # An older tree, which has no such module, would never ask for the stops that are held back.
        asks = (self.root / "streamer" / "first_instant.py").exists()
        with stops_held() if asks else nullcontext():
            child = self._start(f"worker-{slot}", command, member, self.root)
        self.workers[slot] = child
        return child

    def create_topics(self, partitions: int) -> Child:
        """Make the topics as a user does; the command ends by itself."""
        flags = ["--group", self.names.group, "--bootstrap", self.bootstrap, "--partitions", str(partitions)]
        return self._start("topics", [sys.executable, "-m", "streamer", "topics", "create", TOPOLOGIES[self.names.flow], *flags])

    def start_module(self, module: str, *arguments: str) -> Child:
        """Start one of the rig's own processes."""
        shared = ["--bootstrap", self.bootstrap, "--prefix", self.names.prefix, "--flow", self.names.flow]
        name = "-".join([module, *(a for a in arguments[:1] if not a.startswith("-"))])
        return self._start(name, [sys.executable, "-m", f"tests.faults.{module}", *arguments, *shared])

    def _start(self, name: str, command: list[str], extra: Mapping[str, str] | None = None, root: Path = ROOT) -> Child:
        log = self.folder / f"{len(self._all):02d}-{name}.log"
        environment = {**os.environ, **self.worker_environment, **(extra or {}), PREFIX_VARIABLE: self.names.prefix}
        environment |= {SOURCE_VARIABLE: self.names.source, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=root, env=environment, stdout=out, stderr=subprocess.STDOUT)
        self._guards.append(Guard(process.pid))
        child = Child(name, process, log)
        self._all.append(child)
        return child

    def bury(self) -> None:
        """Kill whatever still runs, stopped processes included."""
        for child, guard in zip(self._all, self._guards, strict=True):
            guard.release()
            if child.running:
                child.kill()
