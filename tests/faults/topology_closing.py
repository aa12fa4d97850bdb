"""The topology of windows that close under torture: tumbling, records out of order, some of them too late."""

from __future__ import annotations

from streamer import Event, Model, Topology, tumbling
from tests.faults.names import (
    CLOSE_LATE_S,
    CLOSE_SAMPLES,
    CLOSE_SIZE_S,
    MODEL,
    closing_idle_s,
    names_from_environment,
)
from tests.faults.topology import features

NAMES = names_from_environment()


class Reading(Event, topic=NAMES.input, key="sensor_id", time="ts"):
    """One measured value of one sensor."""

    sensor_id: str
    ts: float
    value: float


torture = (
    Topology("torture")
    .source(Reading, dead_letters=NAMES.dead_letters)
    .window(
        tumbling(f"{CLOSE_SIZE_S}s", grace=f"{CLOSE_LATE_S}s", idle_timeout=f"{closing_idle_s():g}s", max_samples=CLOSE_SAMPLES)
    )
    .features(features)
    .infer(Model(MODEL))
    .flag(above="model.threshold")
    .publish(predictions=NAMES.predictions, anomalies=NAMES.anomalies, late_events=NAMES.late, features=True)
)
