"""The torture driver: from one seed, load and faults against real worker processes, then the verdict.

    python -m tests.faults.torture --seed 7 --events 200000 --seconds 90

A fault that cannot be proven to have hit makes the run INVALID, never green.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streamer.broker import DevBroker
from tests.faults import schedule
from tests.faults.cluster import Cluster, TimedOutError, wait_for
from tests.faults.make_model import write_model
from tests.faults.names import Names
from tests.faults.processes import Child, Crew

SESSION_MS = 6_000
TRANSACTION_S = 10.0
START_S = 90.0
DRAIN_S = 20.0
HIT_WITHIN_S = 20.0
STUCK_S = 0.25
SEEN_WHILE_STOPPED = "lag {lag}, {partitions} output partitions held by its open transaction"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: everything but the broker, so that a plan and a seed replay it."""

    seed: int
    events: int = 200_000
    seconds: float = 90.0
    workers: int = 3
    kills: int = 3
    pauses: int = 0
    broker_kills: int = 0
    bad_share: float = 0.01
    keys: int = 200

    @property
    def replay(self) -> str:
        flags = (f"--{name.replace('_', '-')} {value}" for name, value in asdict(self).items())
        return "python -m tests.faults.torture " + " ".join(flags)


@dataclass(slots=True)
class Outcome:
    """What one run showed. Green only if nothing failed and every fault is proven to have hit."""

    plan: Plan
    faults: Counter[str] = field(default_factory=Counter)
    proofs: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def word(self) -> str:
        if self.failures or self.verdict.get("violations", 1):
            return "FAILED"
        return "INVALID" if self.unproven else "passed"

    def report(self) -> str:
        """The run in a few lines, the replay line last."""
        verdict = self.verdict
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "none"
        lines = [
            f"torture seed {self.plan.seed}: {self.word}; {self.seconds:.0f} s",
            f"  faults injected: {faults}",
            f"  inputs checked: {verdict.get('inputs', 0)} ({verdict.get('bad', 0)} bad)",
            f"  violations: {verdict.get('violations', 'not counted')}",
            *(f"  hit: {proof}" for proof in self.proofs),
            *(f"  NOT PROVEN: {what}" for what in self.unproven),
            *(f"  FAILED: {what}" for what in self.failures),
            *(f"  violation: {what}" for what in verdict.get("first", ())),
            f"  replay: {self.plan.replay}",
        ]
        return "\n".join(lines)


