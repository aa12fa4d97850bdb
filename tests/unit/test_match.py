"""Predictions that wait for their labels, through the production worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer import Event, LabelMatch, Topology, TopologyError
from streamer.limits import ROWS_PER_BATCH_MAX
from streamer.operators.match.stage import MatchStage
from streamer.planning.plan import plan_of
from streamer.settings.settings import Settings
from tests.kit.inside import InsideTest
from tests.kit.labelled import DAY_S, FLOW, LABELS, MATCHED, UNMATCHED, Label, Scored, put, scored
from tests.kit.schemas import headers, problems


@pytest.fixture(name="test")
def _test() -> Iterator[InsideTest]:
    with InsideTest(FLOW, partitions=2, settings={"waiting_max": 1000}) as test:
        yield test


def stage(test: InsideTest) -> MatchStage:
    window = test.worker.pipeline.window
    assert isinstance(window, MatchStage)
    return window


def test_a_label_comes_days_later(test: InsideTest) -> None:
    start = test.now
    scored(test, "p1", start)
    assert test.read(MATCHED) == test.read(UNMATCHED) == []
    test.clock.advance(3 * DAY_S)
    put(test, Label("p1", start + 3 * DAY_S - 5, True, "stolen"))
    (row,) = test.read(MATCHED)
    assert row == {
        "id": "payments/0/7", "key": "p1", "time": start, "prediction": {"score": 0.75, "flag": True},
        "label": {"fraud": True, "reason": "stolen"}, "delay_s": 3 * DAY_S - 5.0,
    }  # fmt: skip
    assert problems("matched", row) == []
    test.clock.advance(30 * DAY_S)
    assert test.read(UNMATCHED) == []
    metrics = test.worker.metrics
    assert metrics.value("streamer_records_total", "matched") == 1
    assert metrics.value("streamer_records_total", "joined") == 1
    # The prediction waited for three days; what the ledger tells is how long its label was on its way.
    assert metrics.ledger.end_to_end["event"].rows == 1
    assert 5 <= metrics.ledger.end_to_end["event"].total_s < 6
    assert metrics.ledger.end_to_end["record"].total_s < 1


def test_without_a_label_its_time_ends(test: InsideTest) -> None:
    scored(test, "p1", test.now)
    test.clock.advance(14 * DAY_S - 1)
    assert test.read(UNMATCHED) == []
    test.clock.advance(2)
    (row,) = test.read(UNMATCHED)
    assert row["id"] == "payments/0/7"
    assert problems("matched", row) == []
    assert problems("matched", row | {"label": {}})
    assert stage(test).waiting == 0
    put(test, Label("p1", test.now, True))
    assert test.read(MATCHED) == []
    assert test.worker.metrics.value("streamer_records_total", "unmatched") == 1


def test_a_label_that_was_read_first_is_found(test: InsideTest) -> None:
    start = test.now
    put(test, Label("p1", start + 5, True))
    test.run()
    scored(test, "p1", start)
    (row,) = test.read(MATCHED)
    assert row["delay_s"] == 5.0


def test_nothing_of_one_time_keys_is_left(test: InsideTest) -> None:
    for n in range(50):
        scored(test, f"p{n}", test.now)
        put(test, Label(f"p{n}", test.now, n % 2 == 0))
        test.run()
        test.clock.advance(1)
    assert len(test.read(MATCHED)) == 50
    # A label of this very second may still be for a prediction of this second.
    assert stage(test).waiting <= len(test.worker._consume.reading())
    assert sum(len(store.predictions.order) + len(store.names) for store in stage(test).stores.values()) < 20


def test_many_whose_time_is_over_leave_batch_by_batch() -> None:
    rows = 2 * ROWS_PER_BATCH_MAX + 5
    with InsideTest(FLOW, partitions=1) as test:
        for n in range(rows):
            scored(test, f"p{n}", test.now, n)
        test.run()
        test.clock.advance(15 * DAY_S)
        assert len(test.read(UNMATCHED)) == rows


def test_bad_records_and_a_full_store() -> None:
    with InsideTest(FLOW, partitions=1, settings={"waiting_max": 2}) as test:
        test.send_bytes(LABELS, b"p1", b"{}")
        for n in range(3):
            scored(test, f"p{n}", test.now)
        (label,) = test.read_records("labels.dead")
        (late,) = test.read_records("scored.dead")
        assert headers(label)["streamer.error.reason"] == "missing_field"
        assert headers(late)["streamer.error.reason"] == "too_many_waiting"
        put(test, Label("p0", test.now, True))
        assert len(test.read(MATCHED)) == 1
        scored(test, "p3", test.now)
        assert test.read_records("scored.dead") == []


class Sale(Event, topic="sales.scored", key="card", time="time"):
    card: str
    time: float
    payment: int
    score: float


class Chargeback(Event, topic="chargebacks", key="card", time="at"):
    card: str
    at: float
    payment: int
    fraud: bool


def test_a_second_field_must_be_equal() -> None:
    flow = (
        LabelMatch("chargebacks")
        .predictions(Sale, dead_letters="a")
        .labels(Chargeback, within="1d", dead_letters="b", on="payment")
        .publish(matched="c", unmatched="d")
    )
    with InsideTest(flow, partitions=1) as test:
        for payment in (1, 2, 3):
            put(test, Sale("card", test.now, payment, 0.5))
        put(test, Chargeback("card", test.now, 2, True))
        (row,) = test.read("c")
        assert row["id"] == "sales.scored/0/1"
        assert row["prediction"] == {"payment": 2, "score": 0.5}


class Anonymous(Event, topic="anonymous.scored", key="key", time="time"):
    key: str | None
    time: float
    id: str | None = None


def test_a_null_id_and_a_null_key_are_no_text() -> None:
    flow = (
        LabelMatch("nulls")
        .predictions(Anonymous, dead_letters="a")
        .labels(Label, within="1d", dead_letters="b")
        .publish(matched="c", unmatched="d")
    )
    with InsideTest(flow, partitions=1) as test:
        put(test, Anonymous("p", test.now))
        put(test, Anonymous("p", test.now, "mine"))
        put(test, Anonymous(None, test.now))
        test.send_bytes("anonymous.scored", b"None", b'{"key":null,"time":1}')
        test.clock.advance(3 * DAY_S)
        put(test, Label("other", test.now, True))
        assert [row["id"] for row in test.read("d")] == ["anonymous.scored/0/0", "mine"]
        assert [headers(letter)["streamer.error.reason"] for letter in test.read_records("a")] == ["null_key", "null_key"]


class Keyless(Event, topic="keyless", time="at"):
    at: float


def test_mistakes_name_the_line() -> None:
    start = LabelMatch("mistaken").predictions(Scored, dead_letters="a")
    good = start.labels(Label, within="14d", dead_letters="b")

    def said(flow: LabelMatch) -> str:
        with pytest.raises(TopologyError) as caught:
            InsideTest(flow)
        return str(caught.value)

    assert "has no .publish() step" in said(good)
    assert "has no .labels() step" in said(start.publish(matched="c", unmatched="d"))
    assert "is taken by" in said(good.publish(matched="c", unmatched="c"))
    assert "give Keyless one" in said(start.labels(Keyless, within="1d", dead_letters="b").publish(matched="c", unmatched="d"))
    odd = start.labels(Label, within="1d", dead_letters="b", on="score").publish(matched="c", unmatched="d")
    assert "must be a field of Scored and Label" in said(odd)
    with pytest.raises(TopologyError, match=r"comes after \.predictions.*predictions -> labels -> publish, each once"):
        good.predictions(Scored, dead_letters="c")
    with pytest.raises(TopologyError, match=r"test_match.py:\d+: \.match\(\) is called LabelMatch\(name\)"):
        Topology("old").source(Scored, dead_letters="a").match(Label)  # type: ignore[attr-defined]  # its name of once
    with pytest.raises(TopologyError, match=r"\.labels\(\): '14'"):
        start.labels(Label, within="14", dead_letters="b")


def test_memory_is_checked_before_the_start() -> None:
    with pytest.raises(TopologyError, match="over the memory budget"):
        plan_of(FLOW, Settings.model_validate({"waiting_max": 10_000_000}), Path())
