"""The torture driver: from one seed, load and faults against real worker processes, then the verdict.

    python -m tests.faults.torture --seed 7 --faults kill,storm

A fault that cannot be proven to have hit makes the run INVALID, never green.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from confluent_kafka import IsolationLevel, KafkaException

import streamer.worker  # noqa: F401 - compiles the kernels once, before several workers would do so beside each other
from streamer.broker import DevBroker
from tests.faults import schedule
from tests.faults.cluster import Cluster, TimedOutError, wait_for
from tests.faults.evidence import nothing_waits
from tests.faults.make_model import write_model
from tests.faults.mutants import BUGS
from tests.faults.names import CLOSE_IDLE_S, FLOWS, JOIN_IDLE_S, Names
from tests.faults.outcome import Outcome, Plan
from tests.faults.processes import Child, Crew
from tests.faults.proxy import Proxy
from tests.faults.strikes import DRAIN_S, START_S, Strikes

if TYPE_CHECKING:
    from tests.faults.log import Position
    from tests.faults.names import Flow
    from tests.faults.schedule import Kind

SESSION_MS = 6_000
TRANSACTION_S = 10.0
LOAD_S_MAX = 900.0
KEYS_MAX, MEMORY = "2000", "8GiB"  # far more keys than there are; what they might hold is never all held
SETTLE_S = 90.0
QUIET_S = 3.0
PROTOCOLS = ("classic", "consumer")


class Run:
    """One run in flight."""

    def __init__(
        self, plan: Plan, cluster: Cluster, crew: Crew, broker: DevBroker | None = None, proxy: Proxy | None = None
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._crew = crew
        self.outcome = Outcome(plan)
        self._strikes = Strikes(self.outcome, cluster, crew, broker, proxy)
        self._ends: dict[Position, int] = {}

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
        except (TimedOutError, KafkaException) as error:
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
        flags = {"events": int(plan.rate * LOAD_S_MAX), "seconds": LOAD_S_MAX, "seed": plan.seed}
        flags |= {"bad-share": plan.bad_share, "keys": plan.keys}
        return self._crew.start_module("generator", *(w for k, v in flags.items() for w in (f"--{k}", str(v))))

    def _inject(self) -> None:
        """Walk through the schedule; the load goes on at least as long."""
        start = time.monotonic()
        for fault in schedule.draw(self._plan.seed, self._plan.faults):
            self._strikes.strike(fault)
        self._strikes.bring_all_back()
        self._strikes.pass_time(start + self._plan.seconds - time.monotonic())

    def _finish(self, generator: Child) -> None:
        if not generator.running:
            self.outcome.failures.append(f"the load ended before the faults did:\n{generator.tail()}")
        generator.send(signal.SIGTERM)
        wait_for("the generator's end", lambda: not generator.running, 60.0)
        if generator.process.returncode != 0:
            self.outcome.failures.append(f"the generator failed:\n{generator.tail()}")

    def _settle(self) -> None:
        """Everything heals: all workers are back, the lag goes to zero and no transaction stays open."""

        def settled() -> bool:
            self._strikes.look_around()
            return self._cluster.settled() and self._cluster.members() == len(self._crew.workers)

        waited = wait_for("lag and open transactions reaching zero", settled, SESSION_MS / 1000.0 + TRANSACTION_S + SETTLE_S)
        if self._plan.flow == "closing":
            self._strikes.pass_time(CLOSE_IDLE_S)
            waited += CLOSE_IDLE_S + wait_for("the last windows closing", self._quiet, SETTLE_S, QUIET_S)
        if self._plan.flow == "joined":
            # What waits for another input leaves once all are silent; only workers know when nothing waits any more.
            waited += wait_for("no row waiting in a join", lambda: nothing_waits(self._crew), JOIN_IDLE_S + SETTLE_S)
            waited += wait_for("the last commits", settled, SETTLE_S)
        self.outcome.proofs.append(f"settled {waited:.1f} s after the last input")

    def _quiet(self) -> bool:
        """Whether nothing was written since this was asked last."""
        before, self._ends = self._ends, self._cluster.ends(self._cluster.names.outputs, IsolationLevel.READ_UNCOMMITTED)
        return before == self._ends and self._cluster.settled()

    def _stop_workers(self) -> None:
        for slot in sorted(self._crew.workers):
            self._strikes.expect_clean_exit(slot)

    def _final_state(self) -> Path:
        out = self._crew.folder / "state.jsonl"
        state = self._crew.start_module("final_state", "--models", str(self._crew.folder / "models"), "--out", str(out))
        wait_for("the final state", lambda: not state.running, 90.0)
        if state.process.returncode != 0:
            self.outcome.failures.append(f"the final state cannot be restored:\n{state.tail()}")
        return out

    def _judge(self) -> None:
        flags = ["--model", str(self._crew.model), "--watched", str(self._watched)]
        if self._plan.flow in {"rolling", "rekeyed"}:
            flags += ["--state", str(self._final_state())]
        checker = self._crew.start_module("checker", "verify", *flags)
        wait_for("the checker's verdict", lambda: not checker.running, 300.0)
        text = checker.log.read_text()
        if checker.process.returncode not in {0, 1}:
            self.outcome.failures.append(f"the checker gave no verdict:\n{checker.tail()}")
            return
        self.outcome.verdict = json.loads(text[text.index("{") :])
        cuts = self.outcome.faults["kill"] + self.outcome.faults["kill-twice"]
        if cuts and self.outcome.verdict["aborted"] == 0:
            self.outcome.unproven.append("no aborted result in the log: the kills cut no transaction")


def worker_environment(protocol: str) -> dict[str, str]:
    """Quick to notice deaths and rebalances, under either group protocol."""
    classic = {"KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS), "KAFKA_HEARTBEAT_INTERVAL_MS": "500"}
    shared = {"KAFKA_GROUP_PROTOCOL": protocol, "STREAMER_KEYS_MAX": KEYS_MAX, "STREAMER_MEMORY": MEMORY}
    return {**shared, **(classic if protocol == "classic" else {})}


def torture(plan: Plan, bootstrap: str, folder: Path, broker: DevBroker | None = None) -> Outcome:
    """Run one plan against this broker; topics are deleted unless the run failed.

    Args:
        plan: what to do.
        bootstrap: the broker's address.
        folder: where models, logs and the concurrent reader's record go.
        broker: the broker behind that address if it is ours, so that it may be killed.
    """
    names = Names(f"torture-{plan.seed}-{os.getpid()}-{int(time.time()) % 100_000}", flow=plan.flow)
    cluster = Cluster(bootstrap, names)
    crew = Crew(bootstrap, names, folder, worker_environment=worker_environment(plan.protocol), http="127.0.0.1:0")
    if plan.mutant:
        crew.worker_command = (sys.executable, "-m", "tests.faults.mutants", plan.mutant)
    with ExitStack() as stack:
        proxy = None
        if broker is not None and set(plan.faults) & set(schedule.NETWORK):
            proxy = stack.enter_context(Proxy(broker.detour.advertised, broker.detour.port))
            crew.through = proxy.bootstrap
        outcome = Run(plan, cluster, crew, broker, proxy).go()
    if outcome.green:
        cluster.delete_topics()
    elif broker is not None:
        outcome.kept.append(f"the broker's log: {shutil.copy(broker.log, folder / 'broker.log')}")
    return outcome


def _kinds(text: str) -> tuple[Kind, ...]:
    groups: dict[str, tuple[Kind, ...]] = {"host": schedule.HOST, "network": schedule.NETWORK}
    kinds = tuple(kind for word in text.split(",") for kind in groups.get(word, (cast("Kind", word),)))
    if unknown := sorted(set(kinds) - set(schedule.KINDS)):
        raise argparse.ArgumentTypeError(f"unknown faults {unknown}; there are {', '.join((*groups, *schedule.KINDS))}")
    return kinds


def _faults(seed: int, flow: Flow) -> list[tuple[Kind, ...]]:
    """What strikes in each run of a flow: processes and broker, then the network, if that is not broken by a later flow.

    Every kind for the plain flow; of the first group half for each other one, so that a run stays within ten minutes.
    """
    if flow == "rolling":
        return [schedule.HOST, schedule.NETWORK]
    can = [kind for kind in schedule.HOST if flow != "stateless" or kind != "kill-restoring"]
    some = tuple(random.Random(f"faults {seed} {flow}").sample(can, len(schedule.HOST) // 2))
    return [some] if flow == "closing" else [some, schedule.NETWORK]


def _arguments() -> argparse.Namespace:
    default = Plan(seed=1)
    parser = argparse.ArgumentParser(description="Torture the service with seeded faults and check every record.")
    parser.add_argument("--bootstrap", default=os.environ.get("STREAMER_TEST_KAFKA"), help="default: our own broker")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs, each with the next seed")
    parser.add_argument(
        "--faults",
        type=_kinds,
        help="kinds, comma-separated, also one several times; host and network mean all of them; default: by flow and seed",
    )
    parser.add_argument("--flow", choices=FLOWS, help="default: each of them, one after the other")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: in turn, by the seed")
    for name in ("seed", "rate", "workers", "keys"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--mutant", choices=sorted(BUGS), default="", help="a bug of the workers that must be found")
    parser.add_argument("--seconds", type=float, default=default.seconds)
    for name in ("bad-share", "hits"):
        parser.add_argument(f"--{name}", type=float, default=getattr(default, name.replace("-", "_")))
    return parser.parse_args()


def main() -> int:
    args = _arguments()
    words, inputs, faults, violations = Counter[str](), 0, 0, 0
    with ExitStack() as stack:
        broker = None if args.bootstrap else stack.enter_context(DevBroker(detour=True))
        bootstrap = broker.bootstrap if broker else args.bootstrap
        known = {name: getattr(args, name) for name in Plan.__slots__ if name not in {"seed", "faults", "flow", "protocol"}}
        for seed in range(args.seed, args.seed + args.seeds):
            for flow in [args.flow] if args.flow else FLOWS:
                protocol = args.protocol or PROTOCOLS[(seed + FLOWS.index(flow)) % len(PROTOCOLS)]
                for kinds in [args.faults] if args.faults else _faults(seed, flow):
                    folder = Path(tempfile.mkdtemp(prefix=f"torture-{seed}-{flow}-"))
                    outcome = torture(Plan(seed, kinds, flow, protocol, **known), bootstrap, folder, broker)
                    words[outcome.word] += 1
                    inputs += outcome.verdict.get("inputs", 0)
                    faults += outcome.faults.total()
                    violations += outcome.verdict.get("violations", 0)
                    sys.stdout.write(f"{outcome.report()}\n  logs: {folder}\n")
                    sys.stdout.flush()
    sys.stdout.write(f"torture: {dict(words)}; {faults} faults injected, {inputs} inputs checked, {violations} violations\n")
    return 0 if set(words) <= {"passed", "caught"} else 1


if __name__ == "__main__":
    sys.exit(main())
