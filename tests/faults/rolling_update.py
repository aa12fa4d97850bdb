"""The rolling update: replicas of an older commit are replaced one by one by this tree's, under load, all records checked.

    python -m tests.faults.rolling_update --against 2129746 --flow rolling

Old and new share the partitions of a flow, each takes over what the other one has left, after a kill and in order, and both ways;
the run is INVALID where a way was not gone. The topology is this tree's, put into the words of the older one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import streamer.worker.worker  # noqa: F401 - compiles the kernels once, before several workers would do so beside each other
from load.older import older
from streamer.dev_broker import DevBroker
from tests.faults.cluster import Cluster, wait_for
from tests.faults.evidence import Start, Story, metrics, story
from tests.faults.names import PARTITIONS, Flow, Names
from tests.faults.outcome import Plan
from tests.faults.processes import ROOT, TOPOLOGIES, Child, Crew
from tests.faults.run import Run
from tests.faults.strikes import START_S
from tests.faults.torture import PROTOCOLS, worker_environment
from tests.kit.older_words import words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGAINST = "2129746"
FLOWS: tuple[Flow, ...] = ("rolling", "closing", "joined", "rekeyed")
COMPILE_S = 600.0
# How long they work together, so that each has written to each of its partitions.
SHARED_S = 6.0


@dataclass(frozen=True, slots=True)
class Version:
    """A tree and the settings of its workers, in its own words."""

    name: str
    root: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Life:
    """A worker from its start to its end."""

    version: Version
    child: Child


@dataclass(slots=True)
class Handovers:
    """Partitions that went from one version to the other with something written meanwhile, and the samples that were restored.

    Attributes:
        partitions: "old -> new" and "new -> old", how often.
        rows: the same, samples in all.
    """

    partitions: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, told: Sequence[tuple[str, Story]]) -> Handovers:
        """What the logs of all lives say, each with the name of its version.

        A partition is handed over where a worker restores it up to a later commit than the worker of the other version did
        that had it before: what lies between is the other one's.
        """
        starts: dict[int, list[tuple[Start, str]]] = {}
        for version, one in told:
            for start in one.starts:
                starts.setdefault(start.partition, []).append((start, version))
        found = cls()
        for known in starts.values():
            for (before, giver), (after, taker) in pairwise(sorted(known, key=lambda start: start[0].at)):
                if giver != taker and after.commit > before.commit:
                    found.partitions[f"{giver} -> {taker}"] += 1
                    found.rows[f"{giver} -> {taker}"] += after.rows
        return found

    def __str__(self) -> str:
        ways = (f"{count} {way} ({self.rows[way]} samples restored)" for way, count in sorted(self.partitions.items()))
        return "partitions handed over: " + ", ".join(ways)


class Update(Run):
    """One flow, its workers updated."""

    def __init__(self, plan: Plan, cluster: Cluster, crew: Crew, old: Version, new: Version) -> None:
        super().__init__(plan, cluster, crew)
        self._old, self._new = old, new
        self._lives: list[Life] = []
        self._commits: Counter[str] = Counter()

    def _start_workers(self) -> None:
        for slot in range(self._plan.workers):
            self._start(slot, self._old)
        self._all_read("all replicas being old")

    def _inject(self) -> None:
        """The update, with a kill, a way back, and on."""
        self.strikes.pass_time(SHARED_S)
        self._replace(0, self._new)
        self._count(0)
        self._crew.workers.pop(0).kill()
        self._all_read("the old replica reading what a killed new one had")
        self.strikes.pass_time(SHARED_S)
        self._start(0, self._new)
        self._all_read("a new replica beside the old one")
        self.strikes.pass_time(SHARED_S)
        self._replace(0, self._old)
        for slot in range(self._plan.workers):
            self._replace(slot, self._new)
        self.outcome.faults["update"] += 1

    def _replace(self, slot: int, version: Version) -> None:
        """Stop a worker in order, and start one of that version under its name."""
        self._count(slot)
        self.strikes.expect_clean_exit(slot)
        del self._crew.workers[slot]
        self._all_read(f"the others reading what worker {slot} had")
        self._start(slot, version)
        self._all_read(f"worker {slot} being {version.name}")
        self.strikes.pass_time(SHARED_S)

    def _start(self, slot: int, version: Version) -> None:
        self._crew.root, self._crew.worker_environment = version.root, version.environment
        self._lives.append(Life(version, self._crew.start_worker(slot)))

    def _all_read(self, what: str) -> None:
        """Wait until every worker reads some partitions, and together they read all of them."""

        def reading() -> bool:
            self.strikes.look_around()
            told = [self._story(child) for child in self._crew.workers.values()]
            read = [one.owned - one.restoring for one in told]
            return all(read) and sum(map(len, read)) == PARTITIONS

        wait_for(what, reading, START_S)

    def _story(self, child: Child) -> Story:
        return story(child.log, self._cluster.names.lead)

    def _count(self, slot: int) -> None:
        """Take the commits of a worker into account, whose end is near."""
        child = self._crew.workers[slot]
        (version,) = [life.version.name for life in self._lives if life.child is child]
        page = metrics(story(child.log).address)
        self._commits[version] += int(sum(value for name, value in page.items() if name.startswith("streamer_commits_total")))

    def _stop_workers(self) -> None:
        for slot in self._crew.workers:
            self._count(slot)
        super()._stop_workers()
        self._prove()

    def _prove(self) -> None:
        """Say what was handed over and who committed; what did not happen makes the run invalid."""
        found = Handovers.of([(life.version.name, self._story(life.child)) for life in self._lives])
        old, new = self._old.name, self._new.name
        self.outcome.proofs.append(f"commits: {self._commits[old]} {old}, {self._commits[new]} {new}")
        self.outcome.proofs.append(str(found))
        missing = [way for way in (f"{old} -> {new}", f"{new} -> {old}") if not found.partitions[way]]
        missing += [f"commits of the {version} version" for version in (old, new) if not self._commits[version]]
        self.outcome.unproven += [f"{what}: none" for what in missing]


def prepare(tree: Path) -> None:
    """Compile the kernels of an older tree, and give it the flows of this one."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    compiling = [sys.executable, "-m", "tests.faults.torture", "--help"]
    subprocess.run(compiling, cwd=tree, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=COMPILE_S)
    words = words_of(tree)
    for path in ("tests/faults/names.py", *(TOPOLOGIES[flow].partition(":")[0] for flow in FLOWS)):
        (tree / path).write_text(words.file((ROOT / path).read_text()))


