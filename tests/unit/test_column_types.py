"""Columns are of the dtype that their field is declared with: whole numbers stay exact wherever nothing rounds them."""

import json
from typing import Annotated, Any, Optional

import msgspec
import numpy as np
import pytest

from streamer import Event, Model, Topology, Window, as_of, rolling, tumbling
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
