"""The joined topology under torture: readings see the values that a second topic has for their sensor near their own time.

It names its features as the plain topology does, so that the same model and the same comparison serve both.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from streamer import Event, Model, Topology, interval, rolling
from tests.faults.names import (
    IDLE_VARIABLE,
    JOIN_AFTER_S,
    JOIN_BEFORE_S,
    JOIN_IDLE_S,
    JOIN_LATE_S,
    JOIN_LATE_VARIABLE,
    JOIN_SAMPLES,
    MODEL,
    WINDOW_COUNT,
    names_from_environment,
)

NAMES = names_from_environment()
LATE = os.environ.get(JOIN_LATE_VARIABLE, f"{JOIN_LATE_S}s")
IDLE = os.environ.get(IDLE_VARIABLE, f"{JOIN_IDLE_S}s")


class Reading(Event, topic=NAMES.input, key="sensor_id", time="ts"):
    """One measured value of one sensor."""

    sensor_id: str
    ts: float
    value: float


class Second(Event, topic=NAMES.second, key="sensor_id", time="ts"):
    """What another source says of the same sensor."""

    sensor_id: str
    ts: float
    value: float


def features(w: Any) -> dict[str, Any]:
    """The columns that `oracle_joined.py` recomputes."""
    other = w.of(Second)
    return {
        "n": w.count,
        "mean": w.mean("value"),
        "std": w.std("value"),
        "min": np.nan_to_num(other.min("value"), nan=0.0),
        "max": np.nan_to_num(other.max("value"), nan=0.0),
        "last": np.nan_to_num(other.last("value"), nan=0.0),
        "delta": other.count,
        "rate": other.sum("value"),
    }


torture = (
    Topology("torture")
    .source(Reading, dead_letters=NAMES.dead_letters)
    .join(
        interval(Second, before=f"{JOIN_BEFORE_S}s", after=f"{JOIN_AFTER_S}s", max_samples=JOIN_SAMPLES),
        dead_letters=NAMES.second_dead_letters,
        out_of_order=LATE,
        idle_timeout=IDLE,
    )
    .window(rolling(count=WINDOW_COUNT))
    .features(features)
    .infer(Model(MODEL))
    .flag(above="model.threshold")
    .publish(predictions=NAMES.predictions, anomalies=NAMES.anomalies, features=True)
)
