"""Columns are of the dtype that their field is declared with: whole numbers stay exact wherever nothing rounds them."""

import json
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Optional
from uuid import UUID

import msgspec
import numpy as np
import pytest

from streamer import Event, LabelMatch, Model, Topology, TopologyError, Window, as_of, interval, lagged, rolling, tumbling
from streamer.testing import constant, values
from streamer.topology.event import column_dtypes, nullable_fields
from streamer.topology.rolling import Rolling
from tests.kit.inside import InsideTest

EXACT_MAX = 2**53


class Order(Event, topic="orders", key="user", time="ts"):
    """A number of each kind."""

    user: str
    ts: float
    id: int
    paid: bool = True
    amount: float = 1.0


class Limit(Event, topic="limits", key="user", time="ts"):
    """What an order may look at."""

    user: str
    ts: float
    limit: int


class Shapes(Event, topic="shapes"):
    """What looks like a number, and what does not."""

    a: float
    b: int | None
    c: Optional[bool]  # noqa: UP045 - people write it so too
    d: list[float]
    e: float | str
    f: float | int | None
    g: Annotated[float, msgspec.Meta(ge=0)] | None
    h: dict[str, int]
    i: bool = True


def test_numbers_are_told_from_other_fields() -> None:
    assert column_dtypes(Shapes) == {"a": np.float64, "b": np.float64, "c": np.float64, "g": np.float64, "i": np.bool_}
    assert nullable_fields(Shapes) == {"b", "c", "g"}


def modulo(w: Window) -> dict[str, Any]:
    """Derived of whole numbers before anything is float32."""
    ids, paid, amounts = w.event("id"), w.event("paid"), w.event("amount")
    assert [str(column.dtype) for column in (ids, paid, amounts)] == ["int64", "bool", "float64"]
    return {"low": ids % 1_000, "unpaid": ~paid, "amount": amounts}


def order(number: int, paid: bool = True, user: str = "u") -> bytes:
    return json.dumps({"user": user, "ts": 1_700_000_000, "id": number, "paid": paid, "amount": 2.5}).encode()


def reasons(test: InsideTest, topic: str = "dead") -> list[tuple[str, str]]:
    heads = [dict(letter.headers) for letter in test.read_records(topic)]
    return [(head["streamer.error.reason"], head["streamer.error.detail"]) for head in heads]


def scored(topology: Topology) -> Topology:
    return topology.infer(Model("m")).publish(predictions="scored", features=True)


LONE = scored(Topology("t").source(Order, dead_letters="dead").features(modulo))


def test_whole_numbers_of_64_bits_are_exact_in_derived_columns() -> None:
    numbers = [0, -1, EXACT_MAX + 1, 2**63 - 1, -(2**63)]
    with InsideTest(LONE, models=constant(1.0), partitions=1) as test:
        for number in numbers:
            test.send_bytes("orders", b"u", order(number, paid=number > 0))
        rows = values(test.read("scored"), "features")
    wanted = [{"low": number % 1_000, "unpaid": float(number <= 0), "amount": 2.5} for number in numbers]
    assert rows == wanted


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_a_whole_number_beyond_64_bits_is_a_dead_letter_and_its_neighbours_are_none(number: int) -> None:
    with InsideTest(LONE, models=constant(1.0), partitions=1) as test:
        for each in (1, number, 2):
            test.send_bytes("orders", b"u", order(each))
        assert values(values(test.read("scored"), "features"), "low") == [1, 2]
        assert reasons(test) == [
            ("number_out_of_range", "id is beyond 64 bits (9.2e18), which a column of whole numbers holds")
        ]  # fmt: skip


