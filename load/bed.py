"""Where measurements are made: a broker, a model repository, a place for logs, and how much is measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load.log import Log
from load.service import Flow, Service

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    events: int = 2_000_000
    runs: int = 3
    rate: float = 20_000.0
    warmup_s: float = 10.0
    measured_s: float = 30.0
    keys_many: int = 1_000_000


QUICK = Size(events=200_000, runs=1, warmup_s=3.0, measured_s=7.0, keys_many=100_000)


@dataclass(frozen=True)
class Bed:
    """What every measurement needs."""

    log: Log
    models: Path
    scratch: Path
    size: Size

    def service(self, flow: Flow, source: str) -> Service:
        """The service on this broker; not started yet."""
        return Service(self.log, flow, source, self.models, self.scratch)


def say(*words: str) -> None:
    """Progress, one line per run."""
    print(" ".join(words), flush=True)
