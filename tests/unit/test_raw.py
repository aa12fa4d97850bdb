"""Records as they are: value, key and headers as columns of bytes, and what of a record makes it none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message

from streamer import Event, Model, Topology, as_of, interval, rolling, tumbling
from streamer.codecs.raw import RawCodec
from streamer.errors import TopologyError
from streamer.inference.model import Features
from streamer.planning.plan import bind
from streamer.rows.records import LOG_APPEND_TIME, Records
from streamer.settings.settings import Settings
from streamer.stages.decode.decode import Decode
from streamer.testing import constant, stand_in, values
from tests.kit.inside import InsideTest
from tests.kit.records import HOUR_US, NOW_S, NOW_US

BYTES_MAX = 1_000
Raw = tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]] | None]


class Frame(Event, topic="frames"):
    """Everything that a record has."""

    value: bytes
    key: bytes | None
    headers: dict[str, bytes | None]


class Whole(Event, topic="frames"):
    """The same, with nothing missing."""

    headers: dict[str, bytes]
    key: bytes
    value: bytes


class Bare(Event, topic="frames"):
    """A value that may be null."""

    value: bytes | None


class Picture(Event, topic="frames"):
    """A class with a word of its own on its records."""

    value: bytes

    def __post_init__(self) -> None:
        if not self.value.startswith(b"\xff\xd8"):
            raise ValueError("the value is no JPEG")


class Misnamed(Message):
    """A record with a header whose name is no text, as the client gives it."""

    def headers(self) -> Any:
        """Fail as the client does."""
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def records(raw: list[Raw], *, misnamed: int = -1) -> Records:
    n = len(raw)
    stamp = (LOG_APPEND_TIME, NOW_S * 1000)
    kinds = [Misnamed if row == misnamed else Message for row in range(n)]
    messages = [kind(timestamp=stamp, headers=headers) for kind, (_, _, headers) in zip(kinds, raw, strict=True)]
    return Records(
        topic="frames", partitions=np.zeros(n, np.int32), offsets=np.arange(n), timestamps_ms=np.full(n, NOW_S * 1000),
        messages=list(messages), keys=[key for key, _, _ in raw], values=[value for _, value, _ in raw], polled_us=NOW_US,
    )  # fmt: skip


def decoder(event: type[Event], *, keyed: bool = False) -> Decode:
    codec = RawCodec(event, BYTES_MAX)
    return Decode(codec=codec, columns=event.__struct_fields__, max_ahead_us=HOUR_US, keyed=keyed)


def refused(event: type[Event], raw: list[Raw], *, keyed: bool = False, misnamed: int = -1) -> dict[int, tuple[str, str]]:
    batch = decoder(event, keyed=keyed)(records(raw, misnamed=misnamed))
    assert sorted([*batch.offsets.tolist(), *(letter.offset for letter in batch.dead)]) == list(range(len(raw)))
    return {letter.offset: (letter.reason, letter.detail) for letter in batch.dead}


# ---------------------------------------------------------------------- columns


def test_a_record_is_columns_of_bytes() -> None:
    batch = decoder(Frame)(records([(b"\xff", b"\x00{", [("a", b"1"), ("b", None), ("a", b"2")]), (None, b"", None)]))
    assert batch.dead == []
    assert {name: column.tolist() for name, column in batch.columns.items()} == {
        "value": [b"\x00{", b""], "key": [b"\xff", None], "headers": [{"a": b"2", "b": None}, {}],
    }  # fmt: skip
    assert all(column.dtype == object and column.shape == (2,) for column in batch.columns.values())
    assert batch.times_us.tolist() == [NOW_US] * 2


def test_fields_may_stand_in_any_order() -> None:
    batch = decoder(Whole)(records([(b"k", b"v", [("h", b"x")])]))
    assert {name: column.tolist() for name, column in batch.columns.items()} == {
        "headers": [{"h": b"x"}], "key": [b"k"], "value": [b"v"],
    }  # fmt: skip


def test_what_may_be_null_is_null() -> None:
    assert decoder(Bare)(records([(None, None, None)])).columns["value"].tolist() == [None]


GOOD: Raw = (b"k", b"v", [("h", b"x")])


@pytest.mark.parametrize(("event", "bad", "reason", "says"), [
    (Frame, (b"k", None, None), "null_value", "the record has no value"),
    (Frame, (b"k", b"x" * 1_001, None), "oversize", "the value has 1,001 bytes, record_bytes_max is 1,000"),
    (Bare, (b"k", b"x" * 1_001, None), "oversize", "the value has 1,001 bytes"),
    (Frame, (b"k" * 513, b"v", None), "key_too_long", "the key has 513 bytes"),
    (Whole, (None, b"v", None), "null_key", "the record has no key; Whole.key takes that as bytes | None"),
    (Whole, (b"k", b"v", [("h", None)]), "wrong_type", "Whole.headers takes that as dict[str, bytes | None]"),
    (Picture, (b"k", b"GIF89a", None), "wrong_type", "the value is no JPEG"),
])  # fmt: skip
def test_a_bad_record_is_a_dead_letter_and_its_neighbours_go_on(event: type[Event], bad: Raw, reason: str, says: str) -> None:
    good = (b"k", b"\xff\xd8 v", [("h", b"x")])
    found = refused(event, [good, bad, good])  # type: ignore[list-item]  # one is to be refused
    assert list(found) == [1]
    assert found[1][0] == reason
    assert says in found[1][1]


def test_headers_whose_name_is_no_text_are_refused_where_somebody_reads_them() -> None:
    assert refused(Frame, [GOOD, GOOD], misnamed=1) == {1: ("invalid_utf8", "the name of a header is not UTF-8")}
    assert refused(Bare, [GOOD, GOOD], misnamed=1) == {}


@pytest.mark.parametrize(("key", "reason"), [(None, "null_key"), (b"k" * 513, "key_too_long"), (b"\xff", "invalid_utf8")])
def test_a_window_wants_a_key_that_is_text(key: bytes | None, reason: str) -> None:
    found = refused(Frame, [GOOD, (key, b"v", None), GOOD], keyed=True)
    assert {row: why for row, (why, _) in found.items()} == {1: reason}
    # Two halves of a character are none, whatever stands beside them.
    assert set(refused(Frame, [(b"\xc3", b"v", None), (b"\xa9", b"v", None)], keyed=True)) == {0, 1}


def test_of_several_reasons_that_of_the_value_is_told() -> None:
    assert refused(Frame, [(None, None, None)], keyed=True)[0][0] == "null_value"


# ---------------------------------------------------------------------- declarations


def flow(event: type[Event], **source: Any) -> Topology:
    return (
        Topology("raw")
        .source(event, dead_letters="frames.dead", format="raw", **source)
        .features(lambda w: {"size": np.array([len(value or b"") for value in w.event("value")])})
        .infer(Model("m"))
        .publish(predictions="frames.scored", features=True)
    )


class Text(Event, topic="t"):
    """A field of a wrong type."""

    value: str


class Further(Event, topic="t"):
    """A field that no record has."""

    value: bytes
    offset: int


class Limited(Event, topic="t", kw_only=True):
    """Cannot be filled by position."""

    value: bytes


class Keyed(Event, topic="t", key="value"):
    """A key that is not the record's."""

    value: bytes


