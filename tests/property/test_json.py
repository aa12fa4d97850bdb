"""The compiled JSON writer against ordinary parsers: what is read back is what was written, and no byte lies outside."""

import ctypes
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.operators.closing.windows import Windows
from streamer.rows.batch import Batch
from streamer.rows.served import Served, ServedRows
from streamer.rows.spans import Spans
from streamer.stages.produce.encode import Encoder
from streamer.stages.produce.record_kernel import room, write_records
from tests.kit.schemas import problems

TOPIC = "sensor.readings"
STEP = "infer-1"
POLLED_US = 1_700_000_000_000_456
TEN_YEARS_US = 3660 * 86_400 * 10**6
INT64_MAX = 2**63 - 1
CANARY = 0xA5


def served(usual: dict[str, tuple[float, float]] | None = None) -> Served:
    return Served(model="m", version=7, digest="sha256:0", threshold=0.0, score_column=-1, usual=usual or {})


def batch(
    keys: list[bytes | None],
    scores: NDArray[np.float32],
    *,
    features: dict[str, NDArray[np.float32]] | None = None,
    partitions: list[int] | None = None,
    offsets: list[int] | None = None,
    times_us: list[int] | None = None,
    timestamps_ms: list[int] | None = None,
    usual: dict[str, tuple[float, float]] | None = None,
) -> Batch:
    n = len(keys)

    def column(values: list[int] | None, dtype: Any = np.int64) -> NDArray[Any]:
        return np.array(values if values is not None else range(n), dtype)

    made = Batch(
        topic=TOPIC, polled_us=POLLED_US, keys=keys, partitions=column(partitions, np.int32), offsets=column(offsets),
        timestamps_ms=column(timestamps_ms), times_us=column(times_us), columns={}, values=[b""] * n,
    )  # fmt: skip
    made.scores, made.counts, made.flags = scores, np.arange(n), np.arange(n) % 2 == 1
    made.features, made.served = features or {}, {STEP: ServedRows.by(served(usual=usual), n)}
    return made


