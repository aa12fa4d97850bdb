"""A flow of two inputs for tests that start the service as a process; topics are named by FLOW_PREFIX."""

import os
from typing import Any

import numpy as np

from streamer import Event, Model, Topology, Window, interval, rolling

PREFIX = os.environ.get("FLOW_PREFIX", "join")


class Payment(Event, topic=f"{PREFIX}.paid", key="user", time="ts"):
    """The source."""

    user: str
    ts: float
    amount: float


class Login(Event, topic=f"{PREFIX}.logins", key="user", time="ts"):
    """The other input."""

    user: str
    ts: float
    risk: float


def features(w: Window) -> dict[str, Any]:
    """Names as the torture model knows them."""
    logins = w.of(Login)
    return {
        "n": w.count, "mean": w.sum("amount"), "std": logins.count, "min": logins.sum("risk"),
        "max": np.nan_to_num(logins.last("risk")), "last": w.last("amount"), "delta": 0 * w.count, "rate": 0 * w.count,
    }  # fmt: skip


flow = (
    Topology("joined")
    .source(Payment, dead_letters=f"{PREFIX}.paid.dead")
    .join(interval(Login, before="8s", after="4s"), dead_letters=f"{PREFIX}.logins.dead", idle_timeout="1s")
    .window(rolling("10s", max_samples=64))
    .features(features)
    .infer(Model("torture"))
    .publish(predictions=f"{PREFIX}.predictions", features=True)
)
