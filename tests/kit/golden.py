"""Flows whose state an older version has recorded, and what feeds them. The file beside it, `golden.json`, was made by

    python -m tests.kit.golden --against 2129746

which lets that commit's own tree run this file, in its words. What is declared and sent here stays as it is, or the recording
is made anew.
"""

import argparse
import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import TopicPartition

from streamer import Event, LabelMatch, Model, Topology, Window, as_of, interval, limits, rolling, tumbling
from tests.kit.inside import InsideTest

NAME, START_S, STEP_S, PARTITIONS = "golden", 1_700_000_000, 2, 2
# Records by step: what the older version read, and what comes behind it; time stands still in the middle of both.
BEFORE, AFTER, REST, SILENCE_S, SILENT = range(24), range(24, 44), 4, 60, (12, 32)
OUTPUTS = ("out", "unmatched", "late", "dead", "dead2")
RECORDING = Path(__file__).with_suffix(".json")


# A base snapshot as soon as there is a block.
BASES_SOON = {"SNAPSHOT_BLOCKS_RATIO": 0, "SNAPSHOT_BLOCKS_MIN_BYTES": 1}


class Reading(Event, topic="readings", key="sensor", time="ts"):
    """A value of a sensor."""

    sensor: str
    ts: float
    value: float
    site: str = "a"


class Limit(Event, topic="limits", key="sensor", time="ts"):
    """What is known of a sensor."""

    sensor: str
    ts: float
    limit: float


class Scored(Event, topic="scored", key="sensor", time="ts"):
    """A prediction."""

    sensor: str
    ts: float
    score: float


class Label(Event, topic="labels", key="sensor", time="ts"):
    """What came of it."""

    sensor: str
    ts: float
    good: bool


Sent = tuple[str, str, dict[str, Any] | None]


def readings(n: int) -> list[Sent]:
    """Two readings, the second one back in time, now and then by far; some are none."""
    ts, back = float(START_S + STEP_S * n), (1, 3, 1, 9)[n % 4]
    first, second = f"s{n * 7 % 5}", f"s{n * 3 % 5}"
    bad = {"sensor": second, "ts": "?"} if n % 11 == 5 else {"sensor": second, "ts": ts - back, "value": n / 7}
    return [
        ("readings", first, {"sensor": first, "ts": ts, "value": float(n * n % 17), "site": f"x{n % 3}"}),
        ("readings", second, bad),
    ]


def meetings(n: int) -> list[Sent]:
    """The same, and limits of some sensors."""
    key = f"s{n * 2 % 5}"
    ts = float(START_S + STEP_S * n)
    return [*readings(n), *([("limits", key, {"sensor": key, "ts": ts - 0.5, "limit": n / 3})] if n % 3 else [])]


def labels(n: int) -> list[Sent]:
    """A prediction, and the label of one before it or behind it."""
    ts, key, other = float(START_S + STEP_S * n), f"p{n % 8}", f"p{(n + n % 3) % 9}"
    return [
        ("scored", key, {"sensor": key, "ts": ts, "score": n / 8}),
        ("labels", other, {"sensor": other, "ts": ts - 1.0, "good": n % 2 == 0}),
    ]


def features(w: Window) -> dict[str, Any]:
    """What shows each sample of a window."""
    return {"n": w.count, "mean": w.mean("value"), "std": w.std("value"), "max": w.max("value")}


def looks(w: Window) -> dict[str, Any]:
    """What an event sees of the limits."""
    seen = w.of(Limit)
    return {"n": seen.count, "last": np.nan_to_num(seen.last("limit"), nan=-1.0), "value": w.event("value")}


def score(columns: Any) -> Any:
    """A stand-in model whose score shows all features."""
    return np.asarray(sum((n + 1) * columns[name] for n, name in enumerate(sorted(columns))), np.float32)[:, None]


@dataclass(frozen=True)
class Golden:
    """A flow, what is sent in a step, and what is another limit there than in `streamer/limits.py`."""

    topology: Any
    feed: Callable[[int], list[Sent]]
    limits: Mapping[str, int] = field(default_factory=dict)

    def run(self, test: InsideTest, steps: range, *, turn: bool = True) -> None:
        """Send what belongs to these steps; without turns it only lies in the log afterwards."""
        for n in steps:
            at_us = (START_S + STEP_S * n + SILENCE_S * sum(n >= silent for silent in SILENT)) * 1_000_000
            test.clock.advance((at_us - test.clock.wall_us()) / 1e6)
            for topic, key, row in self.feed(n):
                test.send_bytes(topic, key.encode(), json.dumps(row).encode())
            if turn and n % REST == REST - 1:
                test.run()

    def test(self) -> InsideTest:
        """The flow on an empty log."""
        given: dict[str, Any] = {} if self.feed is labels else {"models": score}
        return InsideTest(self.topology, **given, partitions=PARTITIONS, start=START_S - 10)


def source() -> Topology:
    """What most flows begin with."""
    return Topology(NAME).source(Reading, dead_letters="dead")


