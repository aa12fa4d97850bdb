"""The oracle of the flow without windows, and what the checker says of results that are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.log import Record
from tests.faults.make_model import write_model
from tests.faults.names import FEATURES, MODEL, Names
from tests.faults.oracle import Expected, Origin, Scorer, Truth
from tests.faults.oracle_stateless import expect_stateless
from tests.faults.poison import good_value

NAMES = Names("unit", flow="stateless")
NOW_S = 1_700_000_000.0
KEYS = (b"s", None, b"", b"\xff\xfe", b"s")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    values = [(key, good_value("s", NOW_S, float(place))) for place, key in enumerate(KEYS)]
    inputs = [
        Record(NAMES.input, 0, place, key, value, int(NOW_S * 1000)) for place, (key, value) in enumerate([*values, (b"s", b"{")])
    ]
    return expect_stateless(inputs, Scorer(write_model(tmp_path_factory.mktemp("models"))))


def _result(origin: Origin, expected: Expected, threshold: float, text: str | None) -> Record:
    body: dict[str, Any] = {"id": f"{NAMES.input}/0/{origin[1]}", "key": text, "time": NOW_S, "model": MODEL, "version": 1}
    body |= {"window_n": 0, "latency_ms": 1.0, "score": expected.score, "flag": expected.score > threshold}
    body["features"] = dict(zip(FEATURES, expected.features, strict=True))
    return Record(NAMES.predictions, 0, int(origin[1]), expected.key, json.dumps(body).encode())


def _results(truth: Truth) -> list[Record]:
    texts = ("s", None, "", "\ufffd\ufffd", "s")
    pairs = zip(truth.predictions.items(), texts, strict=True)
    return [_result(origin, expected, truth.threshold, text) for (origin, expected), text in pairs]


def _check(truth: Truth, records: list[Record]) -> invariants.Violations:
    bad = invariants.Violations()
    outputs = invariants.parse_outputs(records, NAMES, bad)
    invariants.check_predictions(truth, outputs, bad)
    invariants.check_order(outputs, truth.ranks, bad)
    return bad


def test_any_key_is_good_and_comes_out_again(truth: Truth) -> None:
    assert (len(truth.predictions), len(truth.dead_letters)) == (5, 1)
    assert not _check(truth, _results(truth))


def test_a_record_without_key_may_lie_anywhere(truth: Truth) -> None:
    first, without, *others = _results(truth)
    assert not _check(truth, [first, replace(without, partition=3), *others])


@pytest.mark.parametrize(("change", "kind"), [
    ({"key": b"other"}, "wrong_record_key"), ({"partition": 3}, "split_key"), ({"offset": 0}, "invented"),
])  # fmt: skip
def test_a_wrong_result_is_named(truth: Truth, change: dict[str, Any], kind: str) -> None:
    *others, last = _results(truth)
    if kind == "invented":
        last = replace(last, value=(last.value or b"").replace(b"/0/4", b"/0/99"))
    assert kind in _check(truth, [*others, replace(last, **change)]).counts
