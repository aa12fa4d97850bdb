"""The oracle of windows that close, and what the checker says of results that are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.log import Record
from tests.faults.make_model import write_model
from tests.faults.names import FEATURES, MODEL, Names
from tests.faults.oracle import AmbiguousInputError, Scorer, Truth
from tests.faults.oracle_closing import expect_closing
from tests.faults.poison import good_value

NAMES = Names("unit", flow="closing")
NOW_S = 1_700_000_000.0
# 0.2 and 0.9 are in the first second; 1.4 leaves it open; 0.5 comes within the grace, 1.5 closes, 0.6 is late.
TIMES_S = (0.2, 0.9, 1.4, 0.5, 1.5, 0.6)


def _inputs() -> list[Record]:
    values = [good_value("s", round(NOW_S + t, 3), float(place)) for place, t in enumerate(TIMES_S)]
    return [Record(NAMES.input, 0, place, b"s", value, int((NOW_S + 2) * 1000)) for place, value in enumerate(values)]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return expect_closing(_inputs(), Scorer(write_model(tmp_path_factory.mktemp("models"))))


def _results(truth: Truth) -> list[Record]:
    records = []
    for place, ((partition, key, start), expected) in enumerate(truth.predictions.items()):
        end_s = expected.reading.time_us / 1e6
        body: dict[str, Any] = {"id": f"{NAMES.input}/{partition}/{key}/{start}", "key": key, "time": end_s, "model": MODEL}
        body |= {"version": 1, "window_n": expected.features[0], "latency_ms": 1.0, "score": expected.score}
        body |= {"flag": expected.score > truth.threshold, "features": dict(zip(FEATURES, expected.features, strict=True))}
        body |= {"window_start": int(start) / 1e6, "window_end": end_s, "final": True}
        records.append(Record(NAMES.predictions, 0, place, str(key).encode(), json.dumps(body).encode()))
    return records


def _check(truth: Truth, records: list[Record]) -> invariants.Violations:
    bad = invariants.Violations()
    invariants.check_predictions(truth, invariants.parse_outputs(records, NAMES, bad), bad)
    return bad


def test_windows_close_behind_the_watermark_and_late_records_are_told(truth: Truth) -> None:
    first, second = (int(NOW_S) + n for n in (0, 1))
    assert {origin: expected.features[:2] for origin, expected in truth.predictions.items()} == {
        (0, "s", first * 1_000_000): (3.0, pytest.approx(4 / 3)),
        (0, "s", second * 1_000_000): (2.0, 3.0),
    }
    assert list(truth.late) == [(0, 5)]
    assert truth.missed == {(0, 5): round((NOW_S + 1.5) * 1e6)}
    assert _check(truth, _results(truth)).first == []


@pytest.mark.parametrize(("name", "value"), [("window_start", 1.0), ("window_end", None), ("final", False)])
def test_a_result_that_says_the_wrong_window_is_caught(truth: Truth, name: str, value: object) -> None:
    first, *others = _results(truth)
    body = json.loads(first.value or b"") | {name: value}
    assert _check(truth, [replace(first, value=json.dumps(body).encode()), *others]).counts == {f"wrong_{name}": 1}


def test_a_lost_and_a_second_result_are_caught(truth: Truth) -> None:
    first, second = _results(truth)
    assert _check(truth, [first]).counts == {"lost_prediction": 1}
    assert _check(truth, [first, second, replace(second, offset=7)]).counts == {"duplicate_prediction": 1}


def test_a_wrong_watermark_is_caught(truth: Truth) -> None:
    headers = [("streamer.error.partition", b"0"), ("streamer.error.offset", b"5"), ("streamer.late.watermark_us", b"1")]
    bad = invariants.Violations()
    invariants.check_watermarks(truth.missed, [Record(NAMES.late, 0, 0, b"s", b"", 0, tuple(headers))], bad)
    assert bad.counts == {"wrong_watermark": 1}


def test_a_long_silence_makes_the_run_unjudgeable(tmp_path_factory: pytest.TempPathFactory) -> None:
    records = _inputs()
    later = [*records[:-1], replace(records[-1], timestamp_ms=records[-1].timestamp_ms + 24_000)]
    with pytest.raises(AmbiguousInputError):
        expect_closing(later, Scorer(write_model(tmp_path_factory.mktemp("models"))))