def end(topology: Any, columns: Callable[[Any], dict[str, Any]] = features, late: str | None = None) -> Topology:
    """What they end with."""
    made: Topology = topology.features(columns).infer(Model("m")).publish(predictions="out", features=True, late_events=late)
    return made


def looking(join: Any) -> Golden:
    """Readings that see limits."""
    return Golden(end(source().join(join, dead_letters="dead2", out_of_order="2s"), looks), meetings)


FLOWS = {
    "time": Golden(
        end(
            source().window(rolling("60s", "10s", max_samples=6)),
            lambda w: features(w.over("60s")) | {"few": w.over("10s").count},
        ),
        readings,
    ),
    "count": Golden(end(source().window(rolling(count=3, ttl="50s"))), readings),
    "panes": Golden(end(source().window(rolling("60s", resolution="5s"))), readings),
    "tumbling": Golden(end(source().window(tumbling("10s", grace="3s", idle_timeout="30s"), emit="both"), late="late"), readings),
    "interval": looking(interval(Limit, before="9s", after="2s")),
    "as-of": looking(as_of(Limit)),
    "rekeyed": Golden(end(source().rekey("site", max_drift="10h").window(rolling(count=3, ttl="90s"))), readings),
    "match": Golden(
        LabelMatch(NAME)
        .predictions(Scored, dead_letters="dead")
        .labels(Label, within="30s", dead_letters="dead2", out_of_order="2s")
        .publish(matched="out", unmatched="unmatched"),
        labels,
    ),
    "bases": Golden(end(source().window(rolling(count=3))), readings, BASES_SOON),
}


def kept(test: InsideTest) -> dict[str, Any]:
    """What the service keeps for itself in the log: its topics, and what its groups committed."""
    log: Any = test.log
    own = {topic: parts for topic, parts in log._topics.items() if topic.startswith(f"{NAME}-") and any(parts)}
    assert all(record.state == "committed" for parts in own.values() for part in parts for record in part)
    return {
        "now_us": test.clock.wall_us(),
        "topics": {topic: [[_record(record) for record in part] for part in parts] for topic, parts in own.items()},
        "lows": [[topic, partition, low] for (topic, partition), low in log.lows.items() if low],
        "offsets": [[group, *at, *said] for group, known in log._groups.items() for at, said in known.offsets.items()],
    }


def _record(record: Any) -> list[Any]:
    headers = [[name, _text(value)] for name, value in record.headers]
    return [_text(record.key), _text(record.value), headers, record.timestamp_ms]


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def data(text: str | None) -> bytes | None:
    """Bytes of the recording."""
    return None if text is None else b64decode(text)


def put(test: InsideTest, recorded: dict[str, Any]) -> None:
    """Let the log hold what was recorded, beside what lies in it."""
    test.clock.advance((recorded["now_us"] - test.clock.wall_us()) / 1e6)
    for topic, parts in recorded["topics"].items():
        for partition, records in enumerate(parts):
            for key, value, headers, at_ms in records:
                named = [(name, data(text)) for name, text in headers]
                test.log.append(topic, data(key), data(value), partition, named, created_ms=at_ms)
    for topic, partition, low in recorded["lows"]:
        test.log.delete_records(topic, partition, low)
    for group, topic, partition, offset, metadata in recorded["offsets"]:
        test.log.commit(group, [TopicPartition(topic, partition, offset, metadata)])


def written() -> dict[str, Any]:
    """The recording, flow by flow."""
    found: dict[str, Any] = json.loads(RECORDING.read_text())
    return found


def write(path: Path) -> None:
    """Run the first part of each flow, and write down what is kept."""
    found: dict[str, Any] = {}
    for name, flow in FLOWS.items():
        for limit, value in flow.limits.items():
            setattr(limits, limit, value)
        with flow.test() as test:
            flow.run(test, BEFORE)
            found[name] = kept(test)
    path.write_text("{\n" + ",\n".join(f'"{name}": {json.dumps(one)}' for name, one in found.items()) + "\n}\n")


def record(tree: Path) -> None:
    """Let another tree write the recording."""
    from tests.kit.older_words import words_of  # noqa: PLC0415 - the other tree, which runs this file, has no such module

    kit = tree / "tests" / "kit"
    kit.mkdir(exist_ok=True)
    if not (kit / "inside.py").exists():  # it all lay open there
        (kit / "inside.py").write_text("from streamer.testing import TopologyTest as InsideTest\n")
    (kit / "golden.py").write_text(words_of(tree).file(Path(__file__).read_text()))
    command = [sys.executable, "-m", "tests.kit.golden", "--write", str(RECORDING)]
    subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Have an older version record what it keeps of the flows of this file.")
    parser.add_argument("--against", metavar="COMMIT", help="whose tree does it")
    parser.add_argument("--write", metavar="FILE", type=Path, help="do it with this tree")
    args = parser.parse_args()
    if args.write:
        write(args.write)
        return
    from load.older import older  # noqa: PLC0415 - as above

    with older(args.against) as tree:
        record(tree)


if __name__ == "__main__":
    main()
