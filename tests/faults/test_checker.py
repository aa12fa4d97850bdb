"""The checker against logs written by hand: a perfect run is clean, each way of being wrong has its name."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.faults.checker import Logs, check
from tests.faults.invariants import fingerprint
from tests.faults.log import Record
from tests.faults.make_model import write_model
from tests.faults.names import FEATURES, MODEL, Names
from tests.faults.oracle import Scorer, Truth, expect
from tests.faults.poison import good_value

NAMES = Names("unit")
NOW_S = 1_700_000_000.0
PARTITIONS = 2
FIRST = (NAMES.input, 0)
SENSORS = ("a", "b", "c", "d")


def _inputs() -> list[Record]:
    """Two partitions, two sensors each, every eighth record bad; offsets with gaps, as markers leave them."""
    dice = random.Random(5)
    records = []
    for row in range(160):
        partition, sensor = row % 2, SENSORS[row % 4]
        ts = NOW_S + row / 8
        value: bytes | None = good_value(sensor, ts, round(dice.gauss(100.0, 40.0), 3))
        if row % 16 == 5:
            value = None if row % 32 == 5 else b"{" + b"x" * (100_000 if row == 21 else 10)
        offset = row // 2 + row // 40
        records.append(Record(NAMES.input, partition, offset, sensor.encode(), value, int(ts * 1000)))
    return sorted(records, key=lambda r: (r.partition, r.offset))


def _outputs(truth: Truth) -> tuple[list[Record], list[Record]]:
    predictions, anomalies = [], []
    for row, ((partition, offset), e) in enumerate(truth.predictions.items()):
        body: dict[str, Any] = {
            "id": f"{NAMES.input}/{partition}/{offset}",
            "key": e.reading.sensor,
            "time": e.reading.time_us / 1e6,
            "score": e.score,
            "flag": e.score > truth.threshold,
            "model": MODEL,
            "version": 1,
            "window_n": int(e.features[0]),
            "latency_ms": 1.5,
            "features": dict(zip(FEATURES, e.features, strict=True)),
        }
        key = e.reading.sensor.encode()
        predictions.append(Record(NAMES.predictions, int(partition), row, key, json.dumps(body).encode()))
        if body["flag"]:
            body["drivers"] = [{"feature": "rate", "value": 1.0, "deviation": 9.0}]
            anomalies.append(Record(NAMES.anomalies, int(partition), row, key, json.dumps(body).encode()))
    return predictions, anomalies


def _letters(truth: Truth) -> list[Record]:
    letters = []
    for row, ((partition, offset), (source, verdict)) in enumerate(truth.dead_letters.items()):
        facts = {"stage": "decode", "reason": min(verdict.reasons), "detail": "why", "topic": NAMES.input}
        facts |= {"partition": str(partition), "offset": str(offset)}
        value = source.value
        if value is not None and len(value) > 65_536:
            facts |= {"truncated": str(len(value)), "digest": hashlib.sha256(value).hexdigest()}
            value = value[:65_536]
        headers = tuple((f"streamer.error.{name}", fact.encode()) for name, fact in facts.items())
        letters.append(Record(NAMES.dead_letters, int(partition), row, source.key, value, 0, headers))
    return letters


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(write_model(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def perfect(scorer: Scorer) -> tuple[Truth, Logs]:
    inputs = _inputs()
    truth = expect(inputs, scorer)
    predictions, anomalies = _outputs(truth)
    ends = {(NAMES.input, p): max(r.offset for r in inputs if r.partition == p) + 2 for p in range(PARTITIONS)}
    outputs = [*predictions, *anomalies, *_letters(truth)]
    watched = [((r.topic, r.partition), r.offset, fingerprint(r)) for r in outputs[:-20]]
    committed = {where: end - 1 for where, end in ends.items()}
    state = [
        {"partition": p, "key": key, "times": [r.time_us for r in window], "values": [r.value for r in window]}
        for (p, key), window in truth.windows.items()
    ]
    return truth, Logs(inputs, ends, predictions, anomalies, _letters(truth), committed, watched, state)


def _edit(record: Record, **changes: Any) -> Record:
    return replace(record, value=json.dumps(json.loads(record.value or b"") | changes).encode())


def _at(records: list[Record], index: int, record: Record) -> list[Record]:
    return [*records[:index], record, *records[index + 1 :]]


def _copy(record: Record, offset: int = 9_999) -> Record:
    return replace(record, offset=offset)


def _feature(record: Record, name: str, factor: float) -> Record:
    features = json.loads(record.value or b"")["features"]
    return _edit(record, features=features | {name: features[name] * factor})


def _header(letter: Record, name: str, value: bytes) -> Record:
    return replace(letter, headers=tuple((n, value if n.endswith(name) else v) for n, v in letter.headers))


Change = Callable[[Logs], dict[str, Any]]


def _predictions(index: int, change: Callable[[Record], Record]) -> Change:
    return lambda logs: {"predictions": _at(list(logs.predictions), index, change(logs.predictions[index]))}


def _letter_changed(index: int, change: Callable[[Record], Record]) -> Change:
    return lambda logs: {"dead_letters": _at(list(logs.dead_letters), index, change(logs.dead_letters[index]))}


def _anomaly(change: Callable[[Record], Record]) -> Change:
    return lambda logs: {"anomalies": _at(list(logs.anomalies), 0, change(logs.anomalies[0]))}


def _state(change: Callable[[list[Any]], list[Any]]) -> Change:
    return lambda logs: {"state": change(list(logs.state or ()))}


CHANGES: list[tuple[str, Change]] = [
    ("lost_prediction", lambda logs: {"predictions": logs.predictions[:-1]}),
    ("duplicate_prediction", lambda logs: {"predictions": [*logs.predictions, _copy(logs.predictions[3])]}),
    ("invented", _predictions(4, lambda r: _edit(r, id=f"{NAMES.input}/0/77777"))),
    ("invented", _predictions(4, lambda r: _edit(r, id="elsewhere/0/3"))),
    (
        "predicted_bad_input",
        lambda logs: {"predictions": [_bad_input_predicted(logs), *logs.predictions[1:]]},
    ),
    ("unreadable_output", _predictions(4, lambda r: replace(r, value=b"{"))),
    ("reordered", lambda logs: {"predictions": _swapped(logs.predictions)}),
    ("split_key", _predictions(9, lambda r: replace(r, partition=1 - r.partition))),
    ("wrong_key", _predictions(4, lambda r: _edit(r, key="zz"))),
    ("wrong_record_key", _predictions(4, lambda r: replace(r, key=b"zz"))),
    ("wrong_time", _predictions(4, lambda r: _edit(r, time=NOW_S + 0.00001))),
    ("wrong_latency", _predictions(4, lambda r: _edit(r, latency_ms=None))),
    ("wrong_model", _predictions(4, lambda r: _edit(r, model="other"))),
    ("wrong_version", _predictions(4, lambda r: _edit(r, version=2))),
    ("wrong_window_n", _predictions(4, lambda r: _edit(r, window_n=1))),
    ("wrong_score", _predictions(4, lambda r: _edit(r, score=json.loads(r.value or b"")["score"] * 1.00001))),
    ("wrong_flag", _predictions(4, lambda r: _edit(r, flag=not json.loads(r.value or b"")["flag"]))),
    ("wrong_features", _predictions(4, lambda r: _edit(r, features=None))),
    *(("wrong_features", _predictions(9, partial(_feature, name=n, factor=1.00001))) for n in FEATURES),
    ("lost_dead_letter", lambda logs: {"dead_letters": logs.dead_letters[1:]}),
    ("duplicate_dead_letter", lambda logs: {"dead_letters": [*logs.dead_letters, _copy(logs.dead_letters[0])]}),
    ("changed_bytes", _letter_changed(1, lambda r: replace(r, value=(r.value or b"") + b" "))),
    ("changed_bytes", _letter_changed(0, lambda r: replace(r, key=None))),
    ("changed_bytes", lambda logs: _truncated(logs, "truncated", b"99")),
    ("changed_bytes", lambda logs: _truncated(logs, "digest", b"0" * 64)),
    ("wrong_origin", _letter_changed(0, lambda r: _header(r, ".topic", b"elsewhere"))),
    ("unreadable_dead_letter", _letter_changed(0, lambda r: _header(r, ".offset", b"?"))),
    ("wrong_reason", _letter_changed(0, lambda r: _header(r, ".reason", b"time_negative"))),
    ("unexplained_dead_letter", _letter_changed(0, lambda r: _header(r, ".detail", b""))),
    ("rejected_good_input", _letter_changed(0, lambda r: _header(r, ".offset", b"0"))),
    ("invented_dead_letter", _letter_changed(0, lambda r: _header(r, ".offset", b"77777"))),
    ("lost_anomaly", lambda logs: {"anomalies": logs.anomalies[1:]}),
    ("duplicate_anomaly", lambda logs: {"anomalies": [*logs.anomalies, _copy(logs.anomalies[0])]}),
    ("invented_anomaly", lambda logs: {"anomalies": [_unflagged(logs), *logs.anomalies]}),
    ("changed_anomaly", _anomaly(lambda r: _edit(r, score=0.123))),
    ("changed_anomaly", _anomaly(lambda r: _edit(r, drivers=[]))),
    ("changed_anomaly", _anomaly(lambda r: replace(r, key=b"zz"))),
    ("offset_behind", lambda logs: {"committed": logs.committed | {FIRST: logs.committed[FIRST] - 1}}),
    ("offset_behind", lambda logs: {"committed": {(NAMES.input, 1): logs.committed[NAMES.input, 1]}}),
    ("offset_beyond", lambda logs: {"committed": logs.committed | {FIRST: logs.committed[FIRST] + 2}}),
    ("lost_state", _state(lambda rows: rows[1:])),
    ("lost_state", _state(lambda _rows: [])),
    ("invented_state", _state(lambda rows: [*rows, rows[0]])),
    ("invented_state", _state(lambda rows: [*rows, {**rows[0], "partition": 7}])),
    ("wrong_state", _state(lambda rows: [{**rows[0], "values": rows[0]["values"][1:]}, *rows[1:]])),
    ("wrong_state", _state(lambda rows: [{**rows[0], "times": rows[1]["times"]}, *rows[1:]])),
    ("vanished", lambda logs: {"watched": [*logs.watched, ((NAMES.predictions, 0), 9_999, "0" * 16)]}),
    ("vanished", lambda logs: {"watched": [*logs.watched[:5], *logs.watched[6:]]}),
]


def _bad_input_predicted(logs: Logs) -> Record:
    headers = dict(logs.dead_letters[0].headers)
    offset = headers["streamer.error.offset"].decode()
    partition = headers["streamer.error.partition"].decode()
    return _edit(logs.predictions[0], id=f"{NAMES.input}/{partition}/{offset}")


def _swapped(records: Any) -> list[Record]:
    """Two neighbouring predictions of one key with their values exchanged."""
    first, second = [i for i, r in enumerate(records) if r.key == b"a"][3:5]
    changed = _at(list(records), first, replace(records[first], value=records[second].value))
    return _at(changed, second, replace(records[second], value=records[first].value))


def _truncated(logs: Logs, name: str, value: bytes) -> dict[str, Any]:
    index = next(i for i, r in enumerate(logs.dead_letters) if r.header("streamer.error.truncated"))
    return {"dead_letters": _at(list(logs.dead_letters), index, _header(logs.dead_letters[index], name, value))}


def _unflagged(logs: Logs) -> Record:
    plain = next(r for r in logs.predictions if not json.loads(r.value or b"")["flag"])
    return _edit(replace(plain, topic=NAMES.anomalies, offset=8_888), drivers=[{}])


def test_a_perfect_run_is_clean(perfect: tuple[Truth, Logs]) -> None:
    truth, logs = perfect
    assert check(truth, logs, NAMES).first == []
    assert len(logs.predictions) == 150
    assert len(logs.dead_letters) == 10
    assert len(logs.anomalies) > 1
    assert {json.loads(r.value or b"")["window_n"] for r in logs.predictions} == set(range(1, 17))


@pytest.mark.parametrize(("kind", "change"), CHANGES, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(CHANGES)])
def test_each_wrong_log_is_caught_by_name(kind: str, change: Change, perfect: tuple[Truth, Logs]) -> None:
    truth, logs = perfect
    bad = check(truth, replace(logs, **change(logs)), NAMES)
    assert bad.counts[kind] >= 1, bad.first


def test_a_window_that_forgot_its_past_is_caught(perfect: tuple[Truth, Logs], scorer: Scorer) -> None:
    """What a lost restore looks like: right ids, right values, windows that begin anew in the middle."""
    truth, logs = perfect
    fresh = expect([r for r in logs.inputs if r.offset >= 40], scorer)
    forgotten = {o: e for o, e in truth.predictions.items() if int(o[1]) < 40} | fresh.predictions
    predictions, anomalies = _outputs(replace(truth, predictions=forgotten))
    bad = check(truth, replace(logs, predictions=predictions, anomalies=anomalies, watched=[]), NAMES)
    assert set(bad.counts) >= {"wrong_window_n", "wrong_features", "wrong_score"}
