"""What the benchmark runs: a rolling window of 64 readings per sensor (`wide`: of 16), six features, a small network.

The topics come from the environment, so that every run can have fresh ones on the same broker:
LOAD_SOURCE, LOAD_PREDICTIONS, LOAD_ANOMALIES, LOAD_DEAD_LETTERS.
"""

import os
from typing import Any

from numpy.typing import NDArray

from streamer import Event, Model, Topology, Window, rolling

SOURCE = os.environ.get("LOAD_SOURCE", "load.readings")
PREDICTIONS = os.environ.get("LOAD_PREDICTIONS", "load.predictions")
ANOMALIES = os.environ.get("LOAD_ANOMALIES", "load.anomalies")
DEAD_LETTERS = os.environ.get("LOAD_DEAD_LETTERS", "load.dead")


class Reading(Event, topic=SOURCE, key="sensor_id", time="ts"):
    """A sensor's value: 71 bytes of JSON as `load/events.py` writes it."""

    sensor_id: str
    ts: float
    value: float


class Job(Event, topic=SOURCE, key="sensor_id", time="ts"):
    """A reading that also says how long the model shall think about it (iterations; 0: not at all)."""

    sensor_id: str
    ts: float
    value: float
    work: float


def features(w: Window) -> dict[str, NDArray[Any]]:
    """Six statistics of the last readings."""
    return {
        "mean": w.mean("value"),
        "std": w.std("value"),
        "min": w.min("value"),
        "max": w.max("value"),
        "last": w.last("value"),
        "delta": w.delta("value"),
    }


def features_and_work(w: Window) -> dict[str, NDArray[Any]]:
    """The same six, and the current event's own `work`."""
    return features(w) | {"work": w.event("work")}


bench = (
    Topology("bench")
    .source(Reading, dead_letters=DEAD_LETTERS)
    .window(rolling(count=64))
    .features(features)
    .infer(Model("bench"), deadline="250ms", max_batch=1024)
    .flag(above="model.threshold")
    .publish(predictions=PREDICTIONS, anomalies=ANOMALIES, features=False)
)

wide = (
    Topology("wide")
    .source(Reading, dead_letters=DEAD_LETTERS)
    .window(rolling(count=16))
    .features(features)
    .infer(Model("bench"), deadline="250ms", max_batch=1024)
    .flag(above="model.threshold")
    .publish(predictions=PREDICTIONS, anomalies=ANOMALIES, features=False)
)

slow = (
    Topology("slow")
    .source(Job, dead_letters=DEAD_LETTERS)
    .window(rolling(count=64))
    .features(features_and_work)
    .infer(Model("slow"), deadline="250ms", max_batch=1024)
    .flag(above="model.threshold")
    .publish(predictions=PREDICTIONS, anomalies=ANOMALIES, features=False)
)
