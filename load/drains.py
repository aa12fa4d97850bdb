"""Workloads that drain a preloaded topic: beside the copy loop, with state against without, hot key against even keys."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from load.bed import Bed, Row, say
from load.drain import Drained, drain_copyloop, drain_service, median_rate
from load.events import Readings, preload
from load.service import WIDE, Flow
from load.stats import rotated, spread

GUARANTEES = ("exactly-once", "at-least-once")
STATE_KEYS = (1_000, 100_000)
HOT_KEYS = 1_000
HOT_SHARE = 0.9
EVENTS_PER_KEY = 3
MIB = 2**20
Name = TypeVar("Name")


def in_turns(
    bed: Bed, systems: Mapping[Name, Callable[[], Drained]], warm: Iterable[Name], label: str
) -> dict[Name, list[Drained]]:
    """Every system `runs` times, the order rotated; those in `warm` once before, uncounted.

    A cold broker compiles its code during the first runs.
    """
    for name in warm:
        systems[name]()
    taken: dict[Name, list[Drained]] = {name: [] for name in systems}
    for turn in range(bed.size.runs):
        for name in rotated(list(systems), turn):
            taken[name].append(systems[name]())
            say(label, str(name), f"{taken[name][-1].events_per_s:,.0f} events/s")
    return taken


def beside_copyloop(bed: Bed, workload: str, keys: int) -> list[Row]:
    """Copy loop and service, both guarantees, over one preloaded topic."""
    events = bed.size.events
    with bed.log.lent(f"load-{workload}-{time.time_ns()}") as source:
        preload(bed.log.bootstrap, source, Readings(keys), events)
        systems: dict[tuple[str, str], Callable[[], Drained]] = {}
        for g in GUARANTEES:
            systems["copyloop", g] = partial(drain_copyloop, bed.log, source, g, events)
            systems["streamer", g] = partial(_drained, bed, Flow(guarantee=g), source, events)
        taken = in_turns(bed, systems, [("copyloop", GUARANTEES[0]), ("streamer", GUARANTEES[0])], workload)
    rows = []
    for (system, guarantee), runs in taken.items():
        row = drain_row(workload, system, guarantee, runs)
        if system == "streamer":
            row["share_of_copyloop"] = round(row["events_per_s"] / median_rate(taken["copyloop", guarantee]), 3)
        rows.append(row)
    return rows


def state_cost(bed: Bed, workload: str) -> list[Row]:
    """The service as it is, and with changelog and snapshots left out, in turns; few keys and many."""
    rows = []
    for keys in STATE_KEYS:
        with bed.log.lent(f"load-{workload}-{time.time_ns()}") as source:
            preload(bed.log.bootstrap, source, Readings(keys), bed.size.events)
            flows = {"streamer": Flow(), "streamer-stateless": Flow(module="load.stateless")}
            systems = {name: partial(_drained, bed, flow, source, bed.size.events) for name, flow in flows.items()}
            taken = in_turns(bed, systems, systems, f"{workload} {keys:,} keys")
        costs = cost(taken["streamer"], taken["streamer-stateless"])
        rows += [
            drain_row(workload, name, "exactly-once", runs) | {"keys": keys} | (costs if name == "streamer" else {})
            for name, runs in taken.items()
        ]
    return rows


def hot_key(bed: Bed, workload: str) -> list[Row]:
    """The service on a topic with one hot key, and on one with even keys, in turns."""
    events = bed.size.events
    with ExitStack() as stack:
        systems = {}
        for share in (0.0, HOT_SHARE):
            source = stack.enter_context(bed.log.lent(f"load-{workload}-{time.time_ns()}"))
            preload(bed.log.bootstrap, source, Readings(HOT_KEYS, hot_share=share), events)
            systems[share] = partial(_drained, bed, Flow(), source, events)
        taken = in_turns(bed, systems, systems, workload)
    costs = cost(taken[HOT_SHARE], taken[0.0])
    return [
        drain_row(workload, "streamer", "exactly-once", runs) | {"keys": HOT_KEYS, "hot_share": share} | (costs if share else {})
        for share, runs in taken.items()
    ]


def million_keys(bed: Bed, workload: str) -> list[Row]:
    """Memory of the service with a million windows of 16."""
    keys, events = bed.size.keys_many, bed.size.keys_many * EVENTS_PER_KEY
    with bed.log.lent(f"load-{workload}-{time.time_ns()}") as source:
        preload(bed.log.bootstrap, source, Readings(keys), events)
        runs = in_turns(bed, {"streamer": partial(_drained, bed, WIDE, source, events)}, (), workload)["streamer"]
    peaks = [round((run.peak_rss_bytes or 0) / MIB) for run in runs]
    row = drain_row(workload, "streamer", "exactly-once", runs)
    return [row | {"keys": keys, "peak_rss_mib": max(peaks), "each_peak_rss_mib": peaks}]


def _drained(bed: Bed, flow: Flow, source: str, events: int) -> Drained:
    return drain_service(bed.service(flow, source), events)


def drain_row(workload: str, system: str, guarantee: str, runs: list[Drained]) -> Row:
    """What every drain has: the median rate and what is behind it."""
    rates = [run.events_per_s for run in runs]
    row: Row = {
        "workload": workload,
        "system": system,
        "guarantee": guarantee,
        "events_per_s": median_rate(runs),
        "p50_ms": None,
        "p99_ms": None,
        "runs": len(rates),
        "each_events_per_s": [round(rate) for rate in rates],
        "spread": round(spread(rates), 3),
        "cpu_us_per_event": statistics.median(run.cpu_us_per_event or 0.0 for run in runs),
    }
    if runs[0].appended_per_s is not None:
        row["each_appended_per_s"] = [round(run.appended_per_s or 0.0) for run in runs]
    return row


def cost(runs: list[Drained], against: list[Drained]) -> Row:
    """Share of the throughput lost, and of processor time added, against the other runs of the same turns.

    `cost` is of the medians. `each_cost` pairs the runs of one turn, which had about the same neighbours.
    """
    each = [1 - run.events_per_s / other.events_per_s for run, other in zip(runs, against, strict=True)]
    cpu = [(run.cpu_us_per_event or 0.0) / (other.cpu_us_per_event or 1.0) - 1 for run, other in zip(runs, against, strict=True)]
    return {
        "cost": round(1 - median_rate(runs) / median_rate(against), 3),
        "each_cost": [round(share, 3) for share in each],
        "cpu_cost": round(statistics.median(cpu), 3),
    }
