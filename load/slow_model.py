"""A model 50 times too slow for what is offered: memory must stay, the group must stay, nothing may be lost.

First the service drains a preloaded topic at full rate, which gives the memory to compare with. Then events
are offered at a steady rate, the first of which carry so much `work` that the model needs 60 s for them, at a
fiftieth of the offered rate. The rest carry none: they pile up as lag and must drain afterwards.
"""

import argparse
import json
import math
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from load import make_model
from load.collect import Arrivals
from load.drain import watch
from load.events import Readings, preload
from load.log import Log
from load.openloop import Schedule, run
from load.service import Flow, Service
from load.stats import due
from streamer.dev_broker import DevBroker

TIMES_TOO_SLOW = 50
GROWTH_MIB_MAX = 64
MIB = 2**20
GRAIN_S = 0.25
SLACK = 0.9  # the slowness must last at least this share of what was asked for, or nothing was tested


@dataclass(frozen=True)
class Plan:
    """How much is offered."""

    steady_events: int = 2_000_000
    rate: float = 20_000.0
    slow_s: float = 60.0

    @property
    def offered(self) -> int:
        """Events offered while the model is slow."""
        return round(self.rate * self.slow_s)

    @property
    def heavy(self) -> int:
        """Events that the slow model gets through in the slow time."""
        return round(self.rate / TIMES_TOO_SLOW * self.slow_s)

    def work(self, turns_per_s: float) -> int:
        """Turns of the model's loop for one event, so that a fiftieth of the rate is all it can do."""
        return max(1, round(turns_per_s * TIMES_TOO_SLOW / self.rate))


@dataclass
class Watch:
    """Samples of one service in a thread: resident memory, members, events committed."""

    log: Log
    service: Service
    offered: int
    rss: list[int] = field(default_factory=list)
    members: set[tuple[str, ...]] = field(default_factory=set)
    curve: list[tuple[float, int]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.sample()
            self._stop.wait(GRAIN_S)

    def sample(self) -> None:
        """Take one sample of everything."""
        self.rss.append(self.service.rss_bytes())
        self.members.add(self.log.members(self.service.group))
        self.curve.append((time.time(), self.log.committed(self.service.group)))


@dataclass(frozen=True)
class Verdict:
    """What was seen, and whether it is good enough."""

    steady_rss_mib: float
    slow_rss_mib: float
    generations: int
    member_sets: int
    slow_for_s: float
    slow_wanted_s: float
    lag_max: int
    drained_after_s: float
    offered: int
    lost: int
    repeated: int

    @property
    def failures(self) -> list[str]:
        """Everything that is not as promised, in words."""
        growth = self.slow_rss_mib - self.steady_rss_mib
        slow_enough = self.slow_for_s >= self.slow_wanted_s * SLACK
        checks = {
            f"memory grew by {growth:.1f} MiB, {GROWTH_MIB_MAX} are allowed": growth <= GROWTH_MIB_MAX,
            f"the group has {self.generations} generations, not 1": self.generations == 1,
            f"the group had {self.member_sets} sets of members, not 1": self.member_sets == 1,
            f"{self.lost} of {self.offered} events have no prediction": self.lost == 0,
            f"{self.repeated} predictions are repeated": self.repeated == 0,
            f"slow for {self.slow_for_s:.1f} s only: nothing was tested": slow_enough,
            "the lag did not drain": math.isfinite(self.drained_after_s),
        }
        return [words for words, good in checks.items() if not good]


def steady(log: Log, service: Service, events: int) -> int:
    """Largest resident memory while the preloaded topic drains at full rate."""
    with Watch(log, service, events) as seen:
        watch(service, events)
    working = [rss for rss, (_, done) in zip(seen.rss, seen.curve, strict=False) if done > 0]
    return max(working)


def judge(plan: Plan, steady_rss: int, seen: Watch, start_s: float, arrivals: Arrivals) -> Verdict:
    """Put the samples together; the slowness ends where the lag is largest, since the fast model catches up."""
    began, offered = plan.steady_events, plan.steady_events + plan.offered
    lags = [(began + due(t - start_s, plan.rate, plan.offered) - done, t) for t, done in seen.curve]
    lag_max, slow_end = max(lags)
    drained = next((t for t, done in seen.curve if done >= offered), float("inf"))
    return Verdict(
        steady_rss_mib=round(steady_rss / MIB, 1),
        slow_rss_mib=round(max(seen.rss) / MIB, 1),
        generations=len(set(seen.log.generations(seen.service.group))),
        member_sets=len(seen.members),
        slow_for_s=round(slow_end - start_s, 1),
        slow_wanted_s=plan.slow_s,
        lag_max=lag_max,
        drained_after_s=round(drained - slow_end, 1),
        offered=offered,
        lost=offered - arrivals.distinct,
        repeated=arrivals.offsets.size - arrivals.distinct,
    )


def measure(log: Log, models: Path, scratch: Path, plan: Plan, guarantee: str) -> Verdict:
    """The whole run: preload, drain at full rate, slow down, drain."""
    work = plan.work(make_model.work_per_second(models))
    schedule = Schedule(plan.rate, plan.slow_s, heavy=plan.heavy, work=work)
    everything = plan.steady_events + plan.offered
    with log.lent(f"load-slow-{time.time_ns()}") as source:
        preload(log.bootstrap, source, Readings(1_000), plan.steady_events, work=0)
        with Service(log, Flow("slow", guarantee), source, models, scratch) as service:
            service.wait_until_settled()
            steady_rss = steady(log, service, plan.steady_events)
            with Watch(log, service, everything) as seen:
                sent, arrivals = run(log.bootstrap, source, service.predictions, schedule, plan.steady_events)
                watch(service, everything)
            return judge(plan, steady_rss, seen, sent.start_s, arrivals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", help="a running broker; without it one is started and stopped")
    parser.add_argument("--quick", action="store_true", help="10 s of slowness and a tenth of the events")
    parser.add_argument("--guarantee", choices=["exactly-once", "at-least-once"], default="exactly-once")
    asked = parser.parse_args()
    plan = Plan(steady_events=200_000, slow_s=10.0) if asked.quick else Plan()
    try:
        answer = run_plan(plan, asked.guarantee, asked.bootstrap)
    except RuntimeError as error:  # the service ended, stood still or did not stop cleanly: a verdict too
        answer = {"failures": [str(error)], "ok": False}
    print(json.dumps(answer))
    sys.exit(0 if answer["ok"] else 1)


def run_plan(plan: Plan, guarantee: str, bootstrap: str | None) -> dict[str, Any]:
    """The verdict of a plan as a JSON object, on the broker given or one of its own."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        make_model.write(scratch / "models")
        log = Log(bootstrap or stack.enter_context(DevBroker()).bootstrap)
        verdict = measure(log, scratch / "models", scratch, plan, guarantee)
    return asdict(verdict) | {"failures": verdict.failures, "ok": not verdict.failures}


if __name__ == "__main__":
    main()