class Run:
    """One run in flight."""

    def __init__(self, plan: Plan, cluster: Cluster, crew: Crew, broker: DevBroker | None = None) -> None:
        self._plan = plan
        self._broker = broker
        self._cluster = cluster
        self._crew = crew
        self._dice = random.Random(f"run {plan.seed}")
        self._comebacks: list[tuple[float, int, str]] = []
        self._shaken: set[int] = set()
        self.outcome = Outcome(plan)

    def go(self) -> Outcome:
        """Set up, offer the load, inject the faults, settle, stop, judge."""
        start = time.monotonic()
        try:
            write_model(self._crew.folder / "models")
            self._cluster.create_topics()
            watcher = self._watch()
            self._start_workers()
            generator = self._generate()
            self._inject()
            self._finish(generator)
            self._settle()
            self._stop_workers()
            if watcher.stop(DRAIN_S) != 0:
                self.outcome.failures.append(f"the concurrent reader failed:\n{watcher.tail()}")
            self._judge()
        except TimedOutError as error:
            stacks = (f"worker {slot}:\n{child.abort()}" for slot, child in self._crew.workers.items())
            self.outcome.failures.append("\n".join((f"{error}: {self._cluster.state()}", *stacks)))
        finally:
            self._crew.bury()
            self.outcome.seconds = time.monotonic() - start
        return self.outcome

    @property
    def _watched(self) -> Path:
        return self._crew.folder / "watched.jsonl"

    def _watch(self) -> Child:
        return self._crew.start_module("checker", "watch", "--watched", str(self._watched))

    def _start_workers(self) -> None:
        for slot in range(self._plan.workers):
            self._crew.start_worker(slot)
        wait_for("the group becoming stable", self._all_joined, START_S)

    def _all_joined(self) -> bool:
        for slot, child in self._crew.workers.items():
            if not child.running:
                raise TimedOutError(f"worker {slot} ended by itself with {child.process.returncode}; starting up")
        return self._cluster.members() == len(self._crew.workers)

    def _generate(self) -> Child:
        plan = self._plan
        flags = {"events": plan.events, "seconds": plan.seconds, "seed": plan.seed}
        flags |= {"bad-share": plan.bad_share, "keys": plan.keys}
        return self._crew.start_module("generator", *(w for k, v in flags.items() for w in (f"--{k}", str(v))))

    def _inject(self) -> None:
        """Walk through the schedule on the wall clock; comebacks are due in between."""
        start = time.monotonic()
        plan = self._plan
        for fault in schedule.draw(plan.seed, plan.seconds, plan.kills, plan.pauses, plan.broker_kills):
            self._pass_time(start + fault.at_s)
            if fault.kind == "kill":
                self._kill(fault.back_after_s)
            elif fault.kind == "pause":
                self._pause(fault.back_after_s)
            elif fault.kind == "add":
                self._crew.start_worker(max(self._crew.workers) + 1)
            elif fault.kind == "broker":
                self._kill_broker()
            else:
                self._remove()
            self.outcome.faults[fault.kind] += 1
        self._pass_time(start + self._plan.seconds)
        while self._comebacks:
            self._pass_time(self._comebacks[0][0])

    def _pass_time(self, until: float) -> None:
        while True:
            while self._comebacks and self._comebacks[0][0] <= time.monotonic():
                self._bring_back(*heapq.heappop(self._comebacks)[1:])
            self._notice_deaths()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def _bring_back(self, slot: int, how: str) -> None:
        if how == "continue":
            self._crew.workers[slot].send(signal.SIGCONT)
        else:
            self._crew.start_worker(slot)

    def _notice_deaths(self) -> None:
        """A worker that was paused may be fenced and leave; any other that ends by itself is a failure."""
        waiting = {slot for _, slot, _ in self._comebacks}
        for slot, child in list(self._crew.workers.items()):
            if child.running or slot in waiting:
                continue
            if slot not in self._shaken:
                what = f"worker {slot} ended by itself with status {child.process.returncode}"
                self.outcome.failures.append(f"{what}\n{child.tail()}")
            self._shaken.discard(slot)
            self._crew.start_worker(slot)

    def _up(self) -> list[int]:
        away = {slot for _, slot, _ in self._comebacks}
        return sorted(slot for slot, child in self._crew.workers.items() if slot not in away and child.running)

    def _kill(self, back_after_s: float) -> None:
        """SIGKILL a worker while the group lags and that worker's transaction is open.

            why = f"no open transaction in {HIT_WITHIN_S} s"
            self.outcome.unproven.append(f"SIGKILL of worker {slot}: {why}")
        its own transaction. If there is none it goes on, and the next moment is tried.
        """
        deadline = time.monotonic() + HIT_WITHIN_S
        proof = ""
        slot = self._dice.choice(self._up())
        while not proof and time.monotonic() < deadline:
            self._crew.workers[slot].send(signal.SIGSTOP)
            proof = self._caught_open()
            if not proof:
                self._crew.workers[slot].send(signal.SIGCONT)
                self._pass_time(time.monotonic() + self._dice.uniform(0.02, 0.1))
                slot = self._dice.choice(self._up())
        self._crew.workers[slot].kill()
        if proof:
            self.outcome.proofs.append(f"SIGKILL of worker {slot}: {proof}")
        else:
            self.outcome.unproven.append(f"SIGKILL of worker {slot}: no open transaction within {HIT_WITHIN_S} s")
        heapq.heappush(self._comebacks, (time.monotonic() + back_after_s, slot, "start"))

    def _caught_open(self) -> str:
        """What the broker shows while the victim stands still; empty if it holds no open transaction."""
        first = self._cluster.open_transactions()
        if not first:
            return ""
        lag = self._cluster.lag()
        time.sleep(STUCK_S)
        second = self._cluster.open_transactions()
        stuck = [where for where, offset in first.items() if second.get(where) == offset]
        return SEEN_WHILE_STOPPED.format(lag=lag, partitions=len(stuck)) if stuck and lag > 0 else ""

    def _pause(self, seconds: float) -> None:
        slot = self._dice.choice(self._up())
        self._shaken.add(slot)
        self._crew.workers[slot].send(signal.SIGSTOP)
        self.outcome.proofs.append(f"SIGSTOP of worker {slot} for {seconds:.0f} s")
        heapq.heappush(self._comebacks, (time.monotonic() + seconds, slot, "continue"))

    def _kill_broker(self) -> None:
        """SIGKILL the broker and start it on its data; no worker may end because of it."""
        if self._broker is None:
            self.outcome.unproven.append("the broker is not ours to kill: run without --bootstrap")
            return
        start = time.monotonic()
        with self._cluster.away():
            self._broker.kill()
            self._broker.start()
        self.outcome.proofs.append(f"SIGKILL of the broker, away for {time.monotonic() - start:.1f} s")

    def _remove(self) -> None:
        """SIGTERM a worker once all have joined; one that is still importing could not exit in order."""
        wait_for("every worker joining", lambda: self._cluster.members() == len(self._up()), START_S)
        slot = self._dice.choice(self._up())
        self._expect_clean_exit(slot)
        del self._crew.workers[slot]

    def _expect_clean_exit(self, slot: int) -> None:
        child = self._crew.workers[slot]
        status = child.stop(DRAIN_S)
        if status != 0:
            what = f"worker {slot}: exit status {status} after SIGTERM, expected 0 within {DRAIN_S:.0f} s"
            self.outcome.failures.append(f"{what}\n{child.tail()}")

    def _finish(self, generator: Child) -> None:
        wait_for("the generator's end", lambda: not generator.running, self._plan.seconds + 60.0)
        if generator.process.returncode != 0:
            self.outcome.failures.append(f"the generator failed:\n{generator.tail()}")

    def _settle(self) -> None:
        """Everything heals: all workers are back, the lag goes to zero and no transaction stays open."""

        def settled() -> bool:
            self._notice_deaths()
            return self._cluster.settled() and self._cluster.members() == len(self._crew.workers)

        limit = SESSION_MS / 1000.0 + TRANSACTION_S + 10.0 + self._plan.seconds
        waited = wait_for("lag and open transactions reaching zero", settled, limit)
        self.outcome.proofs.append(f"settled {waited:.1f} s after the last input")

    def _stop_workers(self) -> None:
        for slot in sorted(self._crew.workers):
            self._expect_clean_exit(slot)

    def _judge(self) -> None:
        flags = ["--model", str(self._crew.model), "--watched", str(self._watched)]
        checker = self._crew.start_module("checker", "verify", *flags)
        wait_for("the checker's verdict", lambda: not checker.running, 60.0 + self._plan.events / 1_000)
        text = checker.log.read_text()
        if checker.process.returncode not in {0, 1}:
            self.outcome.failures.append(f"the checker gave no verdict:\n{checker.tail()}")
            return
        self.outcome.verdict = json.loads(text[text.index("{") :])
        if self._plan.kills and self.outcome.verdict["aborted_predictions"] == 0:
            self.outcome.unproven.append("no aborted prediction in the log: the kills cut no transaction")


