"""A flow for tests that start the service as a process; topics are named by FLOW_PREFIX."""

import os
from typing import Any

from streamer import Event, Model, Topology, Window, rolling

PREFIX = os.environ.get("FLOW_PREFIX", "flow")


class Reading(Event, topic=f"{PREFIX}.in", key="sensor_id", time="ts"):
    """One value of one sensor."""

    sensor_id: str
    ts: float
    value: float


def features(w: Window) -> dict[str, Any]:
    """Names as the torture model knows them."""
    return {
        "n": w.count, "mean": w.mean("value"), "std": w.std("value"), "min": w.min("value"), "max": w.max("value"),
        "last": w.last("value"), "delta": w.delta("value"), "rate": w.rate("value"),
    }  # fmt: skip


flow = (
    Topology("flow")
    .source(Reading, dead_letters=f"{PREFIX}.dead")
    .window(rolling(count=8))
    .features(features)
    .infer(Model("torture"))
    .flag(above="model.threshold")
    .publish(predictions=f"{PREFIX}.predictions", anomalies=f"{PREFIX}.anomalies", features=True)
)
