"""The re-keyed flow under test, and what must come out of it: recomputed record by record in plain Python."""

import json
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer import Event, Model, Topology, Window, rolling
from streamer.inference.model import Features
from streamer.kafka.memory_log import MemoryLog, Record, Stored
from tests.kit.flows import origin

SOURCE, DEAD_LETTERS, PREDICTIONS = "payments", "payments.dead", "payments.predictions"
INTERNAL = "flow-flow-by-terminal"
COUNT = 3
# magic, version, partitions of the source, partition, length of the key, offset, timestamp, watermark
HEADER = struct.Struct("<HHiiiqqq")


class Payment(Event, topic=SOURCE, key="card", time="ts"):
    """Keyed by card, wanted by terminal."""

    card: str
    terminal: str | None
    ts: float
    amount: float


def features(w: Window) -> dict[str, NDArray[np.float64]]:
    """Every sample leaves its mark."""
    return {"n": w.count, "total": w.sum("amount"), "first": w.first("amount")}


def score(columns: Features) -> NDArray[np.float32]:
    """A stand-in model."""
    return np.asarray(columns["total"], np.float32)[:, None]


def topology(ttl: str | None = None, max_drift: str = "1m") -> Topology:
    """The flow; with a ttl its windows know the time."""
    return (
        Topology("flow")
        .source(Payment, dead_letters=DEAD_LETTERS)
        .rekey("terminal", max_drift=max_drift)
        .window(rolling(count=COUNT, ttl=ttl))
        .features(features)
        .infer(Model("stand-in"))
        .publish(predictions=PREDICTIONS, features=True)
    )


def payment(terminal: str | None, amount: float, ts: float = 1.7e9, card: str = "c") -> bytes:
    """A value that passes."""
    return msgspec.json.encode(Payment(card, terminal, ts, amount))


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A record of the internal topic, read without the service's code; `offset` -1 is a watermark alone."""

    partition: int
    offset: int
    timestamp_ms: int
    watermark_us: int
    upstreams: int
    old_key: bytes | None
    value: bytes


def forwarded(record: Stored) -> Forwarded:
    """Take a record of the internal topic apart."""
    data = record.value or b""
    magic, version, upstreams, partition, key_bytes, offset, timestamp, watermark = HEADER.unpack_from(data)
    assert (data[:2], magic, version) == (b"RS", 0x5352, 1)
    body = HEADER.size + max(key_bytes, 0)
    old_key = None if key_bytes < 0 else data[HEADER.size : body]
    return Forwarded(partition, offset, timestamp, watermark, upstreams, old_key, data[body:])


def judge(log: MemoryLog, *, once: bool = True) -> list[str]:
    """Everything that is wrong with what a reader of committed records sees; empty when nothing is.

    Unless `once`, outcomes and records of the internal topic may repeat; windows may not hold a record twice all the same.
    """
    wrong = []
    letters = {origin(letter): letter for letter in log.committed_records(DEAD_LETTERS)}
    rows = [json.loads(record.value or b"") for record in log.committed_records(PREDICTIONS)]
    seen = Counter([row["id"] for row in rows] + [origin(letter) for letter in log.committed_records(DEAD_LETTERS)])
    inputs = {f"{SOURCE}/{p}/{o}": log.record(SOURCE, p, o) for p in range(log.count(SOURCE)) for o in range(log.end(SOURCE, p))}
    count = seen if once else Counter(dict.fromkeys(seen, 1))
    wrong += [f"{name} has {seen[name]} outcomes" for name in {*inputs, *seen} if count[name] != (name in inputs)]
    altered = [name for name, letter in letters.items() if name in inputs and not same(letter, inputs[name])]
    wrong += [f"{name}: dead letter altered" for name in altered]
    expected = windows(log, once=once)
    for row in rows:
        found = {"n": row["features"]["n"], "total": row["features"]["total"], "first": row["features"]["first"]}
        if expected.get(row["id"]) != (row["key"], found):
            wrong.append(f"{row['id']}: {row['key']} {found}, expected {expected.get(row['id'])}")
    return wrong


def same(letter: Record, record: Record) -> bool:
    """Whether a dead letter holds the bytes of its record."""
    return (letter.key, letter.value) == (record.key, record.value)


def sent(log: MemoryLog, partition: int) -> list[tuple[Stored, Forwarded]]:
    """Committed records of a partition of the internal topic."""
    records = [log.record(INTERNAL, partition, offset) for offset in range(log.end(INTERNAL, partition))]
    return [(record, forwarded(record)) for record in records if record.state == "committed"]


def windows(log: MemoryLog, *, once: bool = True) -> dict[str, tuple[str, dict[str, float]]]:
    """Id -> key and window of each forwarded record, in the order of the internal topic."""
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for partition in range(log.partitions):
        samples: dict[str, list[float]] = defaultdict(list)
        for record, one in sent(log, partition):
            if one.offset < 0:
                continue
            name = f"{SOURCE}/{one.partition}/{one.offset}"
            assert name not in found or not once, f"{name} was forwarded twice"
            if name in found:
                continue
            row: dict[str, Any] = json.loads(one.value)
            assert record.key == row["terminal"].encode()
            samples[row["terminal"]] = window = [*samples[row["terminal"]], row["amount"]][-COUNT:]
            found[name] = (row["terminal"], {"n": len(window), "total": sum(window), "first": window[0]})
    return found


Line = tuple[int, int, int]
NO_TIME = -(2**63)


def upstreams(log: MemoryLog, partition: int) -> tuple[list[Line], list[int | None]]:
    """What a receiving partition knows of the source: its lines, and after each record how far the slowest has come.

    None: all partitions are silent.
    """
    table: dict[int, Line] = {}
    least: list[int | None] = []
    for _, one in sent(log, partition):
        for other in range(one.upstreams):
            table.setdefault(other, (NO_TIME, -1, 0))
        reached, seen, _ = table[one.partition]
        if one.offset < 0 or one.offset > seen:
            table[one.partition] = max(reached, one.watermark_us), max(seen, one.offset), int(one.offset == -2)
        least.append(min((line[0] for line in table.values() if not line[2]), default=None))
    return [table[p] for p in sorted(table)], least
