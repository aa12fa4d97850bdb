"""The topology without windows under torture: any key, one prediction from each record alone, and no state."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamer import Event, Model, Topology
from tests.faults.names import MODEL, names_from_environment

NAMES = names_from_environment()


class Reading(Event, topic=NAMES.input, time="ts"):
    """One measured value of one sensor, under whichever key."""

    sensor_id: str
    ts: float
    value: float


def features(w: Any) -> dict[str, Any]:
    """The columns that `oracle_stateless.py` recomputes."""
    value = w.event("value")
    nothing = np.zeros_like(value)
    return {
        "n": nothing,
        "mean": value,
        "std": nothing,
        "min": value,
        "max": value,
        "last": value,
        "delta": nothing,
        "rate": nothing,
    }


torture = (
    Topology("torture")
    .source(Reading, dead_letters=NAMES.dead_letters)
    .features(features)
    .infer(Model(MODEL))
    .flag(above="model.threshold")
    .publish(predictions=NAMES.predictions, anomalies=NAMES.anomalies, features=True)
)