def floats(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The float32 of these bits, NaN and infinities left out."""
    found = bits.view(np.float32)
    return found[np.isfinite(found)]


def written(values: NDArray[np.float32], width: int = 256) -> NDArray[np.float64]:
    """Floats as a parser reads them back from features of predictions."""
    padded = np.resize(values, (-(-len(values) // width), width))
    names = tuple(f"f{n}" for n in range(width))
    rows = batch([b"k"] * len(padded), padded[:, :1].copy(), features={n: padded[:, i] for i, n in enumerate(names)})
    records = Encoder(TOPIC, STEP, with_features=True, names=names).predictions(rows, 0)
    read = np.array([list(orjson.loads(record)["features"].values()) for record in records], np.float64)
    return read.ravel()[: len(values)]


@pytest.mark.parametrize(
    "bits",
    [
        pytest.param(np.arange(0, 2**23, 97, dtype=np.uint32), id="subnormals"),
        pytest.param(np.arange(1, 4096, dtype=np.uint32), id="smallest"),
        pytest.param(np.arange(0, 2**31, 30_011, dtype=np.uint32), id="all exponents"),
        pytest.param(np.arange(2**31, 2**32, 45_007, dtype=np.uint32), id="negative"),
        pytest.param((10.0 ** np.arange(-45, 39)).astype(np.float32).view(np.uint32), id="powers of ten"),
        pytest.param((2.0 ** np.arange(-149, 128)).astype(np.float32).view(np.uint32), id="powers of two"),
        pytest.param(np.arange(-70_000, 70_000, 7).astype(np.float32).view(np.uint32), id="whole numbers"),
        pytest.param((np.arange(-30_000, 30_000, 7) / 1000).astype(np.float32).view(np.uint32), id="thousandths"),
        pytest.param((np.arange(1, 2**24, 1009) * 2.0**15).astype(np.float32).view(np.uint32), id="ties of whole numbers"),
        pytest.param(np.random.default_rng(7).integers(0, 2**32, 1_000_000, np.uint32), id="random bits"),
    ],
)
def test_every_float32_reads_back_as_itself(bits: NDArray[np.uint32]) -> None:
    values = floats(bits)
    for neighbour in (-np.inf, None, np.inf):
        near = values if neighbour is None else np.nextafter(values, np.float32(neighbour))
        near = near[np.isfinite(near)]
        assert np.array_equal(written(near).astype(np.float32).view(np.uint32), near.view(np.uint32))


def texts_of(values: NDArray[np.float32]) -> list[str]:
    """Floats as they stand in the records."""
    scores = batch([b"k"] * len(values), values[:, None])
    records = Encoder(TOPIC, STEP, with_features=False, names=()).predictions(scores, 0)
    return [record.partition(b'"score":')[2].partition(b",")[0].decode() for record in records]


ODD = [0, 1, 0x007FFFFF, 0x00800000, 0x00800001, 0x7F7FFFFF, 0x80000000, 0x80000001, 0xD2BD47CF, 0x15AE43FD]


@pytest.mark.parametrize("seed", [None, 1])
def test_a_float_is_the_shortest_text_for_whoever_reads_it(seed: int | None) -> None:
    """Read as a double and rounded, as JSON libraries do, or as a float32 at once, as C does; Dragon4 needs as many digits."""
    chosen = [np.float32(10.0**e).view(np.uint32) for e in range(-45, 39)] + [
        np.float32(2.0**e).view(np.uint32) for e in range(-149, 128)
    ]
    bits = (
        np.array(ODD + chosen, np.uint32) if seed is None else np.random.default_rng(seed).integers(0, 2**32, 30_000, np.uint32)
    )
    values = floats(bits)
    read = ctypes.CDLL(None).strtof
    read.restype, read.argtypes = ctypes.c_float, (ctypes.c_char_p, ctypes.c_void_p)
    for value, text in zip(values, texts_of(values), strict=True):
        for again in (np.float32(float(text)), np.float32(read(text.encode(), None)), np.float32(json.loads(text))):
            assert again.view(np.uint32) == value.view(np.uint32), text
        digits = text.partition("e")[0].lstrip("-").replace(".", "").strip("0")
        if value.view(np.uint32) == 0x15AE43FD:  # the one that needs a digit more, as a double comes in between
            digits = digits[:-1]
        assert len(digits) == len(
            np.format_float_scientific(value, trim="-").partition("e")[0].lstrip("-").replace(".", "").strip("0")
        )


def test_halfway_between_two_floats_is_neither() -> None:
    """4064768e5 lies just half way between two of them, and a reader takes the even one."""
    halfway = np.float32(-406476783616)
    (text,) = texts_of(np.array([halfway]))
    assert text == "-406476780000"
    assert np.float32(float("-406476800000")) != halfway


def test_numbers_are_as_short_as_people_write_them() -> None:
    values = np.array([0.1, 100.0, -0.5, 1e6, 0.0, 1.5e-7, 3.25e20], np.float32)
    record = Encoder(TOPIC, STEP, with_features=True, names=tuple("abcdefg")).predictions(
        batch([b"k"], np.array([[0.5]], np.float32), features={n: values[i : i + 1] for i, n in enumerate("abcdefg")}), 0
    )[0]
    assert b'"features":{"a":0.1,"b":100,"c":-0.5,"d":1000000,"e":0,"f":15e-8,"g":325e18}' in record


def test_what_is_no_number_is_null() -> None:
    odd = np.array([np.nan, np.inf, -np.inf], np.float32)
    names = ("a", "b", "c")
    rows = batch([b"k"], np.array([[1.0]], np.float32), features={n: odd[i : i + 1] for i, n in enumerate(names)})
    record = orjson.loads(Encoder(TOPIC, STEP, with_features=True, names=names).predictions(rows, 0)[0])
    assert record["features"] == {"a": None, "b": None, "c": None}
    assert problems("prediction", record) == []


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nasty = st.sampled_from(['"', "\\", "\n", "\x00\x1f\x7f", "é\u2028", "𝄞", "a" * 60, ""])
key_bytes = st.one_of(st.none(), st.binary(max_size=12), st.builds(str.encode, st.one_of(texts, nasty)))
whole = st.integers(0, INT64_MAX)
# Features: as floats, and as whole numbers with a sign and without.
any_whole = {np.int64: st.integers(-INT64_MAX - 1, INT64_MAX), np.uint64: st.integers(0, 2**64 - 1)}


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, tuple[str, ...]]:
    n, columns = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    names = tuple(draw(st.lists(st.one_of(texts, nasty), max_size=3, unique=True)))

    def numbers(strategy: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(strategy, min_size=n, max_size=n))

    scores = np.array(numbers(st.lists(finite, min_size=columns, max_size=columns)), np.float32)
    made = batch(
        numbers(key_bytes), scores,
        features={name: np.array(numbers(finite), np.float32) for name in names},
        partitions=numbers(st.integers(0, 2**31 - 1)), offsets=numbers(whole), times_us=numbers(st.integers(0, 64 * 10**15)),
        timestamps_ms=numbers(st.integers(-(2**40), 2**45) | st.integers(POLLED_US // 1000 - 10**9, POLLED_US // 1000 + 1)),
    )  # fmt: skip
    made.counts = np.array(numbers(whole), np.int64)
    for name in names:
        if kind := draw(st.sampled_from([None, *any_whole])):
            made.whole_features[name] = np.array(numbers(any_whole[kind]), kind)
    facts = draw(st.lists(st.tuples(st.one_of(texts, nasty), st.integers(0, 10**18), st.integers(-1, 0)), min_size=1, max_size=3))
    table = tuple(
        Served(model=name, version=version, digest="", threshold=0.0, score_column=column) for name, version, column in facts
    )
    made.served[STEP] = ServedRows(table=table, index=np.array(numbers(st.integers(0, len(table) - 1)), np.int64))
    return made, names


@settings(max_examples=300)
@given(made=batches(), topic=st.sampled_from([TOPIC, "a_b-c.9"]), publishes=st.booleans())
def test_a_record_reads_back_as_its_row(made: tuple[Batch, tuple[str, ...]], topic: str, publishes: bool) -> None:
    rows, names = made
    now_us = 1_700_000_000_123_456
    records = Encoder(topic, STEP, with_features=publishes, names=names).predictions(rows, now_us)
    assert len(records) == len(rows)
    for row, record in enumerate(records):
        read = orjson.loads(record)
        assert read == json.loads(record)
        key, logged_us, by = rows.keys[row], int(rows.timestamps_ms[row]) * 1000, rows.served[STEP].of(row)
        if not POLLED_US - TEN_YEARS_US <= logged_us <= POLLED_US:
            logged_us = POLLED_US  # that cannot be true
        expected = {
            "id": f"{topic}/{rows.partitions[row]}/{rows.offsets[row]}",
            "key": None if key is None else key.decode("utf-8", "replace"),
            "time": int(rows.times_us[row]) / 10**6,
            "flag": bool(rows.flags[row]),
            "model": by.model,
            "version": by.version,
            "window_n": int(rows.counts[row]),
            "latency_ms": (now_us - logged_us) / 10**3,
        }
        assert {field: read.pop(field) for field in expected} == expected
        assert np.float32(read.pop("score")) == rows.scores[row, by.score_column]
        if rows.scores.shape[1] > 1:
            assert [np.float32(score) for score in read.pop("scores")] == rows.scores[row].tolist()
        if publishes and names:
            assert list(read["features"]) == list(names)
            got, exact = read.pop("features"), rows.whole_features
            assert {name: got[name] for name in exact} == {name: column[row].item() for name, column in exact.items()}
            assert all(type(got[name]) is int for name in exact)
            floats = [name for name in names if name not in exact]
            assert [np.float32(got[name]) for name in floats] == [rows.features[name][row] for name in floats]
        assert read == {}


@settings(max_examples=200)
@given(made=batches(), extreme=st.booleans())
def test_the_room_is_always_enough(made: tuple[Batch, tuple[str, ...]], extreme: bool) -> None:
    """Bytes behind the promised room are canaries; not one of them is touched."""
    rows, names = made
    if extreme:  # the longest there is of everything
        n = len(rows)
        rows.keys = [b"\x01" * 40] * n
        rows.scores = np.full_like(rows.scores, -1.2345678e-38)
        rows.features = {name: np.full(n, -1.1754944e-38, np.float32) for name in names}
        rows.whole_features = {name: np.full(n, -INT64_MAX - 1) for name in rows.whole_features}
        rows.offsets = rows.counts = np.full(n, INT64_MAX)
        longest = Spans(np.full(n, -INT64_MAX), np.full(n, -INT64_MAX), np.ones(n, np.bool_))
        rows.payload = Windows(spans=longest, closed_at_first=n)
    encoder = Encoder(TOPIC, STEP, with_features=True, names=names)
    layout = encoder._layout(rows)
    columns = encoder._columns(rows, layout, POLLED_US)
    promised = room(layout.program, len(rows), len(columns.texts.data), int(np.diff(columns.choice_cuts).max()))
    out = np.full(promised + 8192, CANARY, np.uint8)
    if extreme:
        columns.ints[layout.ints.index("latency")] = -INT64_MAX
    end = write_records(out, layout.program, columns)
    assert end <= promised
    assert (out[end:] == CANARY).all()
    assert out[:end].tobytes().count(b"\n") == len(rows)


def test_no_rows_are_no_records() -> None:
    rows = batch([], np.empty((0, 1), np.float32))
    assert Encoder(TOPIC, STEP, with_features=False, names=("a",)).predictions(rows, 0) == []


def test_a_flow_of_vectors_alone_publishes_what_numbers_it_has() -> None:
    rows = batch([b"k"], np.array([[2.0]], np.float32), features={"series": np.zeros((1, 8), np.float32)})
    encoder = Encoder(TOPIC, STEP, with_features=True, names=())
    prediction = encoder.predictions(rows, 0)[0]
    assert problems("prediction", orjson.loads(prediction)) == []
    assert orjson.loads(encoder.anomaly(rows, 0, prediction))["features"] == {}


@pytest.mark.parametrize("publishes", [True, False])
@pytest.mark.parametrize("odd", [None, float("nan"), float("inf")])
def test_an_anomaly_names_its_drivers_furthest_first(publishes: bool, odd: float | None) -> None:
    names = ("c", "d", "a", "constant", "b")
    usual = dict(zip(names, [(0.0, 0.5), (0.0, 10.0), (0.0, 1.0), (1.0, 0.0), (0.0, 2.0)], strict=True))
    values = {"c": 1.0, "d": 1.0, "a": 3.0, "constant": 1.0, "b": -8.0}
    if odd is not None:
        values["d"] = odd
    columns = {name: np.array([value], np.float32) for name, value in values.items()}
    encoder = Encoder(TOPIC, STEP, with_features=publishes, names=names)
    rows = batch([b"k"], np.array([[2.0]], np.float32), features=columns, usual=usual)
    rows.flags[:] = True
    anomaly = orjson.loads(encoder.anomaly(rows, 0, encoder.predictions(rows, 0)[0]))
    drivers = [driver for driver in anomaly["drivers"] if driver["feature"] != "d"]
    assert [(driver["feature"], driver["deviation"]) for driver in drivers][:2] == [("b", -4.0), ("a", 3.0)]
    assert anomaly["features"]["a"] == 3.0
    anomaly["flag"] = True
    assert problems("anomaly", anomaly) == []


def test_a_model_that_does_not_say_what_is_usual_has_no_drivers() -> None:
    rows = batch([b"k"], np.array([[2.0]], np.float32), features={"a": np.ones(1, np.float32)})
    encoder = Encoder(TOPIC, STEP, with_features=False, names=("a",))
    assert orjson.loads(encoder.anomaly(rows, 0, encoder.predictions(rows, 0)[0]))["drivers"] == []