def update(plan: Plan, bootstrap: str, folder: Path, tree: Path, replay: str) -> bool:
    """Update the workers of one flow; whether all went well."""
    names = Names(f"update-{plan.flow}-{plan.seed}-{os.getpid()}", flow=plan.flow)
    cluster = Cluster(bootstrap, names)
    environment = worker_environment(plan.protocol)
    old = Version("old", tree, words_of(tree).environment(environment))
    crew = Crew(bootstrap, names, folder, http="127.0.0.1:0")
    outcome = Update(plan, cluster, crew, old, Version("new", ROOT, environment)).go()
    if outcome.green:
        cluster.delete_topics()
    sys.stdout.write(f"{outcome.report(replay)}\n  logs: {folder}\n")
    sys.stdout.flush()
    return outcome.green


def main() -> int:
    parser = argparse.ArgumentParser(description="Replace workers of an older commit by this tree's, one by one, under load.")
    parser.add_argument("--against", default=AGAINST, metavar="COMMIT", help=f"the older one, by default {AGAINST}")
    parser.add_argument("--flow", choices=FLOWS, action="append", help="may be repeated; by default each of them")
    parser.add_argument("--bootstrap", default=os.environ.get("STREAMER_TEST_KAFKA"), help="by default our own broker")
    parser.add_argument("--protocol", choices=PROTOCOLS, default=PROTOCOLS[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    args = parser.parse_args()
    well = True
    with ExitStack() as stack:
        tree = stack.enter_context(older(args.against))
        prepare(tree)
        bootstrap = args.bootstrap or stack.enter_context(DevBroker()).bootstrap
        for flow in args.flow or FLOWS:
            folder = Path(tempfile.mkdtemp(prefix=f"update-{flow}-"))
            plan = Plan(args.seed, (), flow, args.protocol, rate=args.rate, workers=2)
            replay = f"python -m tests.faults.rolling_update --against {args.against} --flow {flow} --seed {args.seed}"
            well = update(plan, bootstrap, folder, tree, f"{replay} --protocol {args.protocol}") and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
