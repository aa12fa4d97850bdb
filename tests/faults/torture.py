"""The torture driver: from one seed, load and faults against real worker processes, then the verdict.

    python -m tests.faults.torture --seed 7 --faults kill,storm

A fault that cannot be proven to have hit makes the run INVALID, never green.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

import streamer.worker.worker  # noqa: F401 - compiles the kernels once, before several workers would do so beside each other
from streamer.dev_broker import DevBroker
from tests.faults import schedule
from tests.faults.cluster import Cluster
from tests.faults.mutants import BUGS
from tests.faults.names import FLOWS, Names
from tests.faults.outcome import Outcome, Plan
from tests.faults.processes import Crew
from tests.faults.proxy import Proxy
from tests.faults.run import SESSION_MS, Run

if TYPE_CHECKING:
    from tests.faults.names import Flow
    from tests.faults.schedule import Kind

KEYS_MAX, MEMORY = "2000", "8GiB"  # far more keys than there are; what they might hold is never all held
PROTOCOLS = ("classic", "consumer")


def worker_environment(protocol: str) -> dict[str, str]:
    """Quick to notice deaths and rebalances, under either group protocol."""
    classic = {"KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS), "KAFKA_HEARTBEAT_INTERVAL_MS": "500"}
    shared = {"KAFKA_GROUP_PROTOCOL": protocol, "STREAMER_KEYS_MAX": KEYS_MAX, "STREAMER_STATE_MEMORY": MEMORY}
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
    """What strikes in each run of a flow: processes and broker, then the network, if that is not broken by another flow.

    Every kind for the plain flow; of the first group half for each other one, so that a run stays within ten minutes.
    """
    if flow == "rolling":
        return [schedule.HOST, schedule.NETWORK]
    can = [kind for kind in schedule.HOST if flow not in {"stateless", "raw"} or kind != "kill-restoring"]
    some = tuple(random.Random(f"faults {seed} {flow}").sample(can, len(schedule.HOST) // 2))
    return [some] if flow in {"closing", "raw", "missing"} else [some, schedule.NETWORK]


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
