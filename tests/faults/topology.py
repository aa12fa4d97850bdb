"""The topology under torture: a short window that overflows soon, every compiled feature, features published.

`streamer run tests/faults/topology.py:torture`; the topics' prefix comes from TORTURE_PREFIX.
"""

from __future__ import annotations

from typing import Any

from streamer import Event, Model, Topology, rolling
from tests.faults.names import MODEL, WINDOW_COUNT, names_from_environment

NAMES = names_from_environment()


class Reading(Event, topic=NAMES.input, key="sensor_id", time="ts"):
    """One measured value of one sensor."""

    sensor_id: str
    ts: float
    value: float


def features(w: Any) -> dict[str, Any]:
    """The columns the checker recomputes, in the order the model expects."""
    return {
        "n": w.count,
        "mean": w.mean("value"),
        "std": w.std("value"),
        "min": w.min("value"),
        "max": w.max("value"),
        "last": w.last("value"),
        "delta": w.delta("value"),
        "rate": w.rate("value"),
    }


torture = (
    Topology("torture")
    .source(Reading, dead_letters=NAMES.dead_letters)
    .window(rolling(count=WINDOW_COUNT))
    .features(features)
    .infer(Model(MODEL))
    .flag(above="model.threshold")
    .publish(predictions=NAMES.predictions, anomalies=NAMES.anomalies, features=True)
)
