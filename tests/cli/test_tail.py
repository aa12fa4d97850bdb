"""What a person reads of predictions, anomalies and dead letters."""

from typing import Any, cast

import orjson
import pytest
import typer
from confluent_kafka import Message

from streamer.cli.tail import (
    _READABLE,
    What,
    _dead_letter_json,
    _json_line,
    _topics,
    anomaly_line,
    dead_letter_line,
    matched_line,
    prediction_line,
)
from streamer.topology.topics import Topics
from tests.kit.tailed import HEADERS, PREDICTION, FakeMessage


def message(value: bytes | None, **more: Any) -> Message:
    return cast("Message", FakeMessage(value, **more))


def test_prediction() -> None:
    assert prediction_line(PREDICTION).split() == ["2023-11-14", "22:13:20", "s1", "0.5123", "ANOMALY", "n=64", "3.2", "ms"]
    assert "ANOMALY" not in prediction_line(PREDICTION | {"flag": False, "key": None})


def test_anomaly_shows_what_drove_it() -> None:
    drivers = [{"feature": "std", "value": 35.125, "deviation": 8.25}, {"feature": "mean", "value": 2.0, "deviation": -3.0}]
    assert anomaly_line(PREDICTION | {"drivers": drivers}).endswith("std=35.12 (+8.2)  mean=2 (-3.0)")
    assert anomaly_line(PREDICTION).endswith("-"), "a model that does not say what is usual has no drivers"


def test_columns_stand_below_each_other() -> None:
    lines = [
        prediction_line(PREDICTION | {"key": key, "score": score}) for key, score in (("a", 1.0), ("a-much-longer-key", -1e-7))
    ]
    assert len({text.index("ANOMALY") for text in lines}) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'{"a":1', "6 bytes: '{\"a\":1'"),
        (None, "0 bytes: null"),
        (b"\xff\x00\n", "3 bytes: '\\ufffd\\x00\\n'"),
        (b"x" * 500, "500 bytes: 'xxx"),
    ],
)
def test_dead_letter(value: bytes | None, shown: str) -> None:
    text = dead_letter_line(HEADERS, value)
    assert text.startswith("sensor.readings/3/12  decode: wrong_type  Expected `float`\n")
    assert shown in text
    assert text.count("\n") == 1
    assert max(map(len, text.split("\n"))) < 160


def test_truncated_dead_letter_tells_the_original_size() -> None:
    assert "99999 bytes: " in dead_letter_line(HEADERS | {"truncated": "99999"}, b"x" * 1000)


def test_readable_lines_come_from_messages() -> None:
    value = orjson.dumps(PREDICTION)
    assert _READABLE[What.PREDICTIONS](message(value)) == prediction_line(PREDICTION)
    assert _READABLE[What.DEAD_LETTERS](message(b"x", headers=HEADERS)) == dead_letter_line(HEADERS, b"x")


@pytest.mark.parametrize("value", [b"not json", b"[]", b"{}", None, b'{"time": 1e300}'])
def test_strange_records_are_shown_not_fatal(value: bytes | None) -> None:
    assert _READABLE[What.PREDICTIONS](message(value)).startswith("t/0/9  not of this service")


def test_json_is_as_published() -> None:
    assert _json_line(message(b'{"a": 1}')) == '{"a": 1}'


def test_json_of_dead_letters_has_both_sides() -> None:
    shown = orjson.loads(_dead_letter_json(message(b"\xffx", key=None, headers=HEADERS)))
    assert shown == HEADERS | {"key": None, "value": "\ufffdx"}


def test_a_matched_pair_and_one_without_its_label() -> None:
    row = {"id": "t/0/1", "key": "p1", "time": 1_700_000_000, "prediction": {"score": 0.5}}
    pair = matched_line(row | {"label": {"fraud": True}, "delay_s": 3 * 86400.0})
    assert pair.split() == [
        "2023-11-14",
        "22:13:20",
        "p1",
        "after",
        "3d",
        "label",
        '{"fraud":true}',
        "prediction",
        '{"score":0.5}',
    ]
    assert "no label" in matched_line(row)


def test_each_output_has_its_topics_and_what_is_not_there_is_refused() -> None:
    scored = Topics(
        source="in", dead_letters="dead", predictions="out", anomalies=None, changelog=None, joined={"b": "b.dead", "c": "dead"}
    )
    labelled = Topics(source="in", dead_letters="dead", predictions="m", anomalies=None, changelog=None, unmatched="u")
    assert _topics(scored, What.PREDICTIONS) == ["out"]
    assert _topics(scored, What.DEAD_LETTERS) == ["dead", "b.dead"]
    assert (_topics(labelled, What.MATCHED), _topics(labelled, What.UNMATCHED)) == (["m"], ["u"])
    with pytest.raises(typer.BadParameter, match="publishes no anomalies; it has predictions, dead-letters"):
        _topics(scored, What.ANOMALIES)
    with pytest.raises(typer.BadParameter, match="publishes no predictions; it has matched, unmatched, dead-letters"):
        _topics(labelled, What.PREDICTIONS)
