"""A flow that waits for labels, and what feeds it."""

from streamer import Event, LabelMatch
from streamer.testing import TopologyTest

SCORED, LABELS, MATCHED, UNMATCHED = "payments.scored", "payments.labels", "payments.matched", "payments.unmatched"
DAY_S = 86_400


class Scored(Event, topic=SCORED, key="key", time="time"):
    id: str
    key: str
    time: float
    score: float
    flag: bool


class Label(Event, topic=LABELS, key="payment", time="at"):
    payment: str
    at: float
    fraud: bool
    reason: str = ""


FLOW = (
    LabelMatch("labelled")
    .predictions(Scored, dead_letters="scored.dead")
    .labels(Label, within="14d", dead_letters="labels.dead")
    .publish(matched=MATCHED, unmatched=UNMATCHED)
)


def put(test: TopologyTest, event: Event) -> None:
    test.send(event, step="0s")


def scored(test: TopologyTest, key: str, at: float, place: int = 7) -> None:
    put(test, Scored(f"payments/0/{place}", key, at, 0.75, True))