class Timed(Event, topic="t", time="value"):
    """A time that is not the record's."""

    value: bytes


class Nothing(Event, topic="t"):
    """No field."""


@pytest.mark.parametrize(("event", "says"), [
    (Text, "Text.value is str; in format='raw' it is bytes, or bytes | None"),
    (Further, "a record in format='raw' has value, key, headers, and no offset; leave Further.offset out, or read format='json'"),
    (Limited, "Limited is filled by position in format='raw'; leave kw_only= out"),
    (Keyed, "in format='raw' the record key is the key of an event; leave key='value' out"),
    (Timed, "in format='raw' the record timestamp is the time; leave time='value' out"),
    (Nothing, "Nothing has no field; a record in format='raw' has value, key, headers"),
])  # fmt: skip
def test_a_class_that_no_record_fills_is_one_error_on_the_line(event: type[Event], says: str) -> None:
    topology = flow(event)
    with pytest.raises(TopologyError) as refusal:
        bind(topology, Settings(), Path(), model=stand_in(constant(1.0)))
    assert str(refusal.value).startswith(f"{__file__}:")
    assert says in str(refusal.value)


def test_a_plan_says_the_format() -> None:
    plan = bind(flow(Frame, topic="cameras"), Settings(), Path(), model=stand_in(constant(1.0)))
    told = "Frame (raw): value bytes, key bytes | None (key), headers dict[str, bytes | None]"
    assert plan.explain().reads == {"cameras": told}


def test_what_needs_a_field_is_refused() -> None:
    source = Topology("raw").source(Frame, dead_letters="frames.dead", format="raw")
    with pytest.raises(TopologyError, match=r"\.rekey\(\) takes a field, text or a whole number, and .* has none"):
        source.rekey("key")


