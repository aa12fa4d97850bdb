"""This tree beside an older commit, in alternating pairs on one broker: did a change make it slower?

    python -m load.pairs --against 2129746 --pairs 7

Drains for processor time and rate, an offered rate for latency, a million keys for restore and memory; `--only` takes one.
Each pair runs both, and every second pair the other way round, so that neither always runs on a warmer machine. What counts is
the median of the ratios pair by pair; the smallest and the largest stand beside it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from load import make_model
from load.bed import Bed, Size, say
from load.drain import drain_service
from load.events import Readings, preload
from load.log import Log
from load.machine import Noise, commit
from load.older import older
from load.openloop import Schedule, judge, run
from load.restore import come_back, feed_one_each, work_through
from load.service import WIDE, Flow, Service
from load.stats import rotated
from streamer.dev_broker import DevBroker

Figures = Mapping[str, float]
Measure = Callable[[Bed, Flow], Figures]
Flows = Mapping[str, Flow]
MIB = 1 << 20


def drained(bed: Bed, flow: Flow) -> Figures:
    """A drain of a topic preloaded for this run."""
    with bed.log.lent(f"load-pairs-{time.time_ns()}") as source:
        preload(bed.log.bootstrap, source, Readings(1_000), bed.size.events)
        made = drain_service(bed.service(flow, source), bed.size.events)
    return {"cpu_us_per_event": made.cpu_us_per_event or 0.0, "events_per_s": made.events_per_s}


def open_loop(bed: Bed, flow: Flow) -> Figures:
    """Latency at a fixed offered rate, the warm-up left out.

    Raises:
        RuntimeError: the run does not count (see `load.openloop.void`).
    """
    size = bed.size
    schedule = Schedule(size.rate, size.warmup_s + size.measured_s)
    with bed.log.lent(f"load-pairs-{time.time_ns()}") as source, bed.service(flow, source) as service:
        service.wait_until_settled()
        sent, arrivals = run(bed.log.bootstrap, source, service.predictions, schedule)
    judged = judge(sent, arrivals, schedule, size.warmup_s)
    if judged["void"]:
        raise RuntimeError(judged["void"])
    return {name: judged[name] for name in ("p50_ms", "p99_ms")}


def in_turns(measure: Measure, bed: Bed, flows: Flows, pairs: int) -> Iterator[tuple[int, str, Figures]]:
    """Each flow measured by itself, in each pair anew."""
    for turn in turns(pairs):
        for name in rotated(list(flows), turn):
            yield turn, name, measure(bed, flows[name])


def restored(bed: Bed, flows: Flows, pairs: int) -> Iterator[tuple[int, str, Figures]]:
    """One history of a reading of each of a million keys, which each flow comes back to in each pair."""
    keys = bed.size.keys_many
    with ExitStack() as stack:
        source = stack.enter_context(bed.log.lent(f"load-pairs-{time.time_ns()}"))
        preload(bed.log.bootstrap, source, Readings(keys, order=1), keys)
        partitions = bed.log.partitions(source)
        systems: dict[str, Service] = {}
        for name, flow in flows.items():
            systems[name] = bed.service(wide(flow), source)
            stack.enter_context(systems[name])
            work_through(systems[name], keys)
        for turn in turns(pairs):
            feed_one_each(bed.log, source, partitions)
            fed = turn + 2  # one a pair, and one for the pair that does not count
            for name in rotated(list(flows), turn):
                back = come_back(systems[name], keys + fed * partitions, 1 + fed)
                yield turn, name, {"restore_s": back.last_s, "peak_rss_mib": back.peak_rss_bytes / MIB}


def wide(flow: Flow) -> Flow:
    """The flow of many keys, in the words of the tree that it runs in."""
    environment = dict(WIDE.environment)
    if not any("state_memory" in file.read_text() for file in (flow.root / "streamer").glob("**/settings.py")):
        environment["STREAMER_MEMORY"] = environment.pop("STREAMER_STATE_MEMORY")
    return replace(flow, name=WIDE.name, environment=environment)


WORKLOADS: Mapping[str, Callable[[Bed, Flows, int], Iterator[tuple[int, str, Figures]]]] = {
    "drain": partial(in_turns, drained),
    "open-loop": partial(in_turns, open_loop),
    "restore": restored,
}


def turns(pairs: int) -> range:
    """A turn that does not count (-1), since kernels are compiled then and the broker is cold, then one a pair."""
    return range(-1, pairs)


def in_pairs(bed: Bed, workload: str, flows: Flows, pairs: int) -> dict[str, list[Figures]]:
    """What each flow took, pair by pair."""
    taken: dict[str, list[Figures]] = {name: [] for name in flows}
    for turn, name, figures in WORKLOADS[workload](bed, flows, pairs):
        say(workload, name, *(f"{figure}={value:,.2f}" for figure, value in figures.items()), "" if turn >= 0 else "(warming)")
        if turn >= 0:
            taken[name].append(figures)
    return taken


def ratios(new: Sequence[Figures], old: Sequence[Figures], figure: str) -> list[float]:
    """New by old, pair by pair, smallest first."""
    return sorted(mine[figure] / theirs[figure] for mine, theirs in zip(new, old, strict=True))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the older commit")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=list(WORKLOADS), action="append", help="may be repeated")
    parser.add_argument("--guarantee", choices=("exactly-once", "at-least-once"), default="exactly-once")
    parser.add_argument("--events", type=int, default=Size.events, help="of each drain")
    return parser.parse_args()


def main() -> None:
    asked, noise = options(), Noise()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        make_model.write(scratch / "models")
        tree = stack.enter_context(older(asked.against))
        bed = Bed(Log(stack.enter_context(DevBroker(tell=say)).bootstrap), scratch / "models", scratch, Size(events=asked.events))
        flows = {"new": Flow(guarantee=asked.guarantee), "old": Flow(guarantee=asked.guarantee, root=tree)}
        say(f"new: {commit()}, old: {asked.against}, {asked.guarantee}")
        for workload in asked.only or WORKLOADS:
            taken = in_pairs(bed, workload, flows, asked.pairs)
            for figure in taken["new"][0]:
                middle = {name: statistics.median(run[figure] for run in runs) for name, runs in taken.items()}
                each = ratios(taken["new"], taken["old"], figure)
                say(
                    f"{workload} {figure}: new {middle['new']:,.2f}, old {middle['old']:,.2f}, new/old median "
                    f"{statistics.median(each):.3f} ({', '.join(f'{ratio:.3f}' for ratio in each)})"
                )
    say(str(noise.read()))


if __name__ == "__main__":
    main()
