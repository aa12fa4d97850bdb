"""The oracle of missing values: it takes a null for a reading without a value, and only that."""

from __future__ import annotations

import math

import pytest

from tests.faults.log import Record
from tests.faults.make_model import write_model
from tests.faults.names import NO_VALUE
from tests.faults.oracle import Bad, Scorer, judge
from tests.faults.oracle_missing import expect_missing, judge_missing
from tests.faults.poison import good_value

NOW_S = 1_700_000_000.0


def record(offset: int, value: bytes | None, key: bytes = b"s") -> Record:
    return Record("in", 0, offset, key, value, int(NOW_S * 1000))


def test_of_a_window_the_values_count_and_the_samples_take_their_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    measured = [None, 2.0, None, 4.0]
    inputs = [record(place, good_value("s", NOW_S + place, value)) for place, value in enumerate(measured)]
    truth = expect_missing(inputs, Scorer(write_model(tmp_path_factory.mktemp("models"))))
    assert [expected.features for expected in truth.predictions.values()] == [
        (1, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE, 0, NO_VALUE),
        (2, 2, 0, 2, 2, 2, 1, 0),
        (3, 2, 0, 2, 2, 2, 1, 0),
        (4, 3, 1, 2, 4, 4, 2, 1),
    ]
    (window,) = truth.windows.values()
    assert str([reading.value for reading in window]) == "[nan, 2.0, nan, 4.0]"


@pytest.mark.parametrize("spoiled", [b'"ts": 1700000000.0', b'"sensor_id": "s"'])
def test_all_else_of_such_a_record_must_be_right(spoiled: bytes) -> None:
    good = good_value("s", NOW_S, None)
    assert spoiled in good
    verdict = judge_missing(record(0, good))
    assert not isinstance(verdict, Bad)
    assert math.isnan(verdict.value)
    assert isinstance(judge(record(0, good)), Bad)
    assert isinstance(judge_missing(record(0, good.replace(spoiled, b'"x": null'))), Bad)
    assert isinstance(judge_missing(record(0, good, b"other")), Bad)
    assert judge_missing(record(0, None)) == judge(record(0, None))
    assert judge_missing(record(0, good.replace(b"null", b"NaN"))) == judge(record(0, good.replace(b"null", b"NaN")))
