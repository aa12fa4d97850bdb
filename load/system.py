"""A system under test as a process of its own: started, watched from outside and stopped, all systems alike."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from load.log import Log

ROOT = Path(__file__).resolve().parent.parent
READY_S = 120.0
STOP_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class System(ABC):
    """Reads `source`, writes `predictions`, commits as `group`; everything it makes is named after its group.

    As a context manager it is set up and started, and at the end stopped and its topics deleted. In between it may be
    stopped and started again.

    Raises:
        RuntimeError: it ended by itself or did not become a settled group in time; with the end of its log.
    """

    def __init__(self, log: Log, name: str, source: str, scratch: Path, root: Path = ROOT) -> None:
        self.log, self.source, self.root = log, source, root
        self.group = f"load-{name}-{time.time_ns()}"
        self.predictions = f"{self.group}-predictions"
        self.output = scratch / f"{self.group}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def set_up(self) -> None:
        """Make the topics it needs."""

    @abstractmethod
    def command(self) -> list[str]:
        """How it is started; asked at every start."""

    def environment(self) -> dict[str, str]:
        """What its environment has besides ours."""
        return {}

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    def __enter__(self) -> Self:
        self.set_up()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        status = self.stop()
        self.log.delete([topic for topic in self.log.topics() if topic.startswith(self.group)])
        if kind is None and status != 0:
            raise RuntimeError(f"{self.group} answered SIGTERM with exit status {status}:\n{self.tail()}")

    def start(self) -> None:
        """Start the process; its log goes on in the same file."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(), cwd=self.root, env={**os.environ, **self.environment()}, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_until_settled(self) -> None:
        """Return once it owns its partitions."""
        deadline = time.monotonic() + READY_S
        while not self.log.wait_for_members(self.group, 1.0):
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.group} did not join its group in {READY_S:.0f} s:\n{self.tail()}")

    def check(self) -> None:
        """Raise if the process is no longer running."""
        assert self._process is not None, "not started"
        if (status := self._process.poll()) is not None:
            raise RuntimeError(f"{self.group} ended by itself with status {status}:\n{self.tail()}")

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

    def peak_rss_bytes(self) -> int:
        """The most resident memory it had since its start, start-up included."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024

    def cpu_s(self) -> float:
        """Processor time the process has used since its start, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])
