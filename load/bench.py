"""`make bench`: the service beside its limits and peers, median of three, rotated order; see `load/README.md`."""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from load import drains, make_model, restore, results
from load.bed import QUICK, Bed, Row, Size, say
from load.drains import GUARANTEES
from load.log import Log
from load.machine import Noise, header
from load.openloop import Schedule, judge, run
from load.service import Flow
from load.stats import rotated, spread
from streamer.dev_broker import DevBroker

RESULTS = Path(__file__).parent / "results" / "latest.json"


def open_loop(bed: Bed, workload: str) -> list[Row]:
    """Latency of the service at a fixed offered rate, both guarantees; a cold broker compiles its code during the first runs."""
    for guarantee in GUARANTEES:
        latency(bed, guarantee)
    taken: dict[str, list[Row]] = {guarantee: [] for guarantee in GUARANTEES}
    for turn in range(bed.size.runs):
        for guarantee in rotated(GUARANTEES, turn):
            taken[guarantee].append(latency(bed, guarantee))
            say(workload, "streamer", guarantee, json.dumps(taken[guarantee][-1]))
    return [latency_row(workload, guarantee, runs) for guarantee, runs in taken.items()]


def latency(bed: Bed, guarantee: str) -> Row:
    """One open-loop run on a fresh source topic."""
    size = bed.size
    schedule = Schedule(size.rate, size.warmup_s + size.measured_s)
    with (
        bed.log.lent(f"load-open-{time.time_ns()}") as source,
        bed.service(Flow(guarantee=guarantee), source) as service,
    ):
        service.wait_until_settled()
        sent, arrivals = run(bed.log.bootstrap, source, service.predictions, schedule)
    return judge(sent, arrivals, schedule, size.warmup_s)


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


WORKLOADS: dict[str, Callable[[Bed, str], list[Row]]] = {
    "drain-1k-keys": partial(drains.beside_copyloop, keys=1_000),
    "drain-100k-keys": partial(drains.beside_copyloop, keys=100_000),
    "open-loop-20k": open_loop,
    "state-cost": drains.state_cost,
    "hot-key": drains.hot_key,
    "million-keys": drains.million_keys,
    "restore": restore.measure,
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", help="a running broker; without it one is started and stopped")
    parser.add_argument("--only", choices=list(WORKLOADS), action="append", help="may be repeated; other rows stay")
    parser.add_argument("--quick", action="store_true", help="one short run of each, to see that it works")
    parser.add_argument("--runs", type=int, help="runs of each system (3)")
    parser.add_argument("--out", type=Path, help="where the rows go; a quick run keeps none")
    return parser.parse_args()


def measure(bed: Bed, workloads: list[str], out: Path | None) -> None:
    """Run the workloads; each replaces its rows as it ends, so that an interrupted run leaves what it had."""
    for workload in workloads:
        noise, facts = Noise(), header()
        rows = WORKLOADS[workload](bed, workload)
        facts["noise"] = {**noise.read(), "spread_max": results.widest(rows)}
        for row in rows:
            say(json.dumps({name: value for name, value in row.items() if name != "each"}))
        if out:
            results.write(out, results.replaced(results.read(out), workload, facts, rows, list(WORKLOADS)))


def main() -> None:
    asked = options()
    size = QUICK if asked.quick else Size()
    size = Size(**{**vars(size), "runs": asked.runs or size.runs})
    out = asked.out or (None if asked.quick else RESULTS)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        make_model.write(scratch / "models")
        log = Log(asked.bootstrap or stack.enter_context(DevBroker(tell=say)).bootstrap)
        measure(Bed(log, scratch / "models", scratch, size), asked.only or list(WORKLOADS), out)


if __name__ == "__main__":
    main()
