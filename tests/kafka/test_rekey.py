"""Another key for the events, on a real broker: both flows in each process, and one of two processes dies."""

import json
import signal
from collections import defaultdict
from pathlib import Path

import pytest

from streamer.kafka.memory_log import Stored
from tests.kit.rekeyed import forwarded
from tests.kit.service import Flow, models

__all__ = ["models"]

FLOW = "tests/kafka/rekey_flow.py:flow"
BATCH = 300


def internal(flow: Flow) -> str:
    return f"{flow.prefix}-flow-by-site"


def windows_of(flow: Flow, count: int) -> dict[str, tuple[str, float, float]]:
    """Id -> site, samples and mean of its window, from the internal topic in its order."""
    samples: dict[tuple[int, str], list[float]] = defaultdict(list)
    found = {}
    for message in flow.committed(internal(flow), count):
        one = forwarded(Stored(None, message.value(), [], 0))
        if one.offset < 0:
            continue
        row = json.loads(one.value)
        assert message.key() == row["site"].encode()
        assert one.old_key == row["sensor_id"].encode()
        key = message.partition() or 0, row["site"]
        samples[key] = window = [*samples[key], row["value"]][-8:]
        name = f"{flow.prefix}.in/{one.partition}/{one.offset}"
        assert name not in found, f"{name} was forwarded twice"
        found[name] = row["site"], float(len(window)), sum(window) / len(window)
    # A site is in one partition, wherever its sensors are.
    assert len(samples) == len({site for _, site in samples}) == 3
    return found


def test_one_of_two_replicas_is_killed(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models, FLOW)
    flow.send(BATCH)
    with flow.running("--slot", "a"):
        assert len(flow.predictions(BATCH)) == BATCH
        with flow.running("--slot", "b", ends=signal.SIGKILL):
            for _ in range(3):
                flow.send(BATCH)
            # Some of it is done, and more is on its way.
            assert len(flow.committed(internal(flow), 2 * BATCH)) >= 2 * BATCH
            flow.send(BATCH)
        flow.send(BATCH)
        predictions = flow.predictions(6 * BATCH)
    expected = windows_of(flow, 6 * BATCH)
    assert len(expected) == len(predictions) == 6 * BATCH
    for row in predictions:
        features = row["features"]
        assert isinstance(features, dict)
        site, n, mean = expected.pop(str(row["id"]))
        assert (row["key"], row["window_n"]) == (site, n)
        assert features["mean"] == pytest.approx(mean, rel=1e-5)
    assert expected == {}
