"""The topology of missing values under torture: the plain flow, where a reading may be null."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamer import Event, Model, Topology, rolling
from tests.faults.names import MODEL, NO_VALUE, WINDOW_COUNT, names_from_environment

NAMES = names_from_environment()


class Reading(Event, topic=NAMES.input, key="sensor_id", time="ts"):
    """One measured value of one sensor, or none."""

    sensor_id: str
    ts: float
    value: float | None


def features(w: Any) -> dict[str, Any]:
    """The columns the checker recomputes, in the order the model expects; how many values there are in place of the delta."""
    found = {
        "n": w.count,
        "mean": w.mean("value"),
        "std": w.std("value"),
        "min": w.min("value"),
        "max": w.max("value"),
        "last": w.last("value"),
        "delta": w.count("value"),
        "rate": w.rate("value"),
    }
    return {name: np.where(np.isnan(column), NO_VALUE, column) for name, column in found.items()}


torture = (
    Topology("torture")
    .source(Reading, dead_letters=NAMES.dead_letters)
    .window(rolling(count=WINDOW_COUNT))
    .features(features)
    .infer(Model(MODEL))
    .flag(above="model.threshold")
    .publish(predictions=NAMES.predictions, anomalies=NAMES.anomalies, features=True)
)
