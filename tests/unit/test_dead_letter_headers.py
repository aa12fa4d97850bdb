"""Dead letters and late records keep the headers and the timestamp that the record had, whichever stage refused it."""

import numpy as np
import pytest

from streamer import Event, Model, Topology, tumbling
from streamer.inference.model import Features
from streamer.kafka.memory_log import Record
from streamer.limits import DEAD_LETTER_BYTES_MAX, DEAD_LETTER_HEADERS_BYTES_MAX
from streamer.testing import constant
from tests.kit import flows, rekeyed
from tests.kit.inside import InsideTest
from tests.kit.schemas import problems

TRACE: list[tuple[str, bytes | None]] = [("traceparent", b"00-ab-cd-01"), ("empty", b""), ("none", None), ("bytes", b"\xff\x00")]


def originals(letter: Record) -> list[tuple[str, object]]:
    """Its headers that are not ours."""
    return [(name, value) for name, value in letter.headers if not name.startswith("streamer.")]


def ours(letter: Record) -> dict[str, str]:
    return {name.removeprefix("streamer.error."): str(value) for name, value in letter.headers if name.startswith("streamer.")}


def failing(columns: Features) -> np.ndarray:
    if (columns["total"] > 100.0).any():
        raise ValueError("too much for this model")
    return np.where(columns["total"] > 10.0, np.nan, columns["total"]).astype(np.float32)[:, None]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"s", b"{", "invalid_json"), (b"x", flows.value_of("s", 1.0, 1.0), "key_mismatch"), (b"s", None, "null_value"),
        (b"s", flows.value_of("s", 1e11, 1.0), "time_too_far_ahead"), (b"s", flows.value_of("s", 1.0, 50.0), "score_not_finite"),
        (b"s", flows.value_of("s", 1.0, 500.0), "model_failed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("created", [True, False])
def test_headers_and_timestamp_survive(key: bytes, value: bytes | None, reason: str, created: bool) -> None:
    with InsideTest(flows.topology(), models=failing, partitions=1) as test:
        test.send_bytes(flows.SOURCE, b"good", flows.value_of("good", 1.0, 1.0), headers=[("other", b"1")])
        test.clock.advance(1.0)
        stamp = 1_234_567_890_123 if created else int(test.now * 1000)
        test.send_bytes(flows.SOURCE, key, value, headers=TRACE, created_ms=stamp if created else None)
        test.clock.advance(1.0)
        test.send_bytes(flows.SOURCE, b"good", flows.value_of("good", 1.0, 1.0))
        (letter,) = test.read_records(flows.DEAD_LETTERS)
    assert originals(letter) == TRACE
    assert (ours(letter)["reason"], ours(letter)["timestamp"]) == (reason, str(stamp))


def test_without_headers_there_are_none() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        test.send_bytes(flows.SOURCE, b"s", b"{")
        (letter,) = test.read_records(flows.DEAD_LETTERS)
    assert originals(letter) == []
    assert problems("dead_letter", dict(letter.headers)) == []


def test_a_dead_letter_that_is_fed_again_is_not_mistaken_for_ours() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        test.send_bytes(flows.SOURCE, b"s", b"{", headers=[("a", b"1")])
        (first,) = test.read_records(flows.DEAD_LETTERS)
        test.send_bytes(
            flows.SOURCE, b"s", b"[", headers=[(n, v if isinstance(v, bytes) else v.encode()) for n, v in first.headers]
        )
        (second,) = test.read_records(flows.DEAD_LETTERS)
    assert ours(second)["offset"] == "1"
    assert dict(second.headers)["original.streamer.error.offset"] == b"0"
    assert dict(second.headers)["a"] == b"1"
    assert problems("dead_letter", {name: str(value) for name, value in second.headers}) == []


@pytest.mark.parametrize("value", [b"{", b"{" * (2 * DEAD_LETTER_BYTES_MAX)])
@pytest.mark.parametrize("headers", [[("big", b"x" * 200_000)], [(f"h{n}", b"x" * 100) for n in range(1000)]])
def test_headers_are_bounded(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        test.send_bytes(flows.SOURCE, b"s", value, headers=[("first", b"1"), *headers])
        (letter,) = test.read_records(flows.DEAD_LETTERS)
    kept = [(name, size) for name, size in originals(letter)]
    assert kept[0] == ("first", b"1")
    assert sum(len(name) + len(str(text)) for name, text in kept) <= DEAD_LETTER_HEADERS_BYTES_MAX
    assert int(ours(letter)["headers_dropped"]) == 1 + len(headers) - len(kept)
    assert len(letter.value or b"") == min(len(value), DEAD_LETTER_BYTES_MAX)


def test_late_records_keep_them() -> None:
    class Sample(Event, topic="samples", key="k", time="ts"):
        k: str
        ts: float

    flow = (
        Topology("late").source(Sample, dead_letters="bad").window(tumbling("10s"))
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions="out", late_events="too.late")
    )  # fmt: skip
    with InsideTest(flow, models=constant(0.0), partitions=1) as test:
        for ts in (1.0, 100.0):
            test.send_bytes("samples", b"k", b'{"k":"k","ts":%d}' % ts)
        test.send_bytes("samples", b"k", b'{"k":"k","ts":2}', headers=TRACE, created_ms=77)
        (letter,) = test.read_records("too.late")
    assert originals(letter) == TRACE
    assert ours(letter)["timestamp"] == "77"


def test_behind_a_rekey_the_timestamp_is_that_of_the_source() -> None:
    def failing_too(columns: Features) -> np.ndarray:
        raise ValueError("no")

    with InsideTest(rekeyed.topology(), models=failing_too, partitions=1) as test:
        test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, test.now), headers=TRACE, created_ms=1_600_000_000_000)
        test.send_bytes(rekeyed.SOURCE, b"c", b"{", headers=TRACE, created_ms=5)
        test.send_bytes(rekeyed.INTERNAL, b"c", b"{", headers=TRACE)
        letters = {ours(letter)["reason"]: letter for letter in test.read_records(rekeyed.DEAD_LETTERS)}
    assert (originals(letters["model_failed"]), ours(letters["model_failed"])["timestamp"]) == ([], "1600000000000")
    assert (originals(letters["invalid_json"]), ours(letters["invalid_json"])["timestamp"]) == (TRACE, "5")
    assert originals(letters["not_rekeyed"]) == TRACE