def torture(plan: Plan, bootstrap: str, folder: Path, broker: DevBroker | None = None) -> Outcome:
    """Run one plan against this broker; topics are deleted unless the run failed.

    Args:
        plan: what to do.
        bootstrap: the broker's address.
        folder: where models, logs and the concurrent reader's record go.
        broker: the broker behind that address if it is ours, so that it may be killed.
    """
    names = Names(f"torture-{plan.seed}-{os.getpid()}-{int(time.time()) % 100_000}")
    cluster = Cluster(bootstrap, names)
    crew = Crew(bootstrap, names, folder, worker_environment={"KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS)})
    outcome = Run(plan, cluster, crew, broker).go()
    if outcome.word == "passed":
        cluster.delete_topics()
    return outcome


def _arguments() -> argparse.Namespace:
    default = Plan(seed=1)
    parser = argparse.ArgumentParser(description="Torture the service with seeded faults and check every record.")
    parser.add_argument("--bootstrap", default=os.environ.get("STREAMER_TEST_KAFKA"), help="default: our own broker")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs, each with the next seed")
    for name in ("seed", "events", "workers", "kills", "pauses", "broker_kills", "keys"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name))
    parser.add_argument("--seconds", type=float, default=default.seconds)
    parser.add_argument("--bad-share", type=float, default=default.bad_share)
    return parser.parse_args()


def main() -> int:
    args = _arguments()
    words = Counter[str]()
    with ExitStack() as stack:
        broker = None if args.bootstrap else stack.enter_context(DevBroker())
        bootstrap = broker.bootstrap if broker else args.bootstrap
        known = {name: getattr(args, name) for name in Plan.__slots__ if name != "seed"}
        for seed in range(args.seed, args.seed + args.seeds):
            folder = Path(tempfile.mkdtemp(prefix=f"torture-{seed}-"))
            outcome = torture(Plan(seed=seed, **known), bootstrap, folder, broker)
            words[outcome.word] += 1
            sys.stdout.write(f"{outcome.report()}\n  logs: {folder}\n")
            sys.stdout.flush()
    sys.stdout.write(f"torture: {dict(words)}\n")
    return 0 if set(words) == {"passed"} else 1


if __name__ == "__main__":
    sys.exit(main())
