"""A flow without a model that waits for labels, for tests that start the service as a process; topics by FLOW_PREFIX."""

import os

from streamer import Event, LabelMatch

PREFIX = os.environ.get("FLOW_PREFIX", "match")


class Scored(Event, topic=f"{PREFIX}.scored", key="key", time="time"):
    """A prediction of an earlier flow."""

    id: str
    key: str
    time: float
    score: float


class Label(Event, topic=f"{PREFIX}.labels", key="payment", time="at"):
    """What became of it."""

    payment: str
    at: float
    fraud: bool


flow = (
    LabelMatch("labelled")
    .predictions(Scored, dead_letters=f"{PREFIX}.scored.dead")
    .labels(Label, within="1d", dead_letters=f"{PREFIX}.labels.dead")
    .publish(matched=f"{PREFIX}.matched", unmatched=f"{PREFIX}.unmatched")
)
