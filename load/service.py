"""The service as a user sets it up and starts it, on topics of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from load.log import Log
from load.system import ROOT, System


@dataclass(frozen=True)
class Flow:
    """What is started.

    Attributes:
        name: of the topology in `load/topology.py`.
        guarantee: exactly-once or at-least-once.
        module: what `python -m` runs; another one than `streamer` changes the service and says so.
        environment: settings that the topology needs, as a user would set them.
        root: the tree whose service and topology these are.
    """

    name: str = "bench"
    guarantee: str = "exactly-once"
    module: str = "streamer"
    environment: Mapping[str, str] = field(default_factory=dict)
    root: Path = ROOT


# Room for a million keys: limits, not amounts taken.
WIDE = Flow("wide", environment={"STREAMER_KEYS_MAX": "1100000", "STREAMER_STATE_MEMORY": "4GiB"})


class Service(System):
    """`streamer topics create`, then `streamer run load/topology.py:NAME` with a fresh group."""

    def __init__(self, log: Log, flow: Flow, source: str, models: Path, scratch: Path) -> None:
        super().__init__(log, flow.name, source, scratch, flow.root)
        self.flow, self.models = flow, models
        self._where = ["--bootstrap", log.bootstrap, "--group", self.group]

    def set_up(self) -> None:
        """Make its topics, with the configuration it wants for each."""
        partitions = ["--partitions", str(self.log.partitions(self.source))]
        words = [sys.executable, "-m", "streamer", "topics", "create", self._topology, *self._where, *partitions]
        environment = {**os.environ, **self.environment()}
        made = subprocess.run(words, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=60)
        if made.returncode:
            raise RuntimeError(f"streamer topics create failed:\n{made.stderr[-2_000:]}")
        self.log.partitions(self.predictions)

    def command(self) -> list[str]:
        """`streamer run` with its defaults."""
        options = ["--guarantee", self.flow.guarantee, "--models", str(self.models), "--http", "off"]
        return [sys.executable, "-m", self.flow.module, "run", self._topology, *self._where, *options]

    def environment(self) -> dict[str, str]:
        """Topics of its own, and the settings of the flow."""
        kinds = {"LOAD_PREDICTIONS": "predictions", "LOAD_ANOMALIES": "anomalies", "LOAD_DEAD_LETTERS": "dead"}
        kinds["LOAD_REJECTED"] = "dead"  # what older commits call it, beside which `load.pairs` runs this one
        topics = {name: f"{self.group}-{kind}" for name, kind in kinds.items()}
        return {**self.flow.environment, **topics, "LOAD_SOURCE": self.source}

    @property
    def _topology(self) -> str:
        return f"load/topology.py:{self.flow.name}"