@pytest.mark.parametrize("window", [rolling(count=4), rolling("10s"), rolling("1h", resolution="1m"), tumbling("1m", grace="1s")])
def test_a_sample_is_as_large_as_float64_keeps_exact(window: Any) -> None:
    closing = not isinstance(window, Rolling)
    late: dict[str, Any]
    early: dict[str, Any]
    late, early = ({"late_events": "late"}, {"emit": "each"}) if closing else ({}, {})
    topology = (
        Topology("t").source(Order, dead_letters="dead").window(window, **early)
        .features(lambda w: {"left": np.float64(EXACT_MAX) - w.last("id"), "paid": w.sum("paid"), "odd": w.event("id") % 2})
        .infer(Model("m")).publish(predictions="scored", features=True, **late)
    )  # fmt: skip
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        for number in (EXACT_MAX - 1, EXACT_MAX, EXACT_MAX + 1, -EXACT_MAX - 1, 2**63):
            test.send_bytes("orders", b"u", order(number))
        rows = values(test.read("scored"), "features")
        assert rows == [{"left": 1, "paid": 1, "odd": 1}, {"left": 0, "paid": 2, "odd": 0}]
        assert reasons(test) == [("number_out_of_range", LARGE)] * 3


LARGE = (
    "id is beyond 2**53 (9007199254740992), and what windows and joins keep, or may be null, is float64, where it would be "
    "another number; declare the field float if it may be rounded"
)


def test_what_waits_in_a_join_comes_back_as_it_was_declared() -> None:
    def looked(w: Window) -> dict[str, Any]:
        ids, paid = w.event("id"), w.event("paid")
        assert [str(column.dtype) for column in (ids, paid)] == ["int64", "bool"]
        limit = w.of(Limit).last("limit")
        assert limit.dtype == np.float64
        return {"left": EXACT_MAX - ids, "paid": paid, "limit": np.float64(EXACT_MAX) - np.nan_to_num(limit)}

    topology = scored(
        Topology("t").source(Order, dead_letters="dead").join(as_of(Limit), dead_letters="limits.dead").features(looked)
    )
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        for number in (EXACT_MAX - 3, EXACT_MAX + 1):
            test.send_bytes("limits", b"u", json.dumps({"user": "u", "ts": 1_700_000_000, "limit": number}).encode())
            test.send_bytes("orders", b"u", order(number, paid=False))
        test.clock.advance(60.0)
        assert values(test.read("scored"), "features") == [{"left": 3, "paid": 0, "limit": 3}]
        assert reasons(test) == [("number_out_of_range", LARGE)]
        assert reasons(test, "limits.dead") == [("number_out_of_range", LARGE.replace("id", "limit", 1))]


# ---------------------------------------------------------------------- what is published

LARGE_ONES = [EXACT_MAX + 1, 2**63 - 1, -(2**63), 2**24 + 1, -5, 0]


def of_all_kinds(w: Window) -> dict[str, Any]:
    ids = w.event("id")
    return {
        "id": ids, "listed": ids.tolist(), "unsigned": ids.astype(np.uint64), "short": (ids % 1_000).astype(np.int16),
        "above": ids > 5, "rounded": ids.astype(np.float64), "pair": np.stack([ids, ids], axis=1),
    }  # fmt: skip


def of_one(number: int) -> dict[str, Any]:
    return {
        "id": number, "listed": number, "unsigned": number % 2**64, "short": number % 1_000,
        "above": int(number > 5), "rounded": np.float32(number),
    }  # fmt: skip


def as_float32(columns: Any) -> Any:
    """A model that gets float32, be a feature whole numbers or not."""
    assert {column.dtype for column in columns.values()} == {np.dtype(np.float32)}
    assert np.array_equal(columns["id"], columns["rounded"])
    return np.ones((len(columns["id"]), 1))


