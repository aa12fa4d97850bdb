"""Brokers that `streamer dev broker start` leaves behind, one a port: who they are, whether they live, how to end them."""

import fcntl
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from streamer.dev_broker.errors import BrokerError
from streamer.dev_broker.jars import cache_folder


@dataclass(frozen=True, slots=True)
class Detached:
    """What one command has to know of a broker that another command started."""

    pid: int
    bootstrap: str
    data: Path
    log: Path

    @classmethod
    def running(cls, port: int | None = None) -> list[Self]:
        """The brokers that run now, or the one on a port; a record left by a crash counts as none."""
        found = []
        for record in sorted(cache_folder().glob("broker*.json")):
            try:
                broker = msgspec.json.decode(record.read_bytes(), type=cls, dec_hook=_path)
            except (FileNotFoundError, msgspec.MsgspecError):
                continue
            if broker.alive and port in (None, broker.port):
                found.append(broker)
        return found

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.bootstrap.rpartition(":")[2])

    def write(self) -> None:
        """Remember this broker for the next command; the file appears whole or not at all."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._record.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(self, enc_hook=str))
        fresh.replace(self._record)

    @property
    def _record(self) -> Path:
        return cache_folder() / f"broker-{self.port}.json"

    @property
    def alive(self) -> bool:
        """True while the broker's process holds the lock it inherited; immune to a process id used again."""
        try:
            with (self.data / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def stop(self, timeout_s: float = 30) -> None:
        """End it in order; after `timeout_s` with SIGKILL. Its data stays."""
        for sign, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
            deadline = time.monotonic() + patience_s
            if self.alive:
                os.kill(self.pid, sign)
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.05)
        if self.alive:
            raise BrokerError(f"process {self.pid} does not end even after SIGKILL; its log is {self.log}")
        self._record.unlink(missing_ok=True)


def default_data(port: int | None) -> Path:
    """Where `streamer dev broker start` keeps the data of the broker on a port, None for the usual one, unless told otherwise."""
    return cache_folder() / ("broker" if port is None else f"broker-{port}")


def _path(_: type, value: str) -> Path:
    return Path(value)
