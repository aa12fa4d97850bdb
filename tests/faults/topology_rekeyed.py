"""The re-keyed topology under torture: records arrive under any key, and windows are per sensor all the same."""

from __future__ import annotations

from streamer import Event, Model, Topology, rolling
from tests.faults.names import MODEL, REKEY_FIELD, WINDOW_COUNT, names_from_environment
from tests.faults.topology import features

NAMES = names_from_environment()


class Reading(Event, topic=NAMES.input, time="ts"):
    """One measured value of one sensor, from whichever gateway."""

    sensor_id: str
    ts: float
    value: float


torture = (
    Topology("torture")
    .source(Reading, dead_letters=NAMES.dead_letters)
    .rekey(REKEY_FIELD)
    .window(rolling(count=WINDOW_COUNT))
    .features(features)
    .infer(Model(MODEL))
    .flag(above="model.threshold")
    .publish(predictions=NAMES.predictions, anomalies=NAMES.anomalies, features=True)
)