@pytest.mark.parametrize("window", [None, rolling(count=4), tumbling("1m", grace="1s")])
@pytest.mark.parametrize("publishes", [True, False])
def test_a_feature_of_whole_numbers_is_published_as_the_function_gave_it(window: Any, publishes: bool) -> None:
    closing = window is not None and not isinstance(window, Rolling)
    early: dict[str, Any] = {"emit": "each"} if closing else {}
    late: dict[str, Any] = {"late_events": "late"} if closing else {}
    topology = Topology("t").source(Order, dead_letters="dead")
    if window is not None:
        topology = topology.window(window, **early)
    topology = topology.features(of_all_kinds).infer(Model("m")).flag(above=0.5)
    topology = topology.publish(predictions="scored", anomalies="flagged", features=publishes, **late)
    with InsideTest(topology, models=as_float32, partitions=1) as test:
        for number in LARGE_ONES:
            test.send_bytes("orders", b"u", order(number))
        predictions, anomalies = test.read("scored"), test.read("flagged")
        assert reasons(test) == []
    for rows in (predictions, anomalies) if publishes else (anomalies,):
        found = values(rows, "features")
        for row in found:
            assert [name for name, value in row.items() if type(value) is int][:4] == ["id", "listed", "unsigned", "short"]
            row["rounded"] = np.float32(row["rounded"])
        assert found == [of_one(number) for number in LARGE_ONES]


def test_exact_features_stay_with_their_rows_when_others_go() -> None:
    """A row without a score is a dead letter; what is published of its neighbours is theirs."""

    def model(columns: Any) -> Any:
        return np.where(columns["low"] == 2, np.nan, 1.0)

    topology = scored(
        Topology("t").source(Order, dead_letters="dead").features(lambda w: {"id": w.event("id"), "low": w.event("id") % 10})
    )
    numbers = [EXACT_MAX + each for each in range(1, 25)]
    with InsideTest(topology, models=model, partitions=1) as test:
        for number in numbers:
            test.send_bytes("orders", b"u", order(number))
        left = [number for number in numbers if number % 10 != 2]
        assert values(values(test.read("scored"), "features"), "id") == left
        assert [reason for reason, _ in reasons(test)] == ["score_not_finite"] * (len(numbers) - len(left))


class Chargeback(Event, topic="chargebacks", key="user", time="ts"):
    """A label with a number of its own."""

    user: str
    ts: float
    case: int


def test_whole_numbers_of_64_bits_are_exact_wherever_a_record_is_passed_on() -> None:
    number, now = 2**63 - 1, 1_700_000_000
    label = json.dumps({"user": "u", "ts": now, "case": number - 1}).encode()
    matched = LabelMatch("m").predictions(Order, dead_letters="dead").labels(Chargeback, within="1d", dead_letters="gone")
    with InsideTest(matched.publish(matched="pairs", unmatched="alone"), partitions=1) as test:
        test.send_bytes("orders", b"u", order(number))
        test.send_bytes("chargebacks", b"u", label)
        (pair,) = test.read("pairs")
    assert (pair["id"], pair["label"]) == (str(number), {"case": number - 1})
    by_id = scored(Topology("t").source(Order, dead_letters="dead").rekey("id").window(rolling(count=2)).features(modulo))
    with InsideTest(by_id, models=constant(1.0), partitions=1) as test:
        test.send_bytes("orders", b"u", order(number))
        (row,) = test.read("scored")
    assert (row["key"], row["features"]["low"]) == (str(number), number % 1_000)


# ---------------------------------------------------------------------- at the trial call as at run time


class Kind(Enum):
    """Of a thing."""

    SMALL = "small"


class Part(msgspec.Struct):
    """Within a thing."""

    number: int
    weight: float | None
    names: list[str] = []


class Thing(Event, topic="things", key="user", time="ts"):
    """A field of every kind that a column may be of."""

    user: str
    ts: float
    number: int
    maybe: int | None
    share: float | None
    good: bool
    doubt: bool | None
    raw: bytes
    when: datetime
    local: Annotated[datetime, msgspec.Meta(tz=False)]
    day: date
    hour: time
    lasts: timedelta
    price: Decimal
    name: UUID
    kind: Kind
    part: Part
    listed: list[float]
    vector: Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]
    pair: tuple[int, str]
    some: tuple[float, ...]
    tags: set[str]
    table: dict[str, int]
    word: str | None
    code: Annotated[bytes, msgspec.Meta(min_length=4)]


