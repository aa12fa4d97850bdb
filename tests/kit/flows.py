"""The flow under test, and what must come out of it: recomputed record by record in plain Python."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer import Event, Model, Topology, Window, rolling
from streamer.inference.model import Features
from streamer.kafka.memory_log import MemoryLog, Record
from streamer.testing import TopologyTest

SOURCE, DEAD_LETTERS, PREDICTIONS, ANOMALIES = "readings", "readings.dead", "readings.predictions", "readings.anomalies"
COUNT = 3
THRESHOLD = 50.0
KEYS = ("a", "b", "c", "d", "e")


class Reading(Event, topic=SOURCE, key="sensor", time="ts"):
    """Two numbers of a sensor, so that windows hold more than one field."""

    sensor: str
    ts: float
    value: float
    load: float = 0.0


def features(w: Window) -> dict[str, NDArray[np.float64]]:
    """Every sample of a window leaves its mark: in the sum, in the step, in the oldest one."""
    return {"n": w.count, "total": w.sum("value"), "first": w.first("value"), "step": w.delta("load")}


def score(columns: Features) -> NDArray[np.float32]:
    """A stand-in model whose score shows all features."""
    mixed = columns["total"] + 100.0 * columns["n"] + 0.5 * columns["first"] + 0.25 * columns["step"]
    return np.asarray(mixed, np.float32)[:, None]


def topology(count: int = COUNT, name: str = "flow") -> Topology:
    """The flow with every output there is."""
    return (
        Topology(name)
        .source(Reading, dead_letters=DEAD_LETTERS)
        .window(rolling(count=count))
        .features(features)
        .infer(Model("stand-in"))
        .flag(above=THRESHOLD)
        .publish(predictions=PREDICTIONS, anomalies=ANOMALIES, features=True)
    )


def value_of(sensor: str, ts: float, value: float, load: float = 0.0) -> bytes:
    """A good record."""
    return msgspec.json.encode(Reading(sensor, ts, value, load))


@dataclass(slots=True)
class Outcome:
    """What one input record must lead to: a prediction with these numbers, or a dead letter."""

    key: bytes | None
    value: bytes | None
    good: bool
    window: list[tuple[float, float]] = field(default_factory=list)

    @property
    def features(self) -> dict[str, float]:
        """Features of the window, oldest sample first."""
        values = [value for value, _ in self.window]
        return {
            "n": float(len(values)),
            "total": math.fsum(values),
            "first": values[0],
            "step": self.window[-1][1] - self.window[0][1],
        }


def expected(log: MemoryLog, count: int = COUNT) -> dict[str, Outcome]:
    """Outcome of every record in the source topic, by id."""
    found = {}
    for partition in range(log.partitions):
        windows: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for offset in range(log.end(SOURCE, partition)):
            record = log.record(SOURCE, partition, offset)
            outcome = Outcome(record.key, record.value, good=False)
            found[f"{SOURCE}/{partition}/{offset}"] = outcome
            try:
                row = json.loads(record.value or b"")
                sample = (float(row["value"]), float(row["load"]))
                sensor = row["sensor"]
            except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
                continue
            if record.key == sensor.encode():
                outcome.good = True
                windows[sensor] = [*windows[sensor], sample][-count:]
                outcome.window = windows[sensor]
    return found


def origin(letter: Record) -> str:
    """The id a dead letter speaks of."""
    headers = dict(letter.headers)
    return "/".join(str(headers[f"streamer.error.{part}"]) for part in ("topic", "partition", "offset"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """How outputs differ from what they should be; empty lists when they do not."""

    missing: list[str]
    invented: list[str]
    repeated: list[str]
    wrong: list[str]
    disordered: list[str]

    @property
    def exactly_once(self) -> bool:
        """Nothing differs."""
        return not (self.missing or self.invented or self.repeated or self.wrong or self.disordered)

    @property
    def at_least_once(self) -> bool:
        """Nothing is lost, nothing is invented and nothing is wrong; repetitions are allowed."""
        return not (self.missing or self.invented or self.wrong)


def judge(log: MemoryLog, count: int = COUNT) -> Verdict:
    """Hold everything that a reader of committed records sees against the oracle."""
    outcomes = expected(log, count)
    predictions = [(record.key, json.loads(record.value or b"")) for record in log.committed_records(PREDICTIONS)]
    letters = log.committed_records(DEAD_LETTERS)
    anomalies = [json.loads(record.value or b"")["id"] for record in log.committed_records(ANOMALIES)]
    seen = [row["id"] for _, row in predictions] + [origin(letter) for letter in letters]
    wrong = [row["id"] for key, row in predictions if not _right(outcomes.get(row["id"]), key, row)]
    wrong += [origin(letter) for letter in letters if not _untouched(outcomes.get(origin(letter)), letter)]
    flagged = [row["id"] for _, row in predictions if row["flag"]]
    wrong += sorted(set(flagged) ^ set(anomalies)) + sorted(set(_repeated(anomalies)) - set(_repeated(flagged)))
    return Verdict(
        missing=sorted(outcomes.keys() - set(seen)),
        invented=sorted(set(seen) - outcomes.keys()),
        repeated=_repeated(seen),
        wrong=wrong,
        disordered=_disordered([row for _, row in predictions]),
    )


def _right(outcome: Outcome | None, key: bytes | None, row: dict[str, Any]) -> bool:
    if outcome is None or not outcome.good:
        return False
    want = outcome.features
    near = all(math.isclose(row["features"][name], number, rel_tol=1e-6, abs_tol=1e-6) for name, number in want.items())
    total = want["total"] + 100.0 * want["n"] + 0.5 * want["first"] + 0.25 * want["step"]
    return (
        near
        and key == outcome.key
        and row["key"].encode() == key
        and row["window_n"] == len(outcome.window)
        and math.isclose(row["score"], total, rel_tol=1e-6, abs_tol=1e-5)
        and row["flag"] == (row["score"] > THRESHOLD)
    )


def _untouched(outcome: Outcome | None, letter: Record) -> bool:
    return outcome is not None and not outcome.good and (letter.key, letter.value) == (outcome.key, outcome.value)


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _disordered(rows: list[dict[str, Any]]) -> list[str]:
    """Predictions of a key that do not stand in the order of its records."""
    last: dict[str, int] = {}
    found = []
    for row in rows:
        offset = int(row["id"].rpartition("/")[2])
        if offset <= last.get(row["key"], -1):
            found.append(row["id"])
        last[row["key"]] = offset
    return found


def send(test: TopologyTest, numbers: range, key: str = "a") -> None:
    """A record of one key for each number."""
    for n in numbers:
        test.send_bytes(SOURCE, key.encode(), value_of(key, test.now, float(n)))


def feed(test: TopologyTest, rows: int) -> None:
    """So many records of all keys in turn."""
    for n in range(rows):
        key = KEYS[n % len(KEYS)]
        test.send_bytes(SOURCE, key.encode(), value_of(key, test.now, float(n)))
