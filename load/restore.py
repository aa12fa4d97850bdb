"""Restore: how long after its assignment a system that lost its disk answers a new record of its last partition.

Each system has processed the same history, every key's readings one at a time, and left its changelog as it is. Then,
again and again: one new record per partition, an empty disk, a fresh process. The clock runs from the moment the broker
wrote down the group's assignment to the append of the first result of each partition that a read_committed reader sees.
Both are moments of the broker's clock, and both are asked of the broker alone.
"""

import json
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from confluent_kafka import Message, Producer

from load.bed import Bed, Row, say
from load.drain import watch
from load.events import Readings, preload
from load.log import OFFSETS_TOPIC, Log
from load.peers import kafka_streams
from load.service import WIDE
from load.stats import rotated, spread
from load.system import System

EMPTY_WITHIN_S = 60.0
STUCK_S = 300.0
UPDATES_PER_KEY = (1, 4)


@dataclass(frozen=True)
class Back:
    """One restore: seconds from the assignment to the first result of the first and of the last partition.

    Attributes:
        peak_rss_bytes: the most resident memory of that process.
    """

    first_s: float
    last_s: float
    peak_rss_bytes: int = 0


def measure(bed: Bed, workload: str) -> list[Row]:
    """The rows of the service and of its peer, after a short and after a longer history."""
    return [row for updates in UPDATES_PER_KEY for row in after(bed, workload, updates)]


def after(bed: Bed, workload: str, updates: int) -> list[Row]:
    """The rows after a history of so many readings of every key."""
    keys = bed.size.keys_many
    events = keys * updates
    with ExitStack() as stack:
        source = stack.enter_context(bed.log.lent(f"load-restore-{time.time_ns()}"))
        preload(bed.log.bootstrap, source, Readings(keys, order=1), events)
        systems = {
            "streamer": bed.service(WIDE, source),
            "kafka-streams": kafka_streams.KafkaStreams(bed.log, source, bed.scratch),
        }
        for name, system in systems.items():
            stack.enter_context(system)  # started
            work_through(system, events)
            say(workload, name, f"has {updates} readings of {keys:,} keys")
        taken: dict[str, list[Back]] = {name: [] for name in systems}
        partitions = bed.log.partitions(source)
        for turn in range(bed.size.runs):
            feed_one_each(bed.log, source, partitions)
            for name in rotated(list(systems), turn):
                taken[name].append(come_back(systems[name], events + (turn + 1) * partitions, updates + turn + 1))
                say(workload, name, f"{taken[name][-1].last_s:.2f} s")
    return rows(workload, taken, {"keys": keys, "updates_per_key": updates, "partitions": partitions})


def work_through(system: System, events: int) -> None:
    """Wait until a system that was started has the history, and stop it."""
    system.wait_until_settled()  # asked for offsets by a client for administration, a coordinator that starts up kills it
    watch(system, events, STUCK_S)
    stop(system)


def stop(system: System) -> None:
    """Stop a system and wait until its group has no members, so that the next start is assigned everything at once."""
    if status := system.stop():
        raise RuntimeError(f"{system.group} answered SIGTERM with exit status {status}:\n{system.tail()}")
    system.log.wait_until_empty(system.group, EMPTY_WITHIN_S)


def feed_one_each(log: Log, source: str, partitions: int) -> None:
    """One more reading of some key of each partition, always the same key."""
    keys = {partition: message.key() for partition, message in log.firsts(source, dict.fromkeys(range(partitions), 0)).items()}
    producer = Producer({"bootstrap.servers": log.bootstrap})
    for partition, key in keys.items():
        value = json.dumps({"sensor_id": (key or b"").decode(), "ts": time.time(), "value": 20.0}, separators=(",", ":"))
        producer.produce(source, value, key, partition=partition)
    if left := producer.flush(30):
        raise RuntimeError(f"{left} of {partitions} new records were not taken by {log.bootstrap}")


def come_back(system: System, events: int, samples: int) -> Back:
    """Start a system that has everything but the newest record of each partition, and stop it when it has these too."""
    log = system.log
    offsets, outputs = log.ends(OFFSETS_TOPIC), log.ends(system.predictions)
    system.start()
    watch(system, events, STUCK_S)
    peak = system.peak_rss_bytes()
    stop(system)
    back = judge(log.assigned_ms(system.group, offsets), log.firsts(system.predictions, outputs), len(outputs), samples)
    return replace(back, peak_rss_bytes=peak)


def judge(assigned_ms: int, firsts: Mapping[int, Message], partitions: int, samples: int) -> Back:
    """Seconds from the assignment to each partition's first result.

    Raises:
        RuntimeError: a partition has no result, or one whose window does not hold the history.
    """
    if len(firsts) < partitions:
        raise RuntimeError(f"only partitions {sorted(firsts)} of {partitions} have a result")
    for partition, message in firsts.items():
        if (held := json.loads(message.value() or b"{}").get("window_n")) != samples:
            raise RuntimeError(f"partition {partition}: the window holds {held} readings, {samples} were sent: no restore")
    times = [message.timestamp()[1] for message in firsts.values()]
    return Back((min(times) - assigned_ms) / 1e3, (max(times) - assigned_ms) / 1e3)


def rows(workload: str, taken: Mapping[str, list[Back]], facts: Row) -> list[Row]:
    """One row a system; the service's also says how much faster it is than the peer."""
    middle = {name: statistics.median(back.last_s for back in runs) for name, runs in taken.items()}
    found = []
    for name, runs in taken.items():
        row = {
            "workload": workload,
            "system": name,
            "guarantee": "exactly-once",
            "seconds": round(middle[name], 3),
            **facts,
            "runs": len(runs),
            "each_seconds": [back.last_s for back in runs],
            "each_first_partition_seconds": [back.first_s for back in runs],
            "spread": round(spread([back.last_s for back in runs]), 3),
        }
        if name == "streamer":
            row["times_faster"] = round(middle["kafka-streams"] / middle[name], 2)
        else:
            row |= {"version": kafka_streams.VERSION, "heap": " ".join(kafka_streams.HEAP), "threads": kafka_streams.THREADS}
        found.append(row)
    return found
