"""The topology of records as they are under torture: no JSON, any bytes, one prediction from each record alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamer import Event, Model, Topology
from tests.faults.names import MODEL, names_from_environment

NAMES = names_from_environment()


class Frame(Event):
    """A record, whatever is in it."""

    value: bytes
    key: bytes | None
    headers: dict[str, bytes | None]


def features(w: Any) -> dict[str, Any]:
    """The columns that `oracle_raw.py` recomputes."""
    values, headers = w.event("value"), w.event("headers")
    ends = np.array([(min(value), max(value), value[-1]) if value else (0, 0, 0) for value in values])
    return {
        "n": np.zeros(len(values)),
        "mean": np.array([len(found) for found in headers]),
        "std": np.array([len(value) for value in values]),
        "min": ends[:, 0],
        "max": ends[:, 1],
        "last": ends[:, 2],
        "delta": np.array([float(found.get("gain") or b"0") for found in headers]),
        "rate": np.array([-1 if key is None else len(key) for key in w.event("key")]),
    }


torture = (
    Topology("torture")
    .source(Frame, topic=NAMES.input, format="raw", dead_letters=NAMES.dead_letters)
    .features(features)
    .infer(Model(MODEL))
    .flag(above="model.threshold")
    .publish(predictions=NAMES.predictions, anomalies=NAMES.anomalies, features=True)
)
