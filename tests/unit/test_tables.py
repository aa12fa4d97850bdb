"""Rows of a table deleted by records without a value: as of the record's timestamp, through crashes and snapshots."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard

from streamer import Event, Model, StateError, Topology, Window, as_of, interval
from streamer.kafka.memory_log import Record
from streamer.testing import constant
from tests.kit.bases import small_snapshots
from tests.kit.inside import InsideTest

ORDERS, CARDS, CHECKS, SCORED = "orders", "cards", "checks", "orders.scored"
CHANGELOG = "ordered-ordered-window-changelog"


class Order(Event, topic=ORDERS, key="user", time="ts"):
    user: str
    ts: float
    amount: float


class Card(Event, topic=CARDS, key="user", time="ts"):
    user: str
    ts: float
    limit: float


class Check(Event, topic=CHECKS, key="user", time="ts"):
    user: str
    ts: float
    ok: bool


def features(w: Window) -> dict[str, Any]:
    cards = w.of(Card)
    return {"cards": cards.count, "limit": np.nan_to_num(cards.last("limit"), nan=-1.0)}


def topology(function: Any = features, **table: Any) -> Topology:
    return (
        Topology("ordered").source(Order, dead_letters="orders.bad")
        .join(as_of(Card, **table), dead_letters="cards.bad", out_of_order="2s")
        .join(interval(Check, before="9s"), dead_letters="checks.bad")
        .features(function).infer(Model("m")).publish(predictions=SCORED, features=True)
    )  # fmt: skip


def flow(function: Any = features, **table: Any) -> InsideTest:
    return InsideTest(topology(function, **table), models=constant(0.5), partitions=1)


def card(test: InsideTest, limit: float, user: str = "u") -> None:
    test.send(Card(user, test.now, limit), step="1s")


def delete(test: InsideTest, user: str = "u") -> None:
    test.send_bytes(CARDS, user.encode(), None)
    test.clock.advance(1)


def order(test: InsideTest, user: str = "u", ago: float = 0.0) -> None:
    test.send(Order(user, test.now - ago, 1.0), step="1s")


def seen(test: InsideTest) -> list[tuple[float, float]]:
    """Rows of the table and limit that the orders since saw."""
    test.run()
    test.clock.advance(60)
    return [(row["features"]["cards"], row["features"]["limit"]) for row in test.read(SCORED)]


def reasons(letters: Sequence[Record]) -> list[str]:
    return [dict(letter.headers)["streamer.error.reason"] for letter in letters]


def test_a_record_without_a_value_deletes_the_row_of_its_key() -> None:
    with flow() as test:
        card(test, 100.0)
        card(test, 200.0, "v")
        order(test)
        delete(test)
        order(test)
        order(test, "v")
        card(test, 300.0)
        order(test)
        assert seen(test) == [(1, 100), (0, -1), (1, 200), (1, 300)]
        assert test.read_records("cards.bad") == []


@pytest.mark.parametrize("kept", [1, 4])
def test_it_counts_from_the_time_of_its_record(kept: int) -> None:
    """An order of before sees the row still, where older versions are kept; a row that is older than the deletion is not seen."""
    with flow(max_samples=kept) as test:
        card(test, 100.0)
        delete(test)
        order(test, ago=1.5)
        test.send(Card("u", test.now - 2.2, 50.0), step="0s")  # comes late, as of before the deletion
        order(test)
        assert seen(test) == [(1, 100), (0, -1)]


def test_rows_of_keys_nobody_knows_and_twice_the_same() -> None:
    with flow() as test:
        delete(test, "nobody")
        delete(test)
        delete(test)
        order(test)
        order(test, "nobody")
        assert seen(test) == [(0, -1)] * 2


def test_whether_there_is_a_row_is_known_where_no_field_of_it_is_read() -> None:
    with flow(lambda w: {"cards": w.of(Card).count, "limit": w.of(Card).count}) as test:
        card(test, 100.0)
        order(test)
        delete(test)
        order(test)
        assert seen(test) == [(1, 1), (0, 0)]


@pytest.mark.parametrize("based", [False, True])
def test_it_survives_crashes_and_snapshots(based: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if based:
        small_snapshots(monkeypatch)
    with flow() as test:
        for user in ("u", "v", "w"):
            card(test, 100.0, user)
            order(test, user)
            delete(test, user)
            order(test, user)
            assert len(seen(test)) == 2
        for _ in range(3):
            test.crash()
            order(test)
            order(test, "w")
            assert seen(test) == [(0, -1)] * 2
        test.crash()
        card(test, 400.0, "v")
        order(test, "v")
        assert seen(test) == [(1, 400)]


def test_older_versions_refuse_what_they_would_take_for_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and snapshots with a deletion have another format number, and no others."""
    small_snapshots(monkeypatch)
    with flow() as test:
        card(test, 100.0)
        order(test)
        seen(test)
        assert formats(test) == ({3}, {2})
        delete(test)
        order(test)
        seen(test)
        assert 4 in formats(test)[0]
        for _ in range(8):
            order(test)
            seen(test)
        assert 3 in formats(test)[1]


def formats(test: InsideTest) -> tuple[set[int], set[int]]:
    records = test.log.committed_records(CHANGELOG)
    blocks = {msgspec.msgpack.decode(zstandard.decompress(one.value or b""))[0] for one in records if one.key is None}
    return blocks, {msgspec.msgpack.decode(one.value or b"")[0] for one in records if one.key is not None}


def test_a_format_of_tomorrow_is_refused_today() -> None:
    with flow() as test:
        order(test)
        seen(test)
        record = test.log.committed_records(CHANGELOG)[0]
        fields = msgspec.msgpack.decode(zstandard.decompress(record.value or b""))
        record.value = zstandard.compress(msgspec.msgpack.encode([5, *fields[1:]]))
        test.crash()
        order(test)
        with pytest.raises(StateError, match="has changelog format 5, this version reads 3; run the version that wrote it"):
            test.run()


def test_in_any_other_input_it_is_a_dead_letter() -> None:
    with flow() as test:
        for topic in (ORDERS, CHECKS):
            test.send_bytes(topic, b"u", None)
        test.send_bytes(CARDS, None, None)
        test.send_bytes(CARDS, b"u", b"")
        assert reasons(test.read_records("orders.bad")) == ["null_value"]
        assert reasons(test.read_records("checks.bad")) == ["null_value"]
        assert reasons(test.read_records("cards.bad")) == ["null_value", "empty_value"]


def test_a_timestamp_of_no_time_there_is_makes_a_dead_letter() -> None:
    with flow() as test:
        card(test, 100.0)
        test.log.append(CARDS, b"u", None, 0, created_ms=-1)
        test.log.append(CARDS, b"u", None, 0, created_ms=round(test.now * 1000) + 10**8)
        order(test)
        assert seen(test) == [(1, 100)]
        assert reasons(test.read_records("cards.bad")) == ["time_too_far_ahead", "time_negative"]


def test_deletions_keep_their_place_among_rows_of_one_poll() -> None:
    with flow() as test:
        for user in ("a", "b", "c"):
            card(test, 1.0, user)
        for user in ("a", "b", "c"):
            delete(test, user)
            card(test, 2.0, user)
        delete(test, "b")
        for user in ("a", "b", "c"):
            order(test, user)
        assert seen(test) == [(1, 2), (0, -1), (1, 2)]
        assert test.worker.metrics.value("streamer_records_total", "joined") == 10
