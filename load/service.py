"""The service as a process of its own, started the way a user starts it, on topics of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from load.log import Log

ROOT = Path(__file__).resolve().parent.parent
READY_S = 120.0
STOP_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Service:
    """`streamer run load/topology.py:NAME` with a fresh group and fresh output topics, as a context manager.

    Raises:
        RuntimeError: it ended by itself or did not become a settled group in time; with the end of its log.
    """

    def __init__(self, log: Log, name: str, source: str, guarantee: str, models: Path, scratch: Path) -> None:
        self.log, self.name, self.source, self.guarantee, self.models = log, name, source, guarantee, models
        self.group = f"load-{name}-{time.time_ns()}"
        self.predictions = f"{self.group}-predictions"
        self.output = scratch / f"{self.group}.log"
        self.outputs = [f"{self.group}-{kind}" for kind in ("predictions", "anomalies", "rejected")]
        self.outputs.append(f"{self.group}-{name}-window-changelog")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the service."""
        assert self._process is not None, "not started"
        return self._process.pid

    def __enter__(self) -> "Service":
        self.log.create(*self.outputs, partitions=self.log.partitions(self.source))
        names = ("LOAD_PREDICTIONS", "LOAD_ANOMALIES", "LOAD_REJECTED")
        topics = dict(zip(names, self.outputs, strict=False))
        options = {
            "--bootstrap": self.log.bootstrap,
            "--group": self.group,
            "--guarantee": self.guarantee,
            "--models": str(self.models),
            "--http": "off",
        }
        words = [word for option in options.items() for word in option]
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamer", "run", f"load/topology.py:{self.name}", *words],
                cwd=ROOT,
                env={**os.environ, **topics, "LOAD_SOURCE": self.source},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        status = self.stop()
        self.log.delete(self.outputs)
        if kind is None and status != 0:
            raise RuntimeError(f"the service answered SIGTERM with exit status {status}:\n{self.tail()}")

    def wait_until_settled(self) -> None:
        """Return once the service owns its partitions."""
        deadline = time.monotonic() + READY_S
        while not self.log.wait_for_members(self.group, 1.0):
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the service did not join its group in {READY_S:.0f} s:\n{self.tail()}")

    def check(self) -> None:
        """Raise if the service is no longer running."""
        assert self._process is not None, "not started"
        if (status := self._process.poll()) is not None:
            raise RuntimeError(f"the service ended by itself with status {status}:\n{self.tail()}")

    def stop(self) -> int:
        """Send SIGTERM and return the exit status; killed after a minute."""
        assert self._process is not None, "not started"
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def rss_bytes(self) -> int:
        """Resident memory of the process."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def cpu_s(self) -> float:
        """Processor time the process has used since its start, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def tail(self, lines: int = 30) -> str:
        """The end of the service's log."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])
