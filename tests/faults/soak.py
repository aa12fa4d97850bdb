"""The soak: flows on a real broker for an hour, much of what happens in an hour, and what it costs by and by.

    python -m tests.faults.soak --minutes 60

Each flow has its workers, its load with bad records and its reader. Guests join and leave each group once a minute, which makes
two rebalances; in the first half the broker is away, for five minutes of an hour. In the end the checker judges every record, and
the workers must hold no more memory, descriptors, threads and changelog than they may.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamer.worker.worker  # noqa: F401 - compiles the kernels once, before several workers would do so beside each other
from streamer.dev_broker import DevBroker
from streamer.limits import SNAPSHOT_BLOCKS_MIN_BYTES
from tests.faults.absence import away
from tests.faults.cluster import Cluster, TimedOutError, wait_for
from tests.faults.evidence import metrics, story
from tests.faults.names import CLOSE_IDLE_S, FLOWS, IDLE_VARIABLE, PARTITIONS, Names
from tests.faults.outcome import Plan
from tests.faults.processes import Crew
from tests.faults.run import Run
from tests.faults.storm import Guest, arrive
from tests.faults.torture import PROTOCOLS, worker_environment
from tests.faults.vital_signs import Sample, grown, sample, slope_mib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.names import Flow

# Away for longer than the broker's session, see STANDS_STILL.
AWAY_S_MIN, AWAY_S_MAX, AWAY_SHARE, AWAY_FROM = 30.0, 300.0, 1 / 8, 1 / 6
GUEST_EVERY_S, GUEST_STAYS_S = 60.0, 20.0
SAMPLE_EVERY_S = 5.0
LOOK_S = 0.05
# What an hour shows minutes cannot: below this the slope of memory is told and not judged.
JUDGED_FROM_MIN = 20.0
SLOPE_MIB_MAX = 1.0
CHANGELOG_STATES, CHANGELOG_SEGMENTS = 3, 2
# A broker deletes what it may delete when it next looks: every five minutes, and the file a minute later.
SWEEPS = {"log.retention.check.interval.ms": "10000", "log.segment.delete.delay.ms": "1000"}
# A machine that stands still for seconds must not cost the one broker its partitions: Kafka 4.3.1 may then lose the end of a
# transaction for good (KAFKA-20734).
STANDS_STILL = {"broker.session.timeout.ms": "20000"}
HEALED_S = 60.0


class Watched(Run):
    """One flow of the soak, with what was seen of its workers."""

    def __init__(self, plan: Plan, cluster: Cluster, crew: Crew, broker: DevBroker) -> None:
        super().__init__(plan, cluster, crew, broker)
        self.cluster, self.crew, self.plan = cluster, crew, plan
        self.samples: dict[int, list[Sample]] = {slot: [] for slot in range(plan.workers)}
        self.counted: dict[str, float] = {}
        self.changelog_bytes = 0
        self.guests: list[Guest] = []
        self.guests_gone = 0

    def _create_topics(self) -> None:
        made = self.crew.create_topics(PARTITIONS)
        wait_for("the topics", lambda: not made.running, 60.0)
        if made.process.returncode != 0:
            raise TimedOutError(f"streamer topics create failed:\n{made.tail()}")

    def look(self, at_s: float, broker: DevBroker) -> None:
        """Take a sample of each worker, and of the changelog on the broker's disk."""
        for slot, child in self.crew.workers.items():
            if child.running:
                self.samples[slot].append(sample(child.process.pid, at_s))
        parts = [path for topic in self.cluster.names.changelogs for path in (broker.data / "kafka").glob(f"{topic}-*/*.log")]
        self.changelog_bytes = max(self.changelog_bytes, sum(path.stat().st_size for path in parts if path.exists()))

    def counters(self) -> dict[str, float]:
        """Commits, doubts and what else counts up, of all workers together."""
        found: dict[str, float] = {}
        for child in self.crew.workers.values():
            for name, value in metrics(story(child.log).address).items():
                key = name.partition("{")[0]
                found[key] = found.get(key, 0.0) + value
        return found

    def changelog_bytes_max(self, live_keys: float) -> float:
        """Three times the state, or what of blocks is always let be, and two segments, in each partition."""
        if not self.cluster.names.changelogs:
            return 0.0
        (started,) = [line for line in lines(self.crew.workers[0].log) if line.get("event") == "starting"][:1]
        state = max(live_keys * float(started["bytes_per_key"]), PARTITIONS * SNAPSHOT_BLOCKS_MIN_BYTES)
        segment = float(self.cluster.topic_setting(self.cluster.names.changelogs[0], "segment.bytes"))
        return CHANGELOG_STATES * state + CHANGELOG_SEGMENTS * PARTITIONS * segment


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in log.read_text(errors="replace").splitlines() if text.startswith("{")]