A_THING = {
    "user": "u", "ts": 1_700_000_000, "number": 2**63 - 1, "maybe": EXACT_MAX, "share": None, "good": True, "doubt": None,
    "raw": "AAEC", "when": "2026-01-01T00:00:00Z", "local": "2026-01-01T00:00:00", "day": "2026-01-01", "hour": "01:02:03",
    "lasts": "PT1.5S", "price": "1.10", "name": "12345678-1234-5678-1234-567812345678", "kind": "small",
    "part": {"number": EXACT_MAX + 1, "weight": None}, "listed": [1.5], "vector": [1, 2, 3], "pair": [1, "a"], "some": [1.0],
    "tags": ["a"], "table": {"a": EXACT_MAX + 1}, "word": "é", "code": "AAECAw==",
}  # fmt: skip


@pytest.mark.parametrize("window", [None, rolling(count=2)])
def test_a_column_is_at_the_trial_call_what_it_is_at_run_time(window: Any) -> None:
    seen: list[dict[str, tuple[Any, ...]]] = []

    def features(w: Window) -> dict[str, Any]:
        columns = {name: w.event(name) for name in Thing.__struct_fields__}
        seen.append({name: (column.dtype, column.shape[1:], type(column[0])) for name, column in columns.items()})
        assert np.array(columns["vector"].tolist()).shape == (len(columns["vector"]), 3)
        if len(seen) == 2:
            assert (columns["number"][0], columns["maybe"][0]) == (2**63 - 1, EXACT_MAX)
            assert np.isnan([columns["share"][0], columns["doubt"][0]]).all()
            assert (columns["part"][0].number, columns["table"][0]) == (EXACT_MAX + 1, {"a": EXACT_MAX + 1})
        return {"vector": np.array(columns["vector"].tolist())}

    topology = Topology("t").source(Thing, dead_letters="dead")
    topology = scored((topology.window(window) if window else topology).features(features))
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        test.send_bytes("things", b"u", json.dumps(A_THING).encode())
        test.send_bytes("things", b"u", json.dumps({**A_THING, "vector": [1, 2]}).encode())
        assert [reason for reason, _ in reasons(test)] == ["wrong_type"]
        assert len(test.read("scored")) == 1
    assert len(seen) == 2
    assert seen[0] == seen[1]
    kinds = {name: str(dtype) for name, (dtype, _, _) in seen[0].items() if dtype.kind != "O"}
    assert kinds == {
        "ts": "float64", "number": "int64", "maybe": "float64", "share": "float64", "good": "bool", "doubt": "float64",
    }  # fmt: skip


class Even(msgspec.Struct):
    """Takes not every number."""

    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


class Holder(Event, topic="holders"):
    """Has one."""

    even: Even


def test_a_struct_that_takes_no_small_value_says_so_and_the_way_out() -> None:
    topology = scored(Topology("t").source(Holder, dead_letters="dead").features(lambda w: {"n": np.zeros(len(w.event("even")))}))
    said = "Even takes no small values (1 is odd), on which the function is tried; give fields of Even defaults that it takes"
    with pytest.raises(TopologyError, match=re.escape(said)):
        InsideTest(topology, models=constant(1.0))


@pytest.mark.parametrize("join", [as_of(Limit), interval(Limit, before="1m"), lagged(Limit, "1h", delay="1m")])
def test_what_is_seen_of_another_stream_is_no_event_and_that_is_said_at_start(join: Any) -> None:
    topology = scored(
        Topology("t").source(Order, dead_letters="dead").join(join, dead_letters="limits.dead")
        .features(lambda w: {"left": w.of(Limit).event("limit") - w.event("id")})
    )  # fmt: skip
    said = (
        "w.of(Limit).event('limit'): an event sees no Limit, one or several, and none is its own; "
        "of the newest it is w.of(Limit).last('limit')"
    )
    with pytest.raises(TopologyError, match=rf"test_column_types\.py:\d+: .*{re.escape(said)}"):
        InsideTest(topology, models=constant(1.0))
