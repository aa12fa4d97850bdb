"""An open loop: events leave on a fixed schedule whatever the service does; latency counts from it.

Event i is due at start + i / rate; this moment is its event time. A prediction's latency is the moment a
read_committed reader has it in hand minus the moment its event was due: a sender that falls behind makes the
result worse, never better. How late the sender was is reported beside it.
"""

import multiprocessing
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Producer

from load.collect import Arrivals, collect_into
from load.events import Readings
from load.log import PARTITIONS
from load.stats import Floats, due, percentiles

MICROS = 1_000_000
TICK_S = 0.002
LEAD_S = 0.5  # between deciding the start and the first event
QUIET_S = 20.0


@dataclass(frozen=True)
class Schedule:
    """What is offered: `rate` events a second for `seconds`; the first `heavy` have `work` for the model."""

    rate: float
    seconds: float
    keys: int = 1_000
    heavy: int = 0
    work: int | None = None

    @property
    def events(self) -> int:
        """Events in all."""
        return round(self.rate * self.seconds)


@dataclass(frozen=True)
class Sent:
    """What the sender did.

    Attributes:
        start_s: when event 0 was due (epoch seconds).
        delays_ms: how late each event was handed to the client, after its due time.
        taken_s: from the start until the broker had everything.
    """

    start_s: float
    delays_ms: Floats
    taken_s: float


def send(bootstrap: str, topic: str, schedule: Schedule) -> Sent:
    """Offer the schedule to a topic, in ticks of 2 ms.

    Raises:
        RuntimeError: the broker refused or did not take some of the events.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            # Not idempotent: such a producer has at most five requests on their way, and its thread spins while it waits to
            # send another. On two cores that took one from the broker whenever this was slow, and so made it slower.
            "linger.ms": 0,
            "acks": "all",
            "socket.nagle.disable": True,
            "compression.type": "none",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.list_topics(topic, timeout=10)
    readings, total = Readings(schedule.keys), schedule.events
    start_us = int((time.time() + LEAD_S) * MICROS)
    delays, sent = np.empty(total), 0
    while sent < total:
        now = time.time()
        until = due(now - start_us / MICROS, schedule.rate, total)
        if until > sent:
            batch = _batch(readings, schedule, start_us, range(sent, until))
            if producer.produce_batch(topic, batch) != len(batch):
                raise RuntimeError(f"the client refused events; in its queue: {len(producer)}")
            numbers = np.arange(sent, until)
            delays[sent:until] = (time.time() - start_us / MICROS - numbers / schedule.rate) * 1e3
            sent = until
        producer.poll(0)
        time.sleep(max(0.0, TICK_S - (time.time() - now)))
    if left := producer.flush(60):
        raise RuntimeError(f"{left} events were not taken by {bootstrap} within 60 s")
    return Sent(start_us / MICROS, delays, time.time() - start_us / MICROS)


def _batch(readings: Readings, schedule: Schedule, start_us: int, numbers: range) -> list[dict[str, Any]]:
    step, work = MICROS / schedule.rate, schedule.work
    if work is None:
        return [readings.record(n, start_us + int(n * step)) for n in numbers]
    heavy = schedule.heavy
    return [readings.record(n, start_us + int(n * step), work if n < heavy else 0) for n in numbers]


def run(bootstrap: str, source: str, sink: str, schedule: Schedule, earlier: int = 0) -> tuple[Sent, Arrivals]:
    """Offer a schedule to `source` while another process collects the predictions in `sink`.

    `earlier` predictions are in the sink already and are collected too.
    """
    spawn = multiprocessing.get_context("spawn")
    pipe, other = spawn.Pipe()
    arguments = (other, (bootstrap, sink, PARTITIONS), earlier + schedule.events, QUIET_S)
    collector = spawn.Process(target=collect_into, args=arguments, daemon=True)
    collector.start()
    other.close()
    try:
        pipe.recv()  # "ready"
        sent = send(bootstrap, source, schedule)
        pipe.send("sent")
        arrivals: Arrivals = pipe.recv()
    finally:
        collector.terminate()
        collector.join()
    return sent, arrivals


def judge(sent: Sent, arrivals: Arrivals, schedule: Schedule, warmup_s: float) -> dict[str, Any]:
    """The result of one run, warm-up left out; `void` says why it must not be used, or is None."""
    kept = arrivals.intended_s >= sent.start_s + warmup_s
    latency = percentiles((arrivals.received_s - arrivals.intended_s)[kept] * 1e3)
    first = int(warmup_s * schedule.rate)
    delay_ms = percentiles(np.maximum(sent.delays_ms[first:], 0.0))["p99_ms"]
    lost, repeated = schedule.events - arrivals.distinct, arrivals.offsets.size - arrivals.distinct
    return {
        "offered_per_s": schedule.rate,
        "achieved_per_s": round(schedule.events / sent.taken_s),
        "send_delay_p99_ms": delay_ms,
        **latency,
        "lost": lost,
        "repeated": repeated,
        "void": void(delay_ms, latency["p50_ms"], lost),
    }


def void(send_delay_p99_ms: float, p50_ms: float, lost: int) -> str | None:
    """Why a run does not count; None if it does."""
    if send_delay_p99_ms > p50_ms:
        return f"the sender was late: its p99 of {send_delay_p99_ms} ms exceeds the median latency, {p50_ms} ms"
    if lost:
        return f"{lost} events had no prediction when the reader gave up"
    return None
