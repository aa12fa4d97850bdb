"""Each documented reason of a dead letter is met: a record that is given exactly it, beside a neighbour that passes."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer import Event, Model, Topology, rolling
from streamer.inference.model import Features
from streamer.testing import TopologyTest
from tests.docs.pages import ROOT, rows

Bytes = bytes | None


class Reading(Event, topic="in", key="id", time="ts"):
    id: str
    ts: float
    value: float


flow = (
    Topology("reasons")
    .source(Reading, dead_letters="dead")
    .window(rolling(count=4))
    .features(lambda w: {"last": w.last("value"), "n": w.count})
    .infer(Model("any"))
    .publish(predictions="out")
)


def good(key: str = "k", value: str = "1.0", ts: str = "1700000000") -> bytes:
    return f'{{"id":"{key}","ts":{ts},"value":{value}}}'.encode()


RECORD: dict[str, tuple[Bytes, Bytes]] = {
    "invalid_json": (b"k", b'{"id":"k","ts":NaN,"value":1}'),
    "invalid_utf8": (b"k", good("X").replace(b"X", b"\xff")),
    "wrong_type": (b"k", good(value='"1.5"')),
    "missing_field": (b"k", b'{"id":"k","ts":1}'),
    "number_out_of_range": (b"k", good(value="1e39")),
    "too_deep": (b"k", b'{"extra":' + b"[" * 100_000),
    "empty_value": (b"k", b" \n"),
    "null_value": (b"k", None),
    "oversize": (b"k", good() + b" " * 5_000),
    "null_key": (None, good()),
    "key_mismatch": (b"j", good()),
    "key_too_long": (b"k" * 513, good("k" * 513)),
    "time_too_far_ahead": (b"k", good(ts="1700000000000")),
    "time_negative": (b"k", good(ts="-1")),
    "model_failed": (b"k", good(value="13")),
    "score_not_finite": (b"k", good(value="7")),
    "too_large": (b"k" * 500, good("k" * 500)),
}


def model(columns: Features) -> NDArray[np.float32]:
    if (columns["last"] == 13).any():
        raise ValueError("13 is not for me")
    scores = np.where(columns["last"] == 7, np.nan, 0.0)
    return scores.astype(np.float32)[:, None]


DOCUMENTED = {row[0].strip("`"): row[1] for row in rows(ROOT / "docs/topologies.md", "reason")}


def test_every_reason_has_a_record() -> None:
    # These take other kinds of flows: tests/unit/test_rekey.py, tests/unit/test_closing.py
    assert {*RECORD, "not_rekeyed", "too_many_keys"} == set(DOCUMENTED)


@pytest.mark.parametrize("reason", RECORD)
def test_record_is_given_this_reason(reason: str) -> None:
    key, value = RECORD[reason]
    settings: dict[str, Any] = {}
    if reason == "oversize":
        settings["record_bytes_max"] = "4KiB"
    sizes = {"out": 700} if reason == "too_large" else {}
    with TopologyTest(flow, models=model, partitions=1, message_bytes_max=sizes, settings=settings) as test:
        test.send_bytes("in", b"k", good())
        test.read("out")
        test.send_bytes("in", key, value)
        test.send_bytes("in", b"k", good())
        (letter,) = test.read_records("dead")
        neighbours = test.read("out")
    headers = dict(letter.headers)
    assert (headers["streamer.error.reason"], headers["streamer.error.stage"]) == (reason, DOCUMENTED[reason])
    assert (letter.key, letter.value) == (key, value[: 64 * 1024] if value else value)
    assert [prediction["id"] for prediction in neighbours] == ["in/0/2"]
