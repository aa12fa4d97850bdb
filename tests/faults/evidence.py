"""What a worker's own log and the kernel say of it, read from outside while it stands still."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.processes import Crew


@dataclass(frozen=True, slots=True)
class Start:
    """A partition whose state is restored: when, up to which commit of it, and how many samples were read for that."""

    at: str
    partition: int
    commit: int
    rows: int


@dataclass(slots=True)
class Story:
    """A worker's life up to now, from its log.

    Attributes:
        owned: input partitions it has.
        restoring: those of them that it does not read yet.
        taken: partitions in the order in which they were assigned, call by call; empty calls left out.
        given: the same for those revoked or lost.
        starts: each time that a partition's first row could be read.
        undone: causes of its rollbacks, in order; "lost" where the group gave its partitions away.
        address: where it serves metrics, if it does.
    """

    owned: set[int] = field(default_factory=set)
    restoring: set[int] = field(default_factory=set)
    taken: list[list[int]] = field(default_factory=list)
    given: list[list[int]] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    address: str = ""

    @property
    def started(self) -> int:
        """How often a partition's first row could be read."""
        return len(self.starts)

    def add(self, line: dict[str, Any]) -> None:
        """Take one line of the log into account."""
        event, partitions = line.get("event"), line.get("partitions")
        if event == "partitions_assigned" and partitions:
            self.taken.append(partitions)
            self.owned |= set(partitions)
            self.restoring |= set(partitions)
        elif event in {"partitions_revoked", "partitions_lost"} and partitions:
            self.given.append(partitions)
            self.owned -= set(partitions)
            self.restoring -= set(partitions)
            if event == "partitions_lost":
                self.undone.append("lost")
        elif event == "partition_started":
            self.starts.append(Start(line["timestamp"], line["partition"], line["commit"], line["restored_rows"]))
            self.restoring.discard(line["partition"])
        elif event == "rolling_back":
            self.undone.append(line["cause"])
            self.restoring |= self.owned
        elif event == "listening":
            self.address = f"{line['host']}:{line['port']}"


def story(log: Path, lead: str = "") -> Story:
    """Read a worker's log as far as it is written; of several flows in one process, the one that subscribes to `lead`."""
    told = Story()
    for line in _lines(log):
        if lead and line.get("topic", lead) != lead:
            continue
        told.add(line)
    return told


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    for text in log.read_text(errors="replace").splitlines():
        if text.startswith("{"):
            try:
                yield json.loads(text)
            except ValueError:
                continue  # the line that is being written


def metrics(address: str) -> dict[str, float]:
    """What a worker's page says, labels included in the names."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
        lines = [line for line in page.read().decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def nothing_waits(crew: Crew) -> bool:
    """Whether no row waits for another input; true for flows without joins. Its workers must serve metrics."""
    if crew.names.flow != "joined":
        return True
    addresses = [story(child.log).address for child in crew.workers.values()]
    return all(address and metrics(address)['streamer_join_rows_waiting{step="join-1"}'] == 0 for address in addresses)


def is_stopped(pid: int) -> bool:
    """Whether a process stands still after SIGSTOP (state T)."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state[0] == "T"