@dataclass
class Soak:
    """All flows together.

    Attributes:
        broker: for all of them.
        runs: the flows.
        minutes: how long.
        facts: what was seen, for the report.
        wrong: what must not be.
    """

    broker: DevBroker
    runs: list[Watched]
    minutes: float
    facts: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def go(self) -> bool:
        """Whether all went well."""
        start = time.monotonic()
        try:
            if all(run.carried_out(run.begin) for run in self.runs):
                self._pass_the_time()
                for run in self.runs:
                    self._weigh(run)
                    run.carried_out(run.end)
        except TimedOutError as error:
            self.wrong.append(str(error))
        finally:
            for run in self.runs:
                run.crew.bury()
                run.outcome.seconds = time.monotonic() - start
        return not self.wrong and all(run.outcome.word == "passed" for run in self.runs)

    def _pass_the_time(self) -> None:
        start, lasts_s = time.monotonic(), self.minutes * 60
        away_at, away_s = start + AWAY_FROM * lasts_s, _away_s(self.minutes)
        self._go_on(start, away_at)
        before = [run.counters() for run in self.runs]
        self._broker_away(start, away_s)
        self._go_on(start, time.monotonic() + min(HEALED_S, lasts_s / 6))
        after = [run.counters() for run in self.runs]
        self._go_on(start, start + lasts_s)
        for run, had, healed in zip(self.runs, before, after, strict=True):
            now = run.counters()
            sick = {name: healed[name] - had.get(name, 0.0) for name in healed}
            run.counted = {name: value - sick.get(name, 0.0) for name, value in now.items()}

    def _go_on(self, start: float, until: float) -> None:
        """Guests come and go, samples are taken, and no worker may end."""
        sampled = guest = time.monotonic()
        while (now := time.monotonic()) < until:
            for run in self.runs:
                run.expect_load()
                run.strikes.look_around()
                self._entertain(run, now)
            if now >= sampled:
                sampled = now + SAMPLE_EVERY_S
                for run in self.runs:
                    run.look(now - start, self.broker)
            if now >= guest and until - now > GUEST_STAYS_S / 2:
                guest = now + GUEST_EVERY_S
                for run in self.runs:
                    stays_s = min(GUEST_STAYS_S, until - now)
                    run.guests.append(arrive(self.broker.bootstrap, run.cluster.names, now + stays_s, run.plan.protocol))
            time.sleep(LOOK_S)
        for run in self.runs:
            self._entertain(run, float("inf"))

    def _entertain(self, run: Watched, now: float) -> None:
        for guest in list(run.guests):
            guest.consumer.poll(0)
            if guest.leaves(now):
                run.guests.remove(guest)
                guest.consumer.close()
                run.guests_gone += guest.partitions > 0

    def _broker_away(self, start: float, away_s: float) -> None:
        with ExitStack() as stack:
            for run in self.runs:
                stack.enter_context(run.cluster.away())
            stack.enter_context(away(self.broker))
            until = time.monotonic() + away_s
            while time.monotonic() < until:
                for run in self.runs:
                    run.strikes.look_around()
                time.sleep(LOOK_S)
        at_s = time.monotonic() - start - away_s
        self.facts.append(f"the broker was killed and away for {away_s:.0f} s from second {at_s:.0f} on")
        for run in self.runs:
            wait_for("the broker answering", lambda run=run: run.cluster.lag() >= 0, 90.0)  # type: ignore[misc]

    def _weigh(self, run: Watched) -> None:
        """Hold what the workers hold against what they may hold, while they still run."""
        flow, counted = run.plan.flow, run.counted
        given = sum(len(story(child.log).given) for child in run.crew.workers.values())
        rebalances = f"{run.guests_gone} guests were given partitions, workers gave some up {given} times"
        doubts, commits = counted.get("streamer_doubts_total", 0.0), counted["streamer_commits_total"]
        self.facts.append(f"{flow}: {rebalances}")
        self.facts.append(f"{flow}: {doubts:.0f} doubts in {commits:.0f} commits while the broker was well")
        if run.guests_gone < self.minutes / 2:
            run.outcome.unproven.append(f"rebalances: {rebalances}")
        for slot, samples in run.samples.items():
            slope = slope_mib(samples)
            last = samples[-1]
            held = f"{last.rss_mib:.0f} MiB, {last.descriptors} descriptors, {last.threads} threads"
            self.facts.append(f"{flow} worker {slot}: {held}; memory {slope:+.2f} MiB per 10 minutes over the last two thirds")
            judged = self.minutes >= JUDGED_FROM_MIN
            if judged and slope >= SLOPE_MIB_MAX:
                self.wrong.append(f"{flow} worker {slot}: memory grows by {slope:.2f} MiB per 10 minutes")
            self.wrong += [f"{flow} worker {slot}: {what}" for what in (grown(samples) if judged else ())]
        live = sum(value for name, value in counted.items() if name.startswith("streamer_live_keys{"))
        bound = run.changelog_bytes_max(live)
        self.facts.append(f"{flow}: changelog {run.changelog_bytes / 2**20:.1f} MiB at most, {bound / 2**20:.0f} MiB allowed")
        if run.changelog_bytes > bound:
            self.wrong.append(f"{flow}: the changelog took {run.changelog_bytes} bytes, {bound:.0f} are allowed")

    def report(self) -> str:
        """The soak in lines, a verdict for each flow."""
        texts = [run.outcome.report(f"python -m tests.faults.soak {' '.join(sys.argv[1:])}") for run in self.runs]
        return "\n".join([*texts, *(f"  seen: {fact}" for fact in self.facts), *(f"  WRONG: {what}" for what in self.wrong)])


