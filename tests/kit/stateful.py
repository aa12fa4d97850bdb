"""Flows with every kind of state, and what feeds each."""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamer import Event, Model, Topology, rolling, session, tumbling
from streamer.topology.closing import Closing
from streamer.topology.rolling import Rolling
from streamer.topology.steps import Declaration
from tests.kit import joined, labelled, rekeyed
from tests.kit.inside import InsideTest

SOURCE = "readings"


class Reading(Event, topic=SOURCE, key="sensor", time="ts"):
    """Kept in every kind of window."""

    sensor: str
    ts: float
    value: float


def windowed(window: Rolling | Closing) -> Topology:
    """A flow around a window."""
    return (
        Topology("t").source(Reading, dead_letters="bad").window(window)
        .features(lambda w: {"mean": w.mean("value"), "low": w.min("value"), "n": w.count}).infer(Model("m"))
        .publish(predictions="out", late_events="late" if isinstance(window, Closing) else None)
    )  # fmt: skip


def chosen() -> Topology:
    """A flow with two filters in front of a window."""
    return (
        Topology("t").source(Reading, dead_letters="bad")
        .filter(lambda e: e.event("value") % 3 != 0).filter(lambda e: e.event("sensor") != "s4").window(rolling(count=3))
        .features(lambda w: {"mean": w.mean("value"), "n": w.count}).infer(Model("m")).publish(predictions="out")
    )  # fmt: skip


def readings(test: InsideTest, number: int) -> None:
    """Rows of five sensors, out of order."""
    for n in range(12):
        reading = Reading(f"s{n % 5}", test.now - (n * 7) % 4, float(number + n))
        test.send(reading, step="1s")


def meetings(test: InsideTest, number: int) -> None:
    """Rows of all inputs of a join."""
    for n in range(5):
        test.send(joined.Login(f"u{n % 3}", test.now, float(n)), step="1s")
        test.send(joined.Card(f"u{n % 3}", test.now, float(number)), step="1s")
        test.send(joined.Payment(f"u{n % 3}", test.now, float(n)), step="1s")
    test.send_bytes(joined.CARDS, b"u1", None)
    test.clock.advance(1)


def labels(test: InsideTest, number: int) -> None:
    """Predictions that wait, and labels of some of them."""
    for n in range(5):
        test.send(labelled.Scored(f"payments/0/{n}", f"p{number}-{n}", test.now, 0.5, flag=True), step="1s")
    test.send(labelled.Label(f"p{number}-0", test.now, fraud=True), step="1s")
    test.clock.advance(1)


def payments(test: InsideTest, number: int) -> None:
    """Rows that get another key."""
    for n in range(6):
        value = rekeyed.payment(f"t{n % 3}", float(number + n), test.now)
        test.send_bytes(rekeyed.SOURCE, f"c{n}".encode(), value)
    test.clock.advance(30)


Feed = Callable[[InsideTest, int], None]
FLOWS: dict[str, tuple[Declaration, Feed]] = {
    "time": (windowed(rolling("20s", max_samples=5)), readings),
    "count": (windowed(rolling(count=3, ttl="60s")), readings),
    "panes": (windowed(rolling("20s", resolution="5s")), readings),
    "tumbling": (windowed(tumbling("10s", idle_timeout="5s")), readings),
    "session": (windowed(session(gap="3s", idle_timeout="5s")), readings),
    "joined": (joined.FLOW, meetings),
    "labelled": (labelled.FLOW, labels),
    "rekeyed": (rekeyed.topology("160s"), payments),
}
# Filters keep nothing, so what is forged, or restored, is that of the window alone.
FILTERED: tuple[Declaration, Feed] = (chosen(), readings)


def any_score(columns: Any) -> Any:
    """Scores of any flow."""
    return np.asarray(next(iter(columns.values())), np.float32).reshape(-1, 1)
