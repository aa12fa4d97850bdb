"""A bad record is one dead letter with its bytes untouched, whoever its neighbours are; a good one never notices them."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import Event
from streamer.codecs.json import JsonCodec
from streamer.codecs.raw import RawCodec
from streamer.stages.decode.decode import Decode
from tests.kit.flows import Reading
from tests.kit.records import (
    BAD,
    GOOD,
    HOUR_US,
    NOW_S,
    NOW_US,
    RECORD_BYTES_MAX,
    Raw,
    decoder,
    good,
    outcomes,
    records,
)

ALL_BAD = [(reason, raw) for reason, examples in BAD.items() for raw in examples]
CATALOGUE: list[Raw] = [*GOOD, *(raw for _, raw in ALL_BAD)]
# Joined with line breaks or commas, or counted, neighbours like these pass for others; each must be seen alone.
FRAGMENTS = [
    good(), b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\r", b" ", b"\x00", b"\xef\xbb\xbf", b"\xff",
    b'"sensor":"s"', b'"ts":1', b'"value":2', b'{"sensor":"s",', b'"ts":1,"value":2}', b"null", b"1", b"//", b"\n\n",
    b'{"sensor":"s\n', b'{"sensor":"s","ts":1', b'"value":1}' + good(),
]  # fmt: skip


@pytest.mark.parametrize("raw", GOOD, ids=range(len(GOOD)))
def test_a_good_record_is_a_row(raw: Raw) -> None:
    batch = decoder()(records([raw]))
    assert (len(batch), batch.dead) == (1, [])
    row = json.loads(raw[1] or b"")
    assert batch.columns["value"].tolist() == [float(row["value"])]
    assert batch.columns["load"].tolist() == [float(row.get("load", 0.0))]
    assert batch.times_us.tolist() == [round(row["ts"] * 1e6)]


@pytest.mark.parametrize(("reason", "raw"), ALL_BAD, ids=[f"{reason}-{n}" for n, (reason, _) in enumerate(ALL_BAD)])
def test_a_bad_record_is_a_dead_letter_with_this_reason(reason: str, raw: Raw) -> None:
    batch = decoder()(records([raw]))
    (letter,) = batch.dead
    assert len(batch) == 0
    assert (letter.reason, letter.stage, letter.key, letter.value) == (reason, "decode", *raw)
    assert letter.detail
    assert len(letter.detail) < 400
    assert batch.owed == {0: 101}


def together_as_alone(raw: list[Raw], *, keyed: bool = True) -> None:
    stage = decoder(keyed=keyed)
    batch = stage(records(raw))
    alone: dict[tuple[int, int], object] = {}
    for number in range(len(raw)):
        alone |= outcomes(stage(records(raw).take(np.array([number]))))
    assert outcomes(batch) == alone
    assert len(batch) + len(batch.dead) == len(raw)
    assert batch.owed == {p: 100 + (len(raw) - 1 - p) // 2 + 1 for p in (0, 1) if len(raw) > p}
    assert batch.offsets[batch.partitions == 0].tolist() == sorted(batch.offsets[batch.partitions == 0].tolist())


@settings(max_examples=150)
@given(st.lists(st.sampled_from(CATALOGUE), min_size=1, max_size=40), st.booleans())
def test_neighbours_change_nothing(raw: list[Raw], keyed: bool) -> None:
    together_as_alone(raw, keyed=keyed)


@settings(max_examples=400)
@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=4).map(b"".join), min_size=1, max_size=8))
def test_no_joint_of_neighbours_passes_for_a_record(values: list[bytes]) -> None:
    together_as_alone([(b"s", value) for value in values])


@settings(max_examples=100)
@given(st.permutations([(b"s", good(value=str(n))) for n in range(5)] + [(b"s", b"{"), (b"s", None), (None, good())]))
def test_wherever_the_bad_ones_stand_the_good_ones_keep_their_order(raw: list[Raw]) -> None:
    batch = decoder()(records(raw))
    wanted = [value for key, value in raw if key and value and value != b"{"]
    by_place = sorted(range(5), key=lambda row: (batch.offsets[row], batch.partitions[row]))
    assert [batch.values[row] for row in by_place] == wanted
    assert sorted(letter.reason for letter in batch.dead) == ["invalid_json", "null_key", "null_value"]


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["sensor", "ts", "value", "load", "x"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.just([1])),
    )
)
def test_what_passes_is_what_an_ordinary_parser_reads(row: dict[str, Any]) -> None:
    value = json.dumps(row).encode()
    sensor = row.get("sensor")
    key = sensor.encode("utf-8", "surrogatepass") if isinstance(sensor, str) else b"s"
    batch = decoder()(records([(key, value)]))
    if len(batch):
        assert isinstance(sensor, str)
        for name in ("value", "load"):
            field = row.get(name, 0.0)
            assert type(field) in {int, float}
            assert batch.columns[name].tolist() == [float(field)]
        assert abs(batch.times_us[0] / 1e6 - row["ts"]) <= 1e-6
    else:
        (letter,) = batch.dead
        assert letter.value == value


@settings(max_examples=150)
@given(st.lists(st.sampled_from(CATALOGUE), max_size=40))
def test_the_codec_reads_what_its_decoder_reads_of_each_record(raw: list[Raw]) -> None:
    events, refused = JsonCodec(Reading, RECORD_BYTES_MAX).read(records(raw))
    assert len(events) == len(raw)
    for row, (event, (_, value)) in enumerate(zip(events, raw, strict=True)):
        assert (event is None) == (row in refused)
        if event is not None:
            assert event == msgspec.json.decode(value or b"", type=Reading)


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_what_the_codec_writes_it_reads(sensor: str, ts: float, value: float) -> None:
    codec, event = JsonCodec(Reading, RECORD_BYTES_MAX), Reading(sensor, ts, value)
    written = codec.write(event)
    assert (written.key, written.headers) == (sensor.encode(), ())
    assert codec.read(records([(written.key, written.value)])) == ([event], {})


class Counted(Event, topic="counted"):
    """Numbers that are no samples, and one that is."""

    a: int
    b: bool
    c: int
    d: float = 0.5


WHOLE = st.integers() | st.integers(-(2**63) - 2, -(2**63) + 2) | st.integers(2**63 - 2, 2**63 + 2)
SAMPLE = st.integers() | st.integers(2**53 - 2, 2**53 + 2) | st.integers(-(2**53) - 2, -(2**53) + 2)


@settings(max_examples=150)
@given(st.lists(st.tuples(WHOLE, st.booleans(), SAMPLE), max_size=20))
def test_whole_numbers_are_exact_or_refused(rows: list[tuple[int, bool, int]]) -> None:
    codec = JsonCodec(Counted, RECORD_BYTES_MAX)
    stage = Decode(codec=codec, columns=("a", "b", "c", "d"), kept=frozenset("cd"), max_ahead_us=HOUR_US, keyed=False)
    raw: list[Raw] = [(None, json.dumps({"a": a, "b": b, "c": c}).encode()) for a, b, c in rows]
    batch = stage(records(raw))
    good = [row for row in rows if -(2**63) <= row[0] < 2**63 and abs(row[2]) <= 2**53]
    assert list(zip(*(batch.columns[name].tolist() for name in "abc"), strict=True)) == good
    assert [batch.columns[name].dtype for name in "abcd"] == [np.int64, np.bool_, np.int64, np.float64]
    assert {letter.reason for letter in batch.dead} == ({"number_out_of_range"} if len(good) < len(rows) else set())
    assert len(batch) + len(batch.dead) == len(rows)


# ---------------------------------------------------------------------- records as they are


class Frame(Event, topic="frames"):
    value: bytes
    key: bytes | None


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=4), st.none() | st.binary(max_size=9) | st.just(b"x" * 11)), max_size=40),
    st.booleans(),
)
def test_records_as_they_are_do_not_notice_their_neighbours(raw: list[Raw], keyed: bool) -> None:
    stage = Decode(codec=RawCodec(Frame, 10), columns=("value", "key"), max_ahead_us=HOUR_US, keyed=keyed)
    batch = stage(records(raw))
    alone: dict[tuple[int, int], object] = {}
    for number in range(len(raw)):
        alone |= outcomes(stage(records(raw).take(np.array([number]))))
    assert outcomes(batch) == alone
    good = [(key, value) for key, value in raw if value is not None and len(value) <= 10 and (not keyed or _is_text(key))]
    assert sorted(zip(batch.columns["key"], batch.columns["value"], strict=True), key=str) == sorted(good, key=str)


def _is_text(key: bytes | None) -> bool:
    return key is not None and key.decode("utf-8", "replace").encode() == key


# ---------------------------------------------------------------------- time


class Seconds(Event, topic="t", key="k", time="at", time_unit="s"):
    k: str
    at: float


class Millis(Event, topic="t", key="k", time="at", time_unit="ms"):
    k: str
    at: int


class Micros(Event, topic="t", key="k", time="at", time_unit="us"):
    k: str
    at: int


class Iso(Event, topic="t", key="k", time="at", time_unit="iso"):
    k: str
    at: str


class Moment(Event, topic="t", key="k", time="at", time_unit="iso"):
    k: str
    at: datetime


class Timeless(Event, topic="t", key="k"):
    k: str


def times(event: type[Event], at: str, **places: Any) -> tuple[list[int], list[str]]:
    value = f'{{"k":"k","at":{at}}}'.encode()
    batch = decoder(event, ())(records([(b"k", value)], **places))
    return batch.times_us.tolist(), [letter.reason for letter in batch.dead]


@pytest.mark.parametrize(
    ("event", "at"),
    [
        (Seconds, f"{NOW_S}.25"),
        (Millis, f"{NOW_S}250"),
        (Micros, f"{NOW_S}250000"),
        (Iso, '"2023-11-14T22:13:20.250Z"'),
        (Iso, '"2023-11-14T23:13:20.250000+01:00"'),
        (Iso, '"2023-11-14T22:13:20.25"'),
        (Moment, '"2023-11-14T22:13:20.250Z"'),
    ],
)
def test_every_unit_reads_the_same_instant(event: type[Event], at: str) -> None:
    assert times(event, at) == ([NOW_US + 250_000], [])


@given(st.datetimes(datetime(1970, 1, 1), datetime(2023, 11, 14)))  # noqa: DTZ001 - hypothesis wants them bare
def test_iso_times_keep_every_microsecond(moment: datetime) -> None:
    exact = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    micros = exact.days * 86_400_000_000 + exact.seconds * 1_000_000 + exact.microseconds
    assert times(Iso, f'"{moment.isoformat()}"') == ([micros], [])


@pytest.mark.parametrize("at", ['"yesterday"', '""', '"2023-13-01"', '"1700000000"', '"2023-11-14T22:13:20.250+99:00"'])
def test_an_iso_time_that_cannot_be_read_says_so(at: str) -> None:
    batch = decoder(Iso, ())(records([(b"k", f'{{"k":"k","at":{at}}}'.encode())]))
    assert [(letter.reason, "ISO-8601" in letter.detail) for letter in batch.dead] == [("wrong_type", True)]


@pytest.mark.parametrize("at", ['"0001-01-01T00:00:00+23:59"', '"1969-12-31T23:59:59.999999Z"'])
def test_an_iso_time_before_1970_is_negative(at: str) -> None:
    assert times(Iso, at) == ([], ["time_negative"])


def test_without_a_time_field_the_record_timestamp_is_the_time() -> None:
    batch = decoder(Timeless, ())(records([(b"k", b'{"k":"k"}')], timestamp_ms=1_234_567))
    assert batch.times_us.tolist() == [1_234_567_000]


@pytest.mark.parametrize("extra", [0, 1])
def test_ahead_is_counted_from_the_log_time_where_the_broker_set_it(extra: int) -> None:
    at = str(NOW_US + HOUR_US + extra)
    refused = ["time_too_far_ahead"] * extra
    late = NOW_US + 50 * HOUR_US
    assert times(Micros, at, log_append=True, polled_us=late)[1] == refused
    # a timestamp of the producer's may be anything: then our own clock decides
    assert times(Micros, at, log_append=False, polled_us=NOW_US, timestamp_ms=late)[1] == refused


@pytest.mark.parametrize("at", ["64000000000000001", "9223372036854775807", "99999999999999999999", "1e300"])
def test_no_time_overflows(at: str) -> None:
    event = Seconds if "e" in at else Micros
    far = 10**19 // 2000
    assert times(event, at, timestamp_ms=far // 1000)[1] == ["time_too_far_ahead"]
