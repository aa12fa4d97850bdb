"""Draining a preloaded topic: the copy loop by its own clock, the service by its committed offsets."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from load.log import Log
from load.service import Service
from load.stats import Curve, rate_from_curve
from load.system import ROOT, System

GRAIN_S = 0.1
STUCK_S = 30.0


@dataclass(frozen=True)
class Drained:
    """One run.

    Attributes:
        events_per_s: the rate that counts.
        appended_per_s: the same from append times in the output topic, a check; None for the copy loop.
        cpu_us_per_event: processor time of the process; None where it was not taken.
        peak_rss_bytes: the most resident memory; None where it was not taken.
    """

    events_per_s: float
    appended_per_s: float | None = None
    cpu_us_per_event: float | None = None
    peak_rss_bytes: int | None = None


def drain_copyloop(log: Log, source: str, guarantee: str, events: int) -> Drained:
    """Run `load.copyloop` as a process of its own on a fresh sink."""
    sink = f"load-copy-{time.time_ns()}"
    log.create(sink, partitions=log.partitions(source))
    words = [sys.executable, "-m", "load.copyloop", log.bootstrap, source, sink, str(events)]
    if guarantee == "at-least-once":
        words.append("--at-least-once")
    try:
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        if answer.returncode:
            raise RuntimeError(f"the copy loop failed:\n{answer.stderr[-2_000:]}")
    finally:
        log.delete([sink])
    row = json.loads(answer.stdout)
    return Drained(float(row["events_per_s"]), cpu_us_per_event=row["cpu_us_per_event"])


def drain_service(made: Service, events: int) -> Drained:
    """Run the service over the whole topic and check that every event has its prediction.

    Raises:
        RuntimeError: it stood still for 30 s, or predictions are missing or repeated beyond the guarantee.
    """
    with made as service:
        service.wait_until_settled()
        started_s = service.cpu_s()
        curve = watch(service, events)
        cpu_us = (service.cpu_s() - started_s) * 1e6 / events
        peak = service.peak_rss_bytes()
        service.stop()
        count, first_ms, last_ms = service.log.span(service.predictions)
    guarantee = service.flow.guarantee
    if count < events or (guarantee == "exactly-once" and count != events):
        raise RuntimeError(f"{guarantee}: {events} events gave {count} predictions; no rate from that")
    appended = count / max(last_ms - first_ms, 1) * 1e3
    return Drained(rate_from_curve(curve, events), appended, round(cpu_us, 2), peak)


def watch(system: System, events: int, stuck_s: float = STUCK_S) -> Curve:
    """Sample the committed offsets every 100 ms until all events are done."""
    curve: list[tuple[float, int]] = []
    moved = time.monotonic()
    while not curve or curve[-1][1] < events:
        asked = time.monotonic()
        done = system.log.committed(system.group)
        if not curve or done > curve[-1][1]:
            moved = asked
        curve.append((time.monotonic(), done))
        if asked - moved > stuck_s:
            raise RuntimeError(f"nothing committed for {stuck_s:.0f} s at {done} of {events}:\n{system.tail()}")
        system.check()
        time.sleep(max(0.0, GRAIN_S - (time.monotonic() - asked)))
    return curve


def median_rate(runs: list[Drained]) -> int:
    """Median of the rates."""
    return round(statistics.median(run.events_per_s for run in runs))
