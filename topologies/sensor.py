"""Anomalies in single-value sensors of any unit: is this reading beyond all that its own sensor did lately?

Run it:   streamer topics create topologies/sensor.py:sensor --partitions 4
          streamer run topologies/sensor.py:sensor
Feed it:  {"sensor_id": "boiler-7", "ts": 1700000000.0, "value": 81.4} with the record key boiler-7
Retrain:  python -m topologies.train_sensor --data NAB --labels LABELS   (after any change of `features` or SAMPLES)
"""

import numpy as np

from streamer import Column, Event, Model, Topology, Window, rolling

SAMPLES = 256
WARM_UP = 64  # with fewer samples nearly every reading is a record; these features stay 0 until then


class Reading(Event, topic="sensor.readings", key="sensor_id", time="ts"):
    """One value of one sensor; `ts` in seconds since the epoch."""

    sensor_id: str
    ts: float
    value: float


@np.errstate(all="ignore")  # an overflow at 1e200 becomes 0 below
def features(w: Window) -> dict[str, Column]:
    """The newest reading against the earlier ones, in their own range and spread: free of unit and level."""
    last, mean, std, n = w.last("value"), w.mean("value"), w.std("value"), w.count
    earlier = w["value"][:, :-1]
    high, low = np.fmax.reduce(earlier, axis=1), np.fmin.reduce(earlier, axis=1)
    others = np.maximum(n - 1, 1)
    variance = (n * std**2 - (last - mean) ** 2 * n / others) / others  # of the earlier readings alone
    spread = np.sqrt(np.maximum(variance, 0)) + 1e-3 * std + 1e-12 * np.abs(mean)
    above, below = np.where(n >= WARM_UP, last - high, 0), np.where(n >= WARM_UP, low - last, 0)
    record = np.maximum(above, below)
    return {
        "beyond": log_ratio(record, high - low + 0.02 * spread),
        "record": log_ratio(record, spread),
        "rise": log_ratio(above, spread),
        "fall": log_ratio(below, spread),
        "reach": log_ratio(high - low, spread),
        "count": n,
    }


def log_ratio(part: Column, whole: Column) -> Column:
    """log(1 + part / whole) of what is positive; 0 for the rest and for what is not a number."""
    ratio: Column = np.log1p(np.maximum(part, 0) / (whole + 1e-300))
    return np.nan_to_num(ratio, nan=0.0, posinf=0.0)


sensor = (
    Topology("sensor-anomaly")
    .source(Reading, dead_letters="sensor.dead")
    .window(rolling(count=SAMPLES))
    .features(features)
    .infer(Model("sensor-anomaly"), deadline="250ms", max_batch=1024)
    .flag(above="model.threshold")
    .publish(predictions="sensor.predictions", anomalies="sensor.anomalies")
)