def _away_s(minutes: float) -> float:
    """How long the broker is away."""
    return max(AWAY_S_MIN, min(AWAY_S_MAX, AWAY_SHARE * minutes * 60))


def _run_of(flow: Flow, args: argparse.Namespace, broker: DevBroker, folder: Path) -> Watched:
    protocol = PROTOCOLS[(args.seed + FLOWS.index(flow)) % len(PROTOCOLS)]
    plan = Plan(args.seed, (), flow, protocol, rate=args.rate, seconds=args.minutes * 60, workers=args.workers, keys=args.keys)
    names = Names(f"soak-{flow}-{args.seed}-{os.getpid()}", flow=flow)
    (folder / flow).mkdir()
    environment = worker_environment(protocol)
    crew = Crew(broker.bootstrap, names, folder / flow, worker_environment=environment, http="127.0.0.1:0")
    return Watched(plan, Cluster(broker.bootstrap, names), crew, broker)


def main() -> int:
    parser = argparse.ArgumentParser(description="Let flows run for an hour, disturb them, and check everything.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--flows", default="rolling,closing", help="comma-separated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=int, default=300, help="events a second of each flow")
    parser.add_argument("--workers", type=int, default=2, help="of each flow")
    parser.add_argument("--keys", type=int, default=200)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    # A partition is silent while the broker is away; no window may close by that, or the checker could not tell when.
    os.environ[IDLE_VARIABLE] = f"{_away_s(args.minutes) + 2 * CLOSE_IDLE_S:g}s"
    with DevBroker(settings={**SWEEPS, **STANDS_STILL}) as broker:
        flows: Sequence[Flow] = [flow for flow in FLOWS if flow in args.flows.split(",")]
        soak = Soak(broker, [_run_of(flow, args, broker, folder) for flow in flows], args.minutes)
        good = soak.go()
        (folder / "broker.log").write_bytes(broker.log.read_bytes())
        samples = {run.plan.flow: {slot: list(map(str, seen)) for slot, seen in run.samples.items()} for run in soak.runs}
        (folder / "samples.json").write_text(json.dumps(samples, indent=0))
    sys.stdout.write(f"{soak.report()}\nsoak of {args.minutes:g} minutes: {'passed' if good else 'FAILED'}; logs: {folder}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