# ---------------------------------------------------------------------- from the log to the log


def tensors(w: Any) -> dict[str, Any]:
    """Three float32 of each value; what is none is NaN."""
    made = np.full((len(w.event("value")), 3), np.nan, np.float32)
    for row, value in enumerate(w.event("value")):
        if len(value) == 12:
            made[row] = np.frombuffer(value, "<f4")
    return {"x": made, "gain": np.array([float(headers.get("gain", b"1")) for headers in w.event("headers")])}


def summed(columns: Features) -> Any:
    return (columns["x"].sum(axis=1) * columns["gain"])[:, None]


def test_bytes_go_from_topic_to_prediction() -> None:
    topology = (
        Topology("raw").source(Frame, topic="cameras", dead_letters="cameras.dead", format="raw")
        .features(tensors).infer(Model("m")).publish(predictions="scored")
    )  # fmt: skip
    frame = np.array([1, 2, 3], "<f4").tobytes()
    with InsideTest(topology, models=summed, partitions=1) as test:
        test.send(Frame(frame, b"\xff", {"gain": b"2"}), times=2)
        test.send_bytes("cameras", None, frame)
        test.send_bytes("cameras", b"k", b"no frame", headers=[("from", b"\x00")])
        test.send_bytes("cameras", b"k", None)
        rows = test.read("scored")
        letters = test.read_records("cameras.dead")
    assert values(rows, "score") == [12.0, 12.0, 6.0]
    assert values(rows, "key") == ["\ufffd", "\ufffd", None]
    assert values(rows, "id") == ["cameras/0/0", "cameras/0/1", "cameras/0/2"]
    told = {letter.value: dict(letter.headers) for letter in letters}
    assert {value: headers["streamer.error.reason"] for value, headers in told.items()} == {
        b"no frame": "score_not_finite", None: "null_value",
    }  # fmt: skip
    assert told[b"no frame"]["from"] == b"\x00"


def test_windows_count_records_of_a_key() -> None:
    topology = (
        Topology("raw").source(Frame, dead_letters="frames.dead", format="raw").window(rolling("10s", "1m"))
        .features(lambda w: {"n": w.over("10s").count, "size": np.array([len(value) for value in w.event("value")])})
        .infer(Model("m")).publish(predictions="scored", features=True)
    )  # fmt: skip
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        test.send(Frame(b"abc", b"one", {}), times=3, step="4s")
        test.send(Frame(b"z", b"two", {}))
        test.run()
        test.crash()
        test.send(Frame(b"", b"one", {}))
        rows = test.read("scored")
    assert [(row["key"], row["features"]["n"], row["window_n"], row["features"]["size"]) for row in rows] == [
        ("one", 1, 1, 3), ("one", 2, 2, 3), ("one", 3, 3, 3), ("two", 1, 1, 1), ("one", 3, 4, 0),
    ]  # fmt: skip


def test_windows_that_close_count_too() -> None:
    topology = (
        Topology("raw").source(Bare, dead_letters="frames.dead", format="raw").window(tumbling("10s"))
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions="scored", late_events="late", features=True)
    )  # fmt: skip
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        for _ in range(4):
            test.send_bytes("frames", b"k", None)
            test.clock.advance(4.0)
        rows = test.read("scored")
    assert sum(values([row["features"] for row in rows], "n")) in (2, 3)
    assert values(rows, "key") == ["k"]


class Payment(Event, key="card", time="ts"):
    """Names no topic."""

    card: str
    ts: float
    amount: float


def test_a_stream_of_raw_records_can_be_joined_and_counted() -> None:
    topology = (
        Topology("raw").source(Payment, topic="payments", dead_letters="payments.dead")
        .join(interval(Frame, before="1m"), format="raw", dead_letters="frames.dead")
        .join(as_of(Bare), topic="photos", format="raw", dead_letters="photos.dead")
        .features(lambda w: {"frames": w.of(Frame).count, "photo": w.of(Bare).count, "amount": w.event("amount")})
        .infer(Model("m")).publish(predictions="scored", features=True)
    )  # fmt: skip
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        test.send(Frame(b"1", b"c", {}), times=2)
        test.send(Bare(b"photo"))
        test.send_bytes("photos", b"c", b"photo")
        test.send(Payment("c", test.now, 5.0))
        (row,) = test.read("scored")
        (letter,) = test.read_records("photos.dead")
    assert row["features"] == {"frames": 2, "photo": 1, "amount": 5}
    assert dict(letter.headers)["streamer.error.reason"] == "null_key"
