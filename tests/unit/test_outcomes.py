"""What comes out of the worker for each kind of record, and when the worker raises an alarm about it."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer import Event, Model, Topology, Window, rolling
from streamer.errors import DeadLetterFloodError
from streamer.inference.model import Features
from streamer.limits import COMMIT_QUIET_S, DEAD_LETTER_BYTES_MAX
from streamer.testing import constant
from tests.kit import flows
from tests.kit.inside import InsideTest
from tests.kit.records import BAD, NOW_S, Raw
from tests.kit.schemas import NAMES, headers, problems, schema

Scores = NDArray[np.float32]


def flow(model: Any = flows.score, partitions: int = 2, **settings: object) -> InsideTest:
    return InsideTest(flows.topology(), models=model, partitions=partitions, settings=settings)


def send(test: InsideTest, rows: int, key: str = "s", value: float | None = None) -> None:
    for n in range(rows):
        number = float(n) if value is None else value
        test.send_bytes(flows.SOURCE, key.encode(), flows.value_of(key, test.now, number))


def rejected(test: InsideTest) -> list[tuple[str, str]]:
    """Reason and offset of each dead letter."""
    found = [headers(letter) for letter in test.read_records(flows.DEAD_LETTERS)]
    return [(letter["streamer.error.reason"], letter["streamer.error.offset"]) for letter in found]


# ---------------------------------------------------------------------- schemas


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_closed_and_versioned(name: str) -> None:
    shape = schema(name)
    assert shape["$id"] == f"streamer/{name}.v1"
    assert shape["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert shape["additionalProperties"] is False
    assert all("description" in field for field in shape["properties"].values())


def test_schemas_refuse_what_is_not_theirs() -> None:
    with flow(partitions=1) as test:
        send(test, 1)
        (row,) = test.read(flows.PREDICTIONS)
    assert problems("prediction", row) == []
    for field in schema("prediction")["required"]:
        assert problems("prediction", {name: value for name, value in row.items() if name != field})
    assert problems("prediction", row | {"new": 1})
    assert problems("prediction", row | {"score": None})
    assert problems("prediction", row | {"id": "readings/0"})
    assert problems("anomaly", row)


def test_real_outputs_keep_to_the_schemas() -> None:
    bad = [raw for examples in BAD.values() for raw in examples]
    with InsideTest(flows.topology(), models=flows.score, start=NOW_S, settings={"record_bytes_max": "300kB"}) as test:
        for n, (key, value) in enumerate(bad):
            test.send_bytes(flows.SOURCE, key, value)
            send(test, 1, f"s{n % 9}", value=8.0 * n - 300.0)
        predictions, anomalies = test.read(flows.PREDICTIONS), test.read(flows.ANOMALIES)
        letters = test.read_records(flows.DEAD_LETTERS)
        assert flows.judge(test.log).missing == []
    assert len(predictions) == len(letters) == len(bad)
    assert 0 < len(anomalies) < len(predictions)
    assert [found for row in predictions for found in problems("prediction", row)] == []
    assert [found for row in anomalies for found in problems("anomaly", row)] == []
    assert [found for letter in letters for found in problems("dead_letter", headers(letter))] == []


def test_a_long_value_is_cut_and_its_whole_named_by_length_and_digest() -> None:
    for size in (DEAD_LETTER_BYTES_MAX, DEAD_LETTER_BYTES_MAX + 1, 3 * DEAD_LETTER_BYTES_MAX):
        value = b"{" + b"x" * (size - 1)
        with flow() as test:
            test.send_bytes(flows.SOURCE, b"k", value)
            (letter,) = test.read_records(flows.DEAD_LETTERS)
        assert (letter.key, letter.value) == (b"k", value[:DEAD_LETTER_BYTES_MAX])
        found = headers(letter)
        assert problems("dead_letter", found) == []
        cut = size > DEAD_LETTER_BYTES_MAX
        assert ("streamer.error.truncated" in found) == cut
        if cut:
            assert found["streamer.error.truncated"] == str(size)
            assert found["streamer.error.digest"] == "sha256:" + hashlib.sha256(value).hexdigest()


@pytest.mark.parametrize("size", [DEAD_LETTER_BYTES_MAX, DEAD_LETTER_BYTES_MAX + 1, 990_000])
def test_a_dead_letter_fits_wherever_its_record_did(size: int) -> None:
    """A record may be all key; with the headers its dead letter would be more than a broker takes."""
    with flow() as test:
        test.send_bytes(flows.SOURCE, b"k" * size, flows.value_of("s", test.now, 1.0))
        (letter,) = test.read_records(flows.DEAD_LETTERS)
    found = headers(letter)
    assert letter.key == (b"k" * size)[:DEAD_LETTER_BYTES_MAX]
    assert (f"its {size:,} bytes of key" in found["streamer.error.detail"]) == (size > DEAD_LETTER_BYTES_MAX)
    assert problems("dead_letter", found) == []


# ---------------------------------------------------------------------- models that fail


def refuses_seven(columns: Features) -> Scores:
    if (columns["first"] == 7).any():
        raise ValueError("seven is not for me\nand here is my stack")
    return flows.score(columns)


def nan_for_seven(columns: Features) -> Scores:
    scores = flows.score(columns)
    scores[columns["first"] == 7] = np.nan
    return scores


def infinite_in_one_column(columns: Features) -> Scores:
    scores = flows.score(columns)
    other = np.where(columns["first"] == 7, np.inf, 0.0).astype(np.float32)[:, None]
    return np.hstack([other, scores])


@pytest.mark.parametrize(
    ("model", "reason"),
    [(refuses_seven, "model_failed"), (nan_for_seven, "score_not_finite"), (infinite_in_one_column, "score_not_finite")],
)
def test_a_row_without_a_score_is_a_dead_letter_and_its_neighbours_are_not(model: Any, reason: str) -> None:
    with flow(model, partitions=1) as test:
        for n in range(20):
            send(test, 1, f"s{n}", value=7.0 if n in {3, 11, 12} else float(n + 20))
        letters, predictions = test.read_records(flows.DEAD_LETTERS), test.read(flows.PREDICTIONS)
    assert [headers(letter)["streamer.error.offset"] for letter in letters] == ["3", "11", "12"]
    for letter in letters:
        found = headers(letter)
        assert (found["streamer.error.reason"], found["streamer.error.stage"]) == (reason, "infer")
        assert json.loads(letter.value or b"")["value"] == 7.0
        assert problems("dead_letter", found) == []
        if reason == "model_failed":
            assert found["streamer.error.detail"] == "seven is not for me and here is my stack"
    assert [int(row["id"].rpartition("/")[2]) for row in predictions] == [n for n in range(20) if n not in {3, 11, 12}]
    assert all(row["score"] == row["features"]["total"] * 1.5 + 100 for row in predictions)


def test_a_row_refused_by_the_model_stays_in_its_window() -> None:
    """The event was good; a replay must come to the same windows whatever the model says."""
    with flow(nan_for_seven, partitions=1) as test:
        for value in (1.0, 7.0, 7.0, 7.0, 2.0):
            send(test, 1, value=value)
        predictions = test.read(flows.PREDICTIONS)
    assert [(row["window_n"], row["features"]["total"]) for row in predictions] == [(1, 1.0), (2, 8.0), (3, 15.0)]


def test_a_model_that_refuses_everything_loses_nothing() -> None:
    def never(_: Features) -> Scores:
        raise RuntimeError

    with flow(never) as test:
        send(test, 50)
        details = [headers(letter)["streamer.error.detail"] for letter in test.read_records(flows.DEAD_LETTERS)]
        assert details == ["RuntimeError"] * 50
        assert test.read(flows.PREDICTIONS) == []


# ---------------------------------------------------------------------- flags and scores


@pytest.mark.parametrize(("score", "flagged"), [(50.0, False), (50.000004, True), (-1e30, False), (3e38, True)])
def test_only_scores_above_the_threshold_are_flagged(score: float, flagged: bool) -> None:
    with flow(constant(score)) as test:
        send(test, 3)
        assert [row["flag"] for row in test.read(flows.PREDICTIONS)] == [flagged] * 3
        assert len(test.read(flows.ANOMALIES)) == 3 * flagged


def test_the_threshold_is_not_rounded_to_the_scores_type() -> None:
    """0.1 as a float32 is above 0.1: the comparison must see that."""
    close = flows.topology().steps[:4]
    strict = Topology("strict", close).flag(above=0.1).publish(predictions=flows.PREDICTIONS)
    with InsideTest(strict, models=constant(0.1)) as test:
        send(test, 1)
        assert [row["flag"] for row in test.read(flows.PREDICTIONS)] == [float(np.float32(0.1)) > 0.1]


def test_the_threshold_of_the_model_travels_with_it() -> None:
    steps = flows.topology().steps[:4]
    own = Topology("own", steps).flag(above="model.threshold").publish(predictions=flows.PREDICTIONS)
    with InsideTest(own, models=constant(3.0), threshold=2.5) as test:
        send(test, 1)
        assert [row["flag"] for row in test.read(flows.PREDICTIONS)] == [True]


def test_a_model_with_several_scores_shows_them_all() -> None:
    def three(columns: Features) -> Scores:
        n = len(columns["n"])
        return np.tile(np.array([1.0, 2.5, 99.0], np.float32), (n, 1))

    with flow(three) as test:
        send(test, 2)
        rows = test.read(flows.PREDICTIONS)
    assert [(row["score"], row["scores"], row["flag"]) for row in rows] == [(99, [1, 2.5, 99], True)] * 2
    assert [found for row in rows for found in problems("prediction", row)] == []


# ---------------------------------------------------------------------- flows without windows


class Note(Event, topic="notes"):
    """No key, no time: any record key will do, and the record timestamp is the time."""

    size: int


def test_a_flow_without_windows_takes_any_key() -> None:
    def features(w: Window) -> dict[str, NDArray[Any]]:
        return {"size": w.event("size")}

    stateless = Topology("notes").source(Note, dead_letters="notes.dead").features(features).infer(Model("m"))
    keys: list[bytes | None] = [None, b"", b"a", b"\xff\xfe", b"k" * 300]
    with InsideTest(stateless.publish(predictions="notes.scored"), models=constant(1.0)) as test:
        for key in keys:
            test.send_bytes("notes", key, b'{"size":3}')
        rows = test.read("notes.scored")
        records = test.log.committed_records("notes.scored")
        assert test.worker.plan.topics.changelog is None
    assert sorted(record.key or b"-" for record in records) == sorted(key or b"-" for key in keys)
    assert {row["key"] for row in rows} == {None, "", "a", "\ufffd\ufffd", "k" * 300}
    assert {(row["window_n"], row["flag"], row["time"]) for row in rows} == {(0, False, 1_700_000_000)}
    assert [found for row in rows for found in problems("prediction", row)] == []


def test_a_flow_without_windows_refuses_keys_that_are_no_identifiers() -> None:
    """Every output carries the key: one of a megabyte would make a prediction that no broker takes, again and again."""
    stateless = Topology("notes").source(Note, dead_letters="notes.dead").features(lambda w: {"size": w.event("size")})
    with InsideTest(stateless.infer(Model("m")).publish(predictions="scored"), models=constant(1.0), partitions=1) as test:
        for key, value in ((b"k" * 512, b'{"size":1}'), (b"k" * 513, b'{"size":2}'), (b"k" * 513, b"{"), (None, b'{"size":3}')):
            test.send_bytes("notes", key, value)
        found = [headers(letter)["streamer.error.reason"] for letter in test.read_records("notes.dead")]
        assert found == ["key_too_long", "invalid_json"]
        assert [row["id"] for row in test.read("scored")] == ["notes/0/0", "notes/0/3"]


# ---------------------------------------------------------------------- keys_max


def test_the_key_seen_longest_ago_makes_room() -> None:
    with flow(partitions=1, keys_max=3) as test:
        for key in "abcadab":
            send(test, 1, key)
        found = [(row["key"], row["window_n"]) for row in test.read(flows.PREDICTIONS)]
        assert found == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("d", 1), ("a", 3), ("b", 1)]
        test.crash()
        for key in "abdc":
            send(test, 1, key)
        found = [(row["key"], row["window_n"]) for row in test.read(flows.PREDICTIONS)]
        assert found == [("a", 3), ("b", 2), ("d", 2), ("c", 1)]
        assert rejected(test) == []
        test.clock.advance(1.0)
        test.worker.turn()
        assert test.worker.metrics.value("streamer_keys_evicted_total") == 1  # since the start of this worker
        assert test.worker.metrics.value("streamer_live_keys") == 3


def test_the_limit_counts_the_keys_of_a_partition() -> None:
    with flow(partitions=4, keys_max=4) as test:
        for n in range(40):
            send(test, 1, f"k{n % 20}")
        test.run()
        stores = test.worker.pipeline.window.stores
        assert {len(store) for store in stores.values()} == {4}
        assert len(test.read(flows.PREDICTIONS)) == 40


def test_a_key_that_was_silent_for_longer_than_its_ttl_starts_anew() -> None:
    forgetful = (
        Topology("forgetful").source(flows.Reading, dead_letters=flows.DEAD_LETTERS).window(rolling(count=9, ttl="10s"))
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions=flows.PREDICTIONS)
    )  # fmt: skip
    with InsideTest(forgetful, models=constant(1.0), partitions=1) as test:
        start = test.now
        for key, second in (("a", 0), ("a", 1), ("b", 11), ("a", 11), ("b", 22), ("a", 22), ("a", 5), ("a", 22)):
            test.send_bytes(flows.SOURCE, key.encode(), flows.value_of(key, start + second, 1.0))
            if second == 11:
                test.run()
                test.crash()
        found = [(row["key"], row["window_n"]) for row in test.read(flows.PREDICTIONS)]
        assert found == [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("b", 1), ("a", 1), ("a", 2), ("a", 3)]


# ---------------------------------------------------------------------- a flood of dead letters


def flood(test: InsideTest, good: int, bad: int) -> None:
    for n in range(good + bad):
        test.send_bytes(flows.SOURCE, b"s", flows.value_of("s", test.now, 1.0) if n < good else b"{")
    test.run()


def alarm(test: InsideTest) -> float:
    return test.worker.metrics.value("streamer_dead_letter_alarm")


def test_a_flood_raises_the_alarm_and_the_service_goes_on() -> None:
    with flow() as test:
        flood(test, good=449, bad=49)
        assert alarm(test) == 0
        flood(test, good=0, bad=2)
        assert alarm(test) == 1
        flood(test, good=600, bad=0)
        assert alarm(test) == 0
        flood(test, good=0, bad=100)
        assert alarm(test) == 1
        test.clock.advance(61.0)
        flood(test, good=1, bad=0)
        assert alarm(test) == 0
        assert test.worker.metrics.value("streamer_dead_letters_total", flows.SOURCE, "decode", "invalid_json") == 151
        assert flows.judge(test.log).exactly_once


def test_a_few_bad_records_are_no_flood() -> None:
    with flow() as test:
        flood(test, good=0, bad=49)
        assert alarm(test) == 0


def test_asked_to_stop_it_stops_after_the_commit_and_says_how_to_go_on() -> None:
    with flow(dead_letters_stop=0.5) as test:
        flood(test, good=60, bad=40)
        with pytest.raises(DeadLetterFloodError, match=r"dead_letters_stop is 50%.*streamer tail"):
            flood(test, good=0, bad=60)
        assert flows.judge(test.log).exactly_once


def test_counts_add_up() -> None:
    raw: list[Raw] = [(b"s", b"{"), (b"s", None), (None, b"{}")]
    with flow() as test:
        send(test, 30)
        for key, value in raw:
            test.send_bytes(flows.SOURCE, key, value)
        test.run()
        metrics = test.worker.metrics
        assert metrics.value("streamer_records_total", "predicted") == 30
        assert metrics.value("streamer_records_total", "dead") == metrics.value("streamer_dead_letters_total") == 3
        assert metrics.value("streamer_anomalies_total") == len(test.log.committed_records(flows.ANOMALIES))
        assert metrics.ledger.end_to_end["record"].rows == 30


def test_at_least_once_commits_when_the_input_is_quiet() -> None:
    with flow(guarantee="at-least-once") as test:
        commit = test.worker._commit
        while commit.rows == 0:
            send(test, 1)
            test.worker.turn()
            test.clock.advance(COMMIT_QUIET_S / 2)
            assert not commit.busy, "records are coming"
        test.clock.advance(COMMIT_QUIET_S)
        test.worker.turn()
        assert commit.busy or commit.rows == 0, "nothing has come for a while, and half a second is not over"
        test.run()
