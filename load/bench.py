"""`make bench`: the service beside its limit, median of three, rotated order; see `load/README.md`."""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from load import make_model
from load.drain import Drained, drain_copyloop, drain_service, median_rate
from load.events import Readings, preload
from load.log import Log
from load.machine import Noise, header
from load.openloop import Schedule, judge, run
from load.service import Service
from load.stats import rotated, spread
from streamer.broker import DevBroker

if TYPE_CHECKING:
    from collections.abc import Callable

GUARANTEES = ("exactly-once", "at-least-once")
DRAINS = {"drain-1k-keys": 1_000, "drain-100k-keys": 100_000}
OPEN_LOOP = "open-loop-20k"
RESULTS = Path(__file__).parent / "results" / "latest.json"
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    events: int = 2_000_000
    runs: int = 3
    rate: float = 20_000.0
    warmup_s: float = 10.0
    measured_s: float = 30.0


QUICK = Size(events=200_000, runs=1, warmup_s=3.0, measured_s=7.0)


@dataclass(frozen=True)
class Bench:
    """A broker, a model repository, a place for logs and the size of it all."""

    log: Log
    models: Path
    scratch: Path
    size: Size

    def drain(self, workload: str) -> list[Row]:
        """Copy loop and service, both guarantees, over one preloaded topic."""
        size, folders = self.size, (self.models, self.scratch)
        with self.log.lent(f"load-{workload}-{time.time_ns()}") as source:
            preload(self.log.bootstrap, source, Readings(DRAINS[workload]), size.events)
            systems: dict[tuple[str, str], Callable[[], Drained]] = {}
            for g in GUARANTEES:
                systems["copyloop", g] = partial(drain_copyloop, self.log, source, g, size.events)
                systems["streamer", g] = partial(drain_service, self.log, source, g, size.events, folders)
            taken: dict[tuple[str, str], list[Drained]] = {name: [] for name in systems}
            for name in (("copyloop", GUARANTEES[0]), ("streamer", GUARANTEES[0])):
                systems[name]()  # a cold broker compiles its code during the first runs: not counted, for either
            for turn in range(size.runs):
                for name in rotated(list(systems), turn):
                    taken[name].append(systems[name]())
                    say(workload, *name, f"{taken[name][-1].events_per_s:,.0f} events/s")
        return [drain_row(workload, name, taken) for name in systems]

    def open_loop(self, workload: str) -> list[Row]:
        """Latency of the service at a fixed offered rate, both guarantees."""
        taken: dict[str, list[Row]] = {guarantee: [] for guarantee in GUARANTEES}
        for turn in range(self.size.runs):
            for guarantee in rotated(GUARANTEES, turn):
                taken[guarantee].append(self.latency(guarantee))
                say(workload, "streamer", guarantee, json.dumps(taken[guarantee][-1]))
        return [latency_row(workload, guarantee, runs) for guarantee, runs in taken.items()]

    def latency(self, guarantee: str) -> Row:
        """One open-loop run on a fresh source topic."""
        size = self.size
        schedule = Schedule(size.rate, size.warmup_s + size.measured_s)
        with (
            self.log.lent(f"load-open-{time.time_ns()}") as source,
            Service(self.log, "bench", source, guarantee, self.models, self.scratch) as service,
        ):
            service.wait_until_settled()
            sent, arrivals = run(self.log.bootstrap, source, service.predictions, schedule)
        return judge(sent, arrivals, schedule, size.warmup_s)


def drain_row(workload: str, name: tuple[str, str], taken: dict[tuple[str, str], list[Drained]]) -> Row:
    """The row of one system; the service's also says which share of the limit it reaches."""
    system, guarantee = name
    rates = [run.events_per_s for run in taken[name]]
    row: Row = {
        "workload": workload,
        "system": system,
        "guarantee": guarantee,
        "events_per_s": median_rate(taken[name]),
        "p50_ms": None,
        "p99_ms": None,
        "runs": len(rates),
        "each_events_per_s": [round(rate) for rate in rates],
        "spread": round(spread(rates), 3),
        "cpu_us_per_event": statistics.median(run.cpu_us_per_event or 0.0 for run in taken[name]),
    }
    if system == "streamer":
        row["each_appended_per_s"] = [round(run.appended_per_s or 0.0) for run in taken[name]]
        row["share_of_copyloop"] = round(row["events_per_s"] / median_rate(taken["copyloop", guarantee]), 3)
    return row


def latency_row(workload: str, guarantee: str, runs: list[Row]) -> Row:
    """Medians over the runs that count; none of them counting leaves the numbers empty."""
    good = [run for run in runs if run["void"] is None]

    def middle(field: str) -> float | None:
        return round(statistics.median(run[field] for run in good), 3) if good else None

    return {
        "workload": workload,
        "system": "streamer",
        "guarantee": guarantee,
        "events_per_s": middle("achieved_per_s"),
        "p50_ms": middle("p50_ms"),
        "p99_ms": middle("p99_ms"),
        "runs": len(good),
        "spread": round(spread([run["p50_ms"] for run in good]), 3) if good else None,
        "each": runs,
    }


def say(*words: str) -> None:
    """Progress, one line per run."""
    print(" ".join(words), flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", help="a running broker; without it one is started and stopped")
    parser.add_argument("--only", choices=[*DRAINS, OPEN_LOOP], action="append", help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="one short run of each, to see that it works")
    parser.add_argument("--runs", type=int, help="runs of each system (3)")
    parser.add_argument("--out", type=Path, help="where the rows go; a quick run keeps none")
    return parser.parse_args()


def measure(bench: Bench, workloads: list[str], out: Path | None) -> None:
    """Run the workloads; the file is rewritten after each, so that an interrupted run leaves what it had."""
    result: dict[str, Any] = {"header": header(), "rows": []}
    noise = Noise()
    for workload in workloads:
        rows = bench.open_loop(workload) if workload == OPEN_LOOP else bench.drain(workload)
        result["rows"] += rows
        result["header"]["noise"] = {**noise.read(), "spread_max": widest(result["rows"])}
        for row in rows:
            say(json.dumps({name: value for name, value in row.items() if name != "each"}))
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    asked = options()
    size = QUICK if asked.quick else Size()
    size = Size(**{**vars(size), "runs": asked.runs or size.runs})
    out = asked.out or (None if asked.quick else RESULTS)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        make_model.write(scratch / "models")
        log = Log(asked.bootstrap or stack.enter_context(DevBroker(tell=say)).bootstrap)
        measure(Bench(log, scratch / "models", scratch, size), asked.only or [*DRAINS, OPEN_LOOP], out)


def widest(rows: list[Row]) -> float:
    """The largest spread of any row: what a difference must exceed to mean something."""
    return max((row["spread"] for row in rows if row["spread"] is not None), default=0.0)


if __name__ == "__main__":
    main()
