"""The trace of a record goes along with what comes of it: read, carried through every kind of flow, written."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from streamer import Event, LabelMatch, Model, Topology, as_of, interval, rolling, tumbling
from streamer.inference.model import Features
from streamer.kafka.memory_log import Record, Stored
from streamer.limits import HEADER_ROOM_BYTES
from streamer.operators.join.stage import JoinStage
from streamer.operators.match.stage import MatchStage
from streamer.operators.match.store import StoredRow
from streamer.rows.trace import HEADER_BYTES, PARENT_BYTES_MAX, STATE_BYTES_MAX, attach, size_of, trace_of
from streamer.testing import constant
from tests.kit import flows, rekeyed
from tests.kit.faulty import FaultTest
from tests.kit.inside import InsideTest

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
IDS = PARENT[2:]
STATE = b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"

Headers = list[tuple[str, bytes | None]]


def traced(number: int, *more: tuple[str, bytes | None]) -> Headers:
    """Headers with a trace that is known by a number, among others."""
    return [("content-type", b"json"), ("traceparent", f"00-{number:032x}-{number:016x}-01".encode()), *more]


def number_of(record: Record) -> int | None:
    """The number of its trace; None where there is none."""
    parents = [value for name, value in record.headers if name == "traceparent"]
    assert len(parents) <= 1
    return int(parents[0].split(b"-")[1], 16) if parents else None


# ---------------------------------------------------------------------- the grammar
@pytest.mark.parametrize(
    "parent",
    [PARENT, f"00{IDS[:-2]}00", f"00{IDS[:-2]}ff", f"01{IDS}", f"fe{IDS}-what.the.future~brings", f"cc{IDS}-", f"01{IDS[:-2]}fe"],
)
def test_well_formed(parent: str) -> None:
    headers: Headers = [("a", b"1"), ("traceparent", parent.encode()), ("b", None)]
    assert trace_of(headers) == (("traceparent", parent.encode()),)


@pytest.mark.parametrize(
    "parent",
    [
        b"", b"00", None, "é", PARENT, PARENT.upper().encode(), b" " + PARENT.encode(), PARENT.encode() + b"\n",
        f"ff{IDS}".encode(), f"0g{IDS}".encode(), f"00{IDS}-".encode(), f"00{IDS}-more".encode(), f"01{IDS}more".encode(),
        f"01{IDS}-\x7f".encode(), f"01{IDS}-\xe9".encode(), PARENT[:-1].encode(), PARENT.replace("-", "_").encode(),
        b"00-" + b"0" * 32 + PARENT[35:].encode(), PARENT[:36].encode() + b"0" * 16 + b"-01",
        b"00-" + b"g" * 32 + PARENT[35:].encode(), f"01{IDS}-{'x' * PARENT_BYTES_MAX}".encode(),
    ],
)  # fmt: skip
def test_malformed(parent: Any) -> None:
    """Text in place of bytes too: the headers of a record are bytes."""
    assert trace_of([("traceparent", parent), ("tracestate", STATE)]) == ()


def test_of_two_nobody_knows_which_one_counts() -> None:
    assert trace_of(traced(1, ("traceparent", PARENT.encode()))) == ()
    assert trace_of([("Traceparent", PARENT.encode())]) == ()


def test_the_state_goes_along() -> None:
    parent = ("traceparent", PARENT.encode())
    states = [("tracestate", b"a=1"), ("tracestate", b"b=2")]
    assert trace_of([states[0], parent, states[1]]) == (parent, ("tracestate", b"a=1,b=2"))
    assert trace_of([("tracestate", STATE)]) == ()
    most = b"a=" + b"x" * (STATE_BYTES_MAX - 2)
    assert trace_of([parent, ("tracestate", most)]) == (parent, ("tracestate", most))
    for bad in (b"a=\xff", b"a=1\n", None, most):
        assert trace_of([parent, ("tracestate", bad), ("tracestate", b"b=2")]) == (parent,)


def test_it_makes_no_record_too_large() -> None:
    assert HEADER_BYTES == HEADER_ROOM_BYTES
    trace = trace_of([("traceparent", PARENT.encode())])
    rows: list[dict[str, Any]] = [
        {"key": b"k", "value": b"v" * 10},
        {"key": None, "value": b"v" * 12},
        {"key": None, "value": b""},
    ]
    attach(rows, [trace, trace, ()], 11 + size_of(trace))
    assert [row["headers"] for row in rows] == [[("traceparent", PARENT.encode())], [], []]


# ---------------------------------------------------------------------- a row and what comes of it
MATCHED, UNMATCHED = "scored.matched", "scored.unmatched"


class Scored(Event, topic="scored", key="key", time="time"):
    key: str
    time: float
    score: float


class Label(Event, topic="labels", key="key", time="at"):
    key: str
    at: float
    fraud: bool


class Login(Event, topic="logins", key="sensor", time="ts"):
    sensor: str
    ts: float
    risk: float


class Card(Event, topic="cards", key="sensor", time="ts"):
    sensor: str
    ts: float
    limit: float


MATCH = (
    LabelMatch("labelled")
    .predictions(Scored, dead_letters="scored.dead")
    .labels(Label, within="14d", dead_letters="labels.dead")
    .publish(matched=MATCHED, unmatched=UNMATCHED)
)
JOINED = (
    Topology("joined")
    .source(flows.Reading, dead_letters=flows.DEAD_LETTERS)
    .join(interval(Login, before="10m", after="30s"), dead_letters="logins.dead")
    .join(as_of(Card), dead_letters="cards.dead")
    .window(rolling("1h"))
    .features(lambda w: {"total": w.sum("value"), "risk": w.of(Login).count, "limit": w.of(Card).count})
    .infer(Model("m"))
    .publish(predictions=flows.PREDICTIONS)
)


def by_id(records: Sequence[Record]) -> dict[str, int | None]:
    """Id -> number of the trace."""
    return {json.loads(record.value or b"")["id"]: number_of(record) for record in records}


def feed(test: InsideTest, rows: int, every: int) -> dict[str, int | None]:
    """Readings of one partition, each `every`-th of them with a trace; id -> its number."""
    for n in range(rows):
        headers = traced(n + 1) if n % every == 0 else [("other", b"1")] if n % 2 else None
        test.send_bytes(flows.SOURCE, b"s", flows.value_of("s", test.now, float(n)), headers=headers)
    return {f"{flows.SOURCE}/0/{n}": n + 1 if n % every == 0 else None for n in range(rows)}


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("every", [1, 7, 1000])
def test_predictions_and_anomalies_have_that_of_their_row(every: int, guarantee: str) -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1, settings={"guarantee": guarantee}) as test:
        expected = feed(test, 50, every)
        predictions = test.read_records(flows.PREDICTIONS)
        anomalies = by_id(test.read_records(flows.ANOMALIES))
    assert by_id(predictions) == expected
    assert list(by_id(predictions)) == list(expected)  # in order, however they were handed over
    assert anomalies
    assert anomalies == {name: expected[name] for name in anomalies}
    names = {name for record in predictions for name, _ in record.headers}
    assert names == {"traceparent"}


def test_a_state_goes_along_and_what_is_malformed_costs_nothing() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        for headers in (traced(1, ("tracestate", STATE)), [("traceparent", b"00-ab-cd-01"), ("tracestate", STATE)], traced(3)):
            test.send(flows.Reading("s", test.now, 1.0), headers=headers)
        first, second, third = test.read_records(flows.PREDICTIONS)
        assert test.read(flows.DEAD_LETTERS) == []
    assert dict(first.headers) == {"traceparent": traced(1)[1][1], "tracestate": STATE}
    assert second.headers == []
    assert dict(third.headers) == {"traceparent": traced(3)[1][1]}


def test_a_full_producer_gets_the_rest_later() -> None:
    with FaultTest(flows.topology(), models=flows.score, partitions=1) as test:
        for n in range(1, 40, 3):
            test.script.faults["produce", n] = "full"
        expected = feed(test, 30, 2)
        assert by_id(test.read_records(flows.PREDICTIONS)) == expected
        assert len(test.script.hits) >= 10
        assert flows.judge(test.log).exactly_once


def test_one_that_would_make_a_record_too_large_stays_behind() -> None:
    sizes = {flows.PREDICTIONS: 128 + 300}
    with InsideTest(flows.topology(), models=flows.score, partitions=1, message_bytes_max=sizes) as test:
        test.send(flows.Reading("s", test.now, 1.0), headers=traced(1))
        test.send(flows.Reading("s" * 8, test.now, 1.0), headers=traced(2, ("tracestate", b"a=" + b"x" * 200)))
        records = test.read_records(flows.PREDICTIONS)
        assert test.read(flows.DEAD_LETTERS) == []
    assert [number_of(record) for record in records] == [1, None]


def test_rows_that_are_refused_leave_the_others_theirs() -> None:
    """At decode, by the model, and where a record is too large: traces stay with their rows."""

    def score(columns: Features) -> np.ndarray:
        return np.where(columns["total"] == 4.0, np.nan, columns["total"]).astype(np.float32)[:, None]

    flow = (
        Topology("flow").source(flows.Reading, dead_letters=flows.DEAD_LETTERS).window(rolling(count=1)).features(flows.features)
        .infer(Model("m")).publish(predictions=flows.PREDICTIONS)
    )  # fmt: skip
    sizes = {flows.PREDICTIONS: 128 + 500}
    with InsideTest(flow, models=score, partitions=1, message_bytes_max=sizes) as test:
        for n in range(9):
            key = "s" * 300 if n == 6 else "s"
            value = b"{" if n == 2 else flows.value_of(key, test.now, float(n))
            test.send_bytes(flows.SOURCE, key.encode(), value, headers=traced(n + 1))
        found = by_id(test.read_records(flows.PREDICTIONS))
        letters = {dict(one.headers)["streamer.error.offset"]: number_of(one) for one in test.read_records(flows.DEAD_LETTERS)}
    assert found == {f"{flows.SOURCE}/0/{n}": n + 1 for n in range(9) if n not in (2, 4, 6)}
    assert letters == {"2": 3, "4": 5, "6": 7}


# ---------------------------------------------------------------------- through an internal topic
def rekey_run(headers: bool) -> tuple[InsideTest, list[Stored]]:
    test = InsideTest(rekeyed.topology(), models=rekeyed.score, partitions=2)
    for n in range(6):
        value = rekeyed.payment(f"t{n % 2}", float(n), test.now, card=f"c{n}")
        test.send_bytes(rekeyed.SOURCE, f"c{n}".encode(), value, headers=traced(n + 1) if headers and n != 3 else None)
    test.run()
    return test, test.log.committed_records(rekeyed.INTERNAL)


def test_through_an_internal_topic() -> None:
    test, records = rekey_run(headers=True)
    with test:
        traces = {
            rekeyed.forwarded(record).old_key: number_of(record) for record in records if rekeyed.forwarded(record).offset >= 0
        }
        assert traces == {f"c{n}".encode(): None if n == 3 else n + 1 for n in range(6)}
        found = by_id(test.read_records(rekeyed.PREDICTIONS))
        inputs = {
            f"{rekeyed.SOURCE}/{p}/{o}": number_of(test.log.record(rekeyed.SOURCE, p, o))
            for p in range(2) for o in range(test.log.end(rekeyed.SOURCE, p))
        }  # fmt: skip
        assert found == inputs
        assert rekeyed.judge(test.log) == []


def test_a_reader_of_before_sees_the_same_records() -> None:
    """It never looked at headers; key, value and place are as they were."""
    test, records = rekey_run(headers=True)
    other, without = rekey_run(headers=False)
    with test, other:
        assert [(record.key, record.value) for record in records] == [(record.key, record.value) for record in without]
        assert {name for record in without for name, _ in record.headers} == set()


def test_a_dead_letter_behind_it_has_it() -> None:
    def failing(columns: Features) -> np.ndarray:
        raise ValueError("no")

    with InsideTest(rekeyed.topology(), models=failing, partitions=1) as test:
        test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, test.now), headers=traced(1))
        test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, test.now))
        first, second = test.read_records(rekeyed.DEAD_LETTERS)
    assert (number_of(first), number_of(second)) == (1, None)
    assert dict(first.headers)["streamer.error.reason"] == "model_failed"
    assert "content-type" not in dict(first.headers)


# ---------------------------------------------------------------------- where windows close
def test_a_closed_window_has_none_and_its_events_have_theirs() -> None:
    flow = (
        Topology("closing").source(flows.Reading, dead_letters=flows.DEAD_LETTERS)
        .window(tumbling("10s", idle_timeout="1m"), emit="both")
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions=flows.PREDICTIONS, late_events="late")
    )  # fmt: skip
    with InsideTest(flow, models=constant(0.0), partitions=1) as test:
        for n, second in enumerate((1.0, 2.0, 11.0, 3.0, 12.0)):
            test.send_bytes(flows.SOURCE, b"s", flows.value_of("s", second, 1.0), headers=traced(n + 1))
        rows = [(json.loads(record.value or b"")["final"], number_of(record)) for record in test.read_records(flows.PREDICTIONS)]
        (late,) = test.read_records("late")
        test.clock.advance(61)
        rows += [(json.loads(record.value or b"")["final"], number_of(record)) for record in test.read_records(flows.PREDICTIONS)]
    assert sorted(number for final, number in rows if not final and number) == [1, 2, 3, 5]
    assert [number for final, number in rows if final] == [None, None]
    assert number_of(late) == 4


def test_behind_an_internal_topic_too() -> None:
    flow = (
        Topology("flow").source(rekeyed.Payment, dead_letters=rekeyed.DEAD_LETTERS).rekey("terminal")
        .window(tumbling("10s", idle_timeout="1m"), emit="both").features(lambda w: {"n": w.count})
        .infer(Model("m")).publish(predictions=rekeyed.PREDICTIONS, late_events="late")
    )  # fmt: skip
    with InsideTest(flow, models=constant(0.0), partitions=1) as test:
        for n, second in enumerate((1.0, 2.0, 11.0, 12.0)):
            test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, second), headers=traced(n + 1))
        records = test.read_records(rekeyed.PREDICTIONS)
        test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, 3.0), headers=traced(9))
        (late,) = test.read_records("late")
    rows = [(json.loads(record.value or b"")["final"], number_of(record)) for record in records]
    assert [number for final, number in rows if not final] == [1, 2, 3, 4]
    assert [number for final, number in rows if final] == [None]
    assert number_of(late) == 9


# ---------------------------------------------------------------------- rows that wait
def test_a_pair_has_that_of_its_prediction() -> None:
    with InsideTest(MATCH, partitions=1, settings={"keys_max": 1000}) as test:
        at = test.now
        for n, key in enumerate(("a", "b", "c")):
            test.send(Scored(key, at, 0.5), step="0s", headers=traced(n + 1) if key != "b" else None)
        test.run()
        test.crash()  # what waits is in the changelog
        for key in ("a", "b"):
            test.send(Label(key, at + 1, True), step="0s", headers=traced(77))
        pairs = {record.key: number_of(record) for record in test.read_records(MATCHED)}
        test.send(Label("d", at + 1, True), step="0s", headers=traced(78))
        test.run()
        test.send(Scored("d", at, 0.5), step="0s", headers=traced(4))
        (first_label,) = test.read_records(MATCHED)
        test.clock.advance(15 * 86_400)
        (alone,) = test.read_records(UNMATCHED)
    assert pairs == {b"a": 1, b"b": None}
    assert (number_of(first_label), number_of(alone)) == (4, 3)


def test_what_waits_is_read_by_versions_that_know_no_trace() -> None:
    """And without a trace its bytes are what they were."""
    with InsideTest(MATCH, partitions=1, settings={"keys_max": 1000}) as test:
        for key, headers in (("a", traced(1)), ("b", None)):
            test.send(Scored(key, test.now, 0.5), step="0s", headers=headers)
        test.run()
        stage = test.worker.pipeline.window
        assert isinstance(stage, MatchStage)
        names = stage.stores[0].names
    decoded = [msgspec.msgpack.decode(name or b"", type=StoredRow) for name in names]
    assert [name.key for name in decoded] == [b"a", b"b"]
    assert [msgspec.msgpack.encode(name) == kept for name, kept in zip(decoded, names, strict=True)] == [False, True]


def test_a_trace_refuses_nobody_a_place_to_wait() -> None:
    with InsideTest(MATCH, partitions=1, settings={"keys_max": 1000}) as test:
        stage = test.worker.pipeline.window
        assert isinstance(stage, MatchStage)
        test.send(Scored("a", test.now, 0.5), step="0s")
        test.run()
        stage.name_bytes_max = len(stage.stores[0].names[0] or b"") + 20
        test.send(Scored("b", test.now, 0.5), step="0s", headers=traced(1))
        test.send(Label("b", test.now, True), step="0s")
        (pair,) = test.read_records(MATCHED)
        assert test.read("scored.dead") == []
    assert (pair.key, number_of(pair)) == (b"b", None)


def joined(test: InsideTest, rows: int) -> None:
    for n in range(rows):
        test.send(flows.Reading("s", test.now, float(n)), step="0s", headers=traced(n + 1) if n != 1 else None)
        test.send(Login("s", test.now, 1.0), step="0s", headers=traced(88))
        test.send_bytes("cards", b"s", None, headers=traced(99))
    test.run()


def test_an_event_that_waited_for_another_input_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with InsideTest(JOINED, models=constant(0.5), partitions=2, settings={"keys_max": 1000}) as test:
        stage = test.worker.pipeline.window
        assert isinstance(stage, JoinStage)
        joined(test, 3)
        test.clock.advance(60)
        records = test.read_records(flows.PREDICTIONS)
        assert [number_of(record) for record in records] == [1, None, 3]
        assert not any(stage._traces.values())
        monkeypatch.setattr("streamer.operators.join.stage.JOIN_TRACES_WAITING_MAX", 1)
        joined(test, 3)
        test.clock.advance(60)
        assert [number_of(record) for record in test.read_records(flows.PREDICTIONS)] == [1, None, None]


def test_after_a_crash_what_waited_in_a_join_goes_on_without() -> None:
    with InsideTest(JOINED, models=constant(0.5), partitions=2, settings={"keys_max": 1000}) as test:
        joined(test, 2)
        test.crash()
        joined(test, 1)
        test.clock.advance(60)
        assert [number_of(record) for record in test.read_records(flows.PREDICTIONS)] == [None, None, 1]
