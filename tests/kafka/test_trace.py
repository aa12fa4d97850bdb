"""`traceparent` on a real broker: in with a record, out with what comes of it, through an internal topic too."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Message

from streamer.rows.records import headers_of
from tests.kit.service import Flow, models

__all__ = ["models"]

COUNT = 60


def traced(number: int) -> list[tuple[str, str | bytes | None]]:
    """Headers with a trace that is known by a number, among others; none for every third, a malformed one for every fifth."""
    if number % 3 == 0:
        return []
    parent = "00-ab-cd-01" if number % 5 == 0 else f"00-{number:032x}-{number:016x}-01"
    return [("other", b"\xff"), ("traceparent", parent.encode()), ("tracestate", b"a=%d" % number)]


def seen(message: Message) -> list[tuple[str, bytes | None]]:
    return [(name, value) for name, value in headers_of(message) if not name.startswith("streamer.")]


@pytest.mark.parametrize("topology", ["service_flow", "rekey_flow"])
@pytest.mark.parametrize("guarantee", ["exactly-once", pytest.param("at-least-once", marks=pytest.mark.again)])
def test_a_trace_goes_along(kafka: str, models: Path, topology: str, guarantee: str) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models, f"tests/kafka/{topology}.py:flow")
    for number in range(1, COUNT + 1):
        value = {"sensor_id": "s", "site": "t", "ts": 1.7e9 + number, "value": float(number)}
        flow.producer.produce(f"{flow.prefix}.in", json.dumps(value).encode(), b"s", headers=traced(number))
    flow.producer.produce(f"{flow.prefix}.in", b"{", b"s", headers=traced(1))
    assert flow.producer.flush(20) == 0
    with flow.running("--guarantee", guarantee):
        predictions = flow.committed(f"{flow.prefix}.predictions", COUNT)
        (letter,) = flow.committed(f"{flow.prefix}.dead", 1)
    found = {int(json.loads(message.value() or b"")["features"]["last"]): seen(message) for message in predictions}
    carried = {number: [] if number % 5 == 0 else traced(number)[1:] for number in range(1, COUNT + 1)}
    assert found == carried
    assert [json.loads(message.value() or b"")["features"]["last"] for message in predictions] == list(range(1, COUNT + 1))
    assert seen(letter) == traced(1)
