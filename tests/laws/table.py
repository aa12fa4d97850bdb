"""The flows that the laws are held against: for each folder of `streamer/operators/` one or more, and what feeds them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

from streamer import Event, LabelMatch, Model, Topology, Window, as_of, hopping, interval, lagged, rolling, session, tumbling
from streamer import operators as package
from streamer.topology.closing import Closing, Emission
from streamer.topology.rolling import Rolling
from streamer.topology.steps import Declaration
from tests.kit import flows, joined, labelled, rekeyed

# Longer than anything waits for a silent input here: what is still open after it never closes.
IDLE_S = 600
START_S = 1_700_000_000
LATE = "late"


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to be; `at_s` is its timestamp, by which a row of a table is deleted."""

    topic: str
    key: bytes | None
    value: bytes | None
    at_s: float = START_S


Feed = Callable[[Random], list[Sent]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A topology, what feeds it and what is read of it.

    Attributes:
        operators: folders of `streamer/operators/` that its rows go through.
        topology: what runs.
        feed: records in the order of their sending; the last ones reach every partition of every source.
        outputs: topics that are compared.
        steady: whether the state follows from the input alone. Where inputs meet it counts the ticks that let rows go, and
            behind an internal topic it lies in the order in which the partitions of the source were forwarded.
        partitions: of every topic.
    """

    operators: tuple[str, ...]
    topology: Declaration
    feed: Feed
    outputs: tuple[str, ...]
    steady: bool = True
    partitions: int = 2


# ---------------------------------------------------------------------- one input

SENSORS = "abcdefg"


def readings(random: Random) -> list[Sent]:
    """Readings of some sensors, out of order by up to five seconds and now and then by more; some records are no readings."""
    sent = []
    for n in range(30):
        key = random.choice(SENSORS)
        behind = random.choice([0, 0, 1, 2, 5, 40])
        value = flows.value_of(key, START_S + 2.0 * n - behind, float(n), float(n % 4))
        sent.append(Sent(flows.SOURCE, key.encode(), value if random.randrange(9) else b"{"))
    last = random.sample(SENSORS, len(SENSORS))
    return sent + [Sent(flows.SOURCE, key.encode(), flows.value_of(key, START_S + 60.0, 1.0)) for key in last]


def features(w: Window) -> dict[str, Any]:
    """What shows every sample of a window, and their order."""
    return {"n": w.count, "total": w.sum("value"), "first": w.first("value"), "last": w.last("value"), "low": w.min("load")}


def reading(name: str, window: Rolling | Closing, emit: Emission = "both") -> Flow:
    """A flow of readings around a window."""
    closing = isinstance(window, Closing)
    start = Topology(name).source(flows.Reading, dead_letters=flows.DEAD_LETTERS)
    windowed = start.window(window, emit=emit) if closing else start.window(window)
    topology = (
        windowed.features(features).infer(Model("m")).flag(above=flows.THRESHOLD)
        .publish(predictions=flows.PREDICTIONS, anomalies=flows.ANOMALIES, features=True, late_events=LATE if closing else None)
    )  # fmt: skip
    folder = "closing" if closing else "rolling"
    return Flow(operators=(folder, "infer", "flag"), topology=topology, feed=readings, outputs=(*OF_READINGS, LATE))


OF_READINGS = (flows.PREDICTIONS, flows.ANOMALIES, flows.DEAD_LETTERS)


class Spotty(Event, topic=flows.SOURCE, key="sensor", time="ts"):
    """A reading that may be without a number."""

    sensor: str
    ts: float
    value: float
    load: float | None


def spotty(random: Random) -> list[Sent]:
    """The same readings, every third without a load."""
    fed = readings(random)
    return [sent if n % 3 else without("load", sent) for n, sent in enumerate(fed)]


def without(name: str, sent: Sent) -> Sent:
    """The same with null in a field, if it is a JSON object."""
    if sent.value in (None, b"{"):
        return sent
    return replace(sent, value=msgspec.json.encode(msgspec.json.decode(sent.value or b"") | {name: None}))


def looks_at_loads(w: Window) -> dict[str, Any]:
    """What shows how many loads there are in a window, and which: -1 for none."""
    found = {"low": w.min("load"), "first": w.first("load"), "last": w.last("load"), "total": w.sum("load")}
    return {"n": w.count, "loads": w.count("load")} | {name: np.nan_to_num(load, nan=-1.0) for name, load in found.items()}


def gaps(name: str, window: Rolling) -> Flow:
    """A flow whose samples may be without a value, and of which some windows have none."""
    topology = (
        Topology(name).source(Spotty, dead_letters=flows.DEAD_LETTERS).window(window).features(looks_at_loads)
        .infer(Model("m")).flag(above=flows.THRESHOLD)
        .publish(predictions=flows.PREDICTIONS, anomalies=flows.ANOMALIES, features=True)
    )  # fmt: skip
    return Flow(operators=("rolling", "infer", "flag"), topology=topology, feed=spotty, outputs=OF_READINGS)


def stateless() -> Flow:
    """A flow that keeps nothing."""
    topology = (
        Topology("stateless").source(flows.Reading, dead_letters=flows.DEAD_LETTERS)
        .features(lambda w: {"value": w.event("value"), "load": w.event("load")}).infer(Model("m")).flag(above=20.0)
        .publish(predictions=flows.PREDICTIONS, anomalies=flows.ANOMALIES, features=True)
    )  # fmt: skip
    return Flow(operators=("infer", "flag"), topology=topology, feed=readings, outputs=OF_READINGS)


def filtered() -> Flow:
    """A flow around a window that only some readings come to."""
    topology = (
        Topology("filtered").source(flows.Reading, dead_letters=flows.DEAD_LETTERS)
        .filter(lambda e: e.event("load") != 2.0).filter(lambda e: e.event("value") % 5 != 1)
        .window(rolling(count=3)).features(features).infer(Model("m")).flag(above=flows.THRESHOLD)
        .publish(predictions=flows.PREDICTIONS, anomalies=flows.ANOMALIES, features=True)
    )  # fmt: skip
    return Flow(operators=("filter", "rolling", "infer", "flag"), topology=topology, feed=readings, outputs=OF_READINGS)


# ---------------------------------------------------------------------- several inputs

USERS = "uvwxyz"


def event(made: Event) -> Sent:
    """An event as its producer writes it."""
    spec = type(made).__event__
    assert spec.key is not None
    return Sent(spec.topic, getattr(made, spec.key).encode(), msgspec.json.encode(made))


def meetings(random: Random) -> list[Sent]:
    """Payments, logins, cards that are replaced and deleted, and labels of the days before."""
    sent = []
    for n in range(30):
        user, ts = random.choice(USERS), START_S + 2.0 * n - random.randrange(5)
        made: Event = random.choice([
            joined.Payment(user, ts, float(n)), joined.Payment(user, ts, float(n)), joined.Login(user, ts, n / 100),
            joined.Card(user, ts, float(n)), joined.Label(user, ts - 8 * 86_400, n % 2 == 0),
        ])  # fmt: skip
        sent.append(event(made) if random.randrange(9) else Sent(type(made).__event__.topic, user.encode(), b"{"))
        if random.randrange(12) == 0:
            sent.append(Sent(joined.CARDS, user.encode(), None, START_S + 2.0 * n))
    ts = START_S + 70.0
    for user in USERS:
        sent += [event(joined.Login(user, ts, 0.5)), event(joined.Card(user, ts, 1.0)), event(joined.Label(user, ts, fraud=True))]
    return sent + [event(joined.Payment(user, ts, 1.0)) for user in random.sample(USERS, len(USERS))]


class SpottyCard(Event, topic=joined.CARDS, key="user", time="ts"):
    """A card that may be without a limit, which is not one that is deleted."""

    user: str
    ts: float
    limit: float | None


def spotty_meetings(random: Random) -> list[Sent]:
    """The same, every other card without a limit."""
    return [without("limit", sent) if sent.topic == joined.CARDS and n % 2 else sent for n, sent in enumerate(meetings(random))]


def join(name: str, *streams: Any, fed: Feed = meetings) -> Flow:
    """A flow of payments that see other streams."""
    seen = {stream.event for stream in streams}

    def looks(w: Window) -> dict[str, Any]:
        found: dict[str, Any] = {"spent": w.sum("amount"), "n": w.count}
        if joined.Login in seen:
            found |= {"logins": w.of(joined.Login).count, "risk": w.of(joined.Login).sum("risk")}
        if joined.Card in seen:
            found |= {"cards": w.of(joined.Card).count, "limit": w.of(joined.Card).sum("limit")}
        if SpottyCard in seen:
            cards = w.of(SpottyCard)
            found |= {"cards": cards.count, "limits": cards.count("limit"), "limit": np.nan_to_num(cards.last("limit"), nan=-1.0)}
        if joined.Label in seen:
            found |= {"frauds": w.of(joined.Label).over("1d").sum("fraud"), "labels": w.of(joined.Label).over("7d").count}
        return found

    topology = Topology(name).source(joined.Payment, dead_letters="paid.dead")
    for stream in streams:
        topic = f"{stream.event.__event__.topic}.dead"
        topology = topology.join(stream, dead_letters=topic, out_of_order="5s", idle_timeout=f"{IDLE_S}s")
    topology = (
        topology.window(rolling("1h")).features(looks).infer(Model("m")).flag(above=flows.THRESHOLD)
        .publish(predictions=joined.SCORED, features=True)
    )  # fmt: skip
    rejected = ("paid.dead", *(f"{stream.event.__event__.topic}.dead" for stream in streams))
    inputs = {joined.PAID, *(stream.event.__event__.topic for stream in streams)}

    def feed(random: Random) -> list[Sent]:
        return [one for one in fed(random) if one.topic in inputs]

    return Flow(
        operators=("join", "infer", "flag"), topology=topology, feed=feed, outputs=(joined.SCORED, *rejected), steady=False
    )


def labels(random: Random) -> list[Sent]:
    """Predictions, and labels of some of them, before and after; some labels come twice or for nobody."""
    sent, keys = [], [f"p{n}" for n in range(10)]
    for n in range(30):
        key, ts = random.choice(keys), START_S + 2.0 * n - random.randrange(5)
        made: Event = random.choice([
            labelled.Scored(f"payments/0/{n}", key, ts, n / 30, flag=n % 2 == 0), labelled.Label(key, ts, n % 3 == 0, f"r{n}"),
        ])  # fmt: skip
        sent.append(event(made) if random.randrange(9) else Sent(type(made).__event__.topic, key.encode(), b"{"))
    sent += [event(labelled.Label(key, START_S + 70.0, fraud=False)) for key in keys]
    last = random.sample(keys, len(keys))
    return sent + [event(labelled.Scored(f"last/{key}", key, START_S + 71.0, 0.5, flag=False)) for key in last]


def match() -> Flow:
    """A flow that waits for labels."""
    topology = (
        LabelMatch("matching").predictions(labelled.Scored, dead_letters="scored.dead")
        .labels(labelled.Label, within="30s", dead_letters="labels.dead", out_of_order="5s", idle_timeout=f"{IDLE_S}s")
        .publish(matched=labelled.MATCHED, unmatched=labelled.UNMATCHED)
    )  # fmt: skip
    outputs = (labelled.MATCHED, labelled.UNMATCHED, "scored.dead", "labels.dead")
    return Flow(operators=("match",), topology=topology, feed=labels, outputs=outputs, steady=False)


# ---------------------------------------------------------------------- another key

CARDS = "abcdef"


def payments(random: Random) -> list[Sent]:
    """Payments by card, wanted by terminal; a terminal has one card, so that its order is that of the source."""
    sent = []
    for n in range(30):
        card = random.choice(CARDS)
        sent.append(payment(card, float(n), START_S + 2.0 * n - random.randrange(5)))
        if random.randrange(9) == 0:
            sent.append(Sent(rekeyed.SOURCE, card.encode(), b"{"))
    return sent + [payment(card, 1.0, START_S + 70.0) for card in random.sample(CARDS, len(CARDS))]


def payment(card: str, amount: float, ts: float) -> Sent:
    """A payment of a card at one of its two terminals."""
    return Sent(rekeyed.SOURCE, card.encode(), rekeyed.payment(f"t-{card}{amount % 2:.0f}", amount, ts, card))


def rekey(window: Rolling | Closing, *, partitions: int) -> Flow:
    """Both flows of a topology with another key."""
    closing = isinstance(window, Closing)
    topology = (
        Topology("flow").source(rekeyed.Payment, dead_letters=rekeyed.DEAD_LETTERS).rekey("terminal", max_drift="10h")
        .window(window)
        .features(rekeyed.features).infer(Model("m"))
        .publish(predictions=rekeyed.PREDICTIONS, features=True, late_events=LATE if closing else None)
    )  # fmt: skip
    folders = ("rekey", "closing" if closing else "rolling", "infer", "flag")
    outputs = (rekeyed.PREDICTIONS, rekeyed.DEAD_LETTERS, LATE)
    return Flow(
        operators=folders, topology=topology, feed=payments, outputs=outputs, steady=partitions == 1, partitions=partitions
    )


# ---------------------------------------------------------------------- the table

IDLE = f"{IDLE_S}s"
FLOWS: dict[str, Flow] = {
    "stateless": stateless(),
    "filtered": filtered(),
    "count": reading("count", rolling(count=3)),
    "gaps": gaps("gaps", rolling(count=2)),
    "time": reading("time", rolling("20s", max_samples=4)),
    "forgetful": reading("forgetful", rolling(count=3, ttl="15s")),
    "panes": reading("panes", rolling("20s", resolution="5s")),
    "gaps in panes": gaps("gaps-in-panes", rolling("20s", resolution="5s")),
    "tumbling": reading("tumbling", tumbling("10s", grace="5s", idle_timeout=IDLE), "on_close"),
    "hopping": reading("hopping", hopping("20s", hop="5s", grace="5s", idle_timeout=IDLE), "both"),
    "session": reading("session", session(gap="7s", grace="5s", idle_timeout=IDLE), "both"),
    "early": reading("early", tumbling("10s", grace="5s"), "each"),
    "interval": join("interval", interval(joined.Login, before="10m", after="30s")),
    "as-of": join("as-of", as_of(joined.Card)),
    "gaps in a table": join("gaps-in-a-table", as_of(SpottyCard), fed=spotty_meetings),
    "lagged": join("lagged", lagged(joined.Label, "1d", "7d", delay="7d"), as_of(joined.Card)),
    "match": match(),
    "rekeyed": rekey(rolling(count=3, ttl="160s"), partitions=1),
    "rekeyed apart": rekey(rolling(count=3), partitions=3),
    "rekeyed closing": rekey(tumbling("10s", grace="6s", idle_timeout=IDLE), partitions=3),
}


def folders() -> list[str]:
    """The operators that there are, read from the tree."""
    return sorted(path.parent.name for path in Path(package.__path__[0]).glob("*/__init__.py"))


def missing(found: list[str]) -> list[str]:
    """What to do about each of these folders that no flow goes through."""
    gone_through = {folder for flow in FLOWS.values() for folder in flow.operators}
    return [
        f"streamer/operators/{folder}/ is under no law: give FLOWS in tests/laws/table.py a Flow with operators=({folder!r},)"
        for folder in found
        if folder not in gone_through
    ]
