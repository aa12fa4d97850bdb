"""A flow with joins of every kind, and what feeds it."""

from typing import Any

import numpy as np

from streamer import Event, Model, Topology, Window, as_of, interval, lagged, rolling
from streamer.testing import TopologyTest

PAID, LOGINS, CARDS, LABELS, SCORED = "paid", "logins", "cards", "labels", "paid.scored"


class Payment(Event, topic=PAID, key="user", time="ts"):
    user: str
    ts: float
    amount: float


class Login(Event, topic=LOGINS, key="user", time="ts"):
    user: str
    ts: float
    risk: float


class Card(Event, topic=CARDS, key="user", time="ts"):
    user: str
    ts: float
    limit: float


class Label(Event, topic=LABELS, key="user", time="ts"):
    user: str
    ts: float
    fraud: bool


def features(w: Window) -> dict[str, Any]:
    logins, cards, labels = w.of(Login), w.of(Card), w.of(Label)
    return {
        "spent": w.sum("amount"),
        "logins": logins.count,
        "risk": np.nan_to_num(logins.max("risk"), nan=-1.0),
        "limit": np.nan_to_num(cards.last("limit"), nan=-1.0),
        "frauds": labels.over("1d").sum("fraud"),
        "labels": labels.over("7d").count,
    }


FLOW = (
    Topology("joined")
    .source(Payment, dead_letters="paid.dead")
    .join(interval(Login, before="10m", after="30s"), dead_letters="logins.dead")
    .join(as_of(Card), dead_letters="cards.dead")
    .join(lagged(Label, "1d", "7d", delay="7d"), dead_letters="labels.dead")
    .window(rolling("1h"))
    .features(features)
    .infer(Model("stand-in"))
    .flag(above=0.9)
    .publish(predictions=SCORED, features=True)
)


def put(test: TopologyTest, event: Event) -> None:
    test.send(event, step="0s")


PAIR = (
    Topology("pair")
    .source(Payment, dead_letters="paid.dead")
    .join(interval(Login, before="10m", after="30s"), dead_letters="logins.dead")
    .features(lambda w: {"logins": w.of(Login).count})
    .infer(Model("stand-in"))
    .publish(predictions=SCORED, features=True)
)
