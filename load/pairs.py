"""This tree beside an older commit, in alternating pairs on one broker: did a change make it slower?

    python -m load.pairs --against 2129746 --pairs 7

Each pair runs both, and every second pair the other way round, so that neither always runs on a warmer machine. What counts is
the median of the ratios pair by pair; the smallest and the largest stand beside it.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from load import make_model
from load.bed import Bed, Size, say
from load.drain import drain_service
from load.events import Readings, preload
from load.log import Log
from load.machine import Noise, commit
from load.openloop import Schedule, judge, run
from load.service import Flow
from load.stats import rotated
from load.system import ROOT
from streamer.dev_broker import DevBroker

Figures = Mapping[str, float]
Measure = Callable[[Bed, Flow], Figures]


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


WORKLOADS: Mapping[str, Measure] = {"drain": drained, "open-loop": open_loop}


@contextmanager
def older(revision: str) -> Iterator[Path]:
    """The tree of a commit, beside this one for the length of a `with` block; it uses this environment's packages."""
    with tempfile.TemporaryDirectory(prefix="load-older-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def in_pairs(bed: Bed, workload: str, flows: Mapping[str, Flow], pairs: int) -> dict[str, list[Figures]]:
    """Each flow once uncounted, since kernels are compiled and a cold broker too, then `pairs` times in turn."""
    taken: dict[str, list[Figures]] = {name: [] for name in flows}
    for turn in range(-1, pairs):
        for name in rotated(list(flows), turn):
            figures = WORKLOADS[workload](bed, flows[name])
            say(
                workload, name, *(f"{figure}={value:,.2f}" for figure, value in figures.items()), "" if turn >= 0 else "(warming)"
            )
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
