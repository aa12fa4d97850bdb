"""The oracle itself: windows by hand, every poison kind refused, good oddities let through."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from tests.faults.log import Record
from tests.faults.make_model import CENTER, SCALE, write_model
from tests.faults.names import FEATURES
from tests.faults.oracle import AmbiguousInputError, Bad, Reading, Scorer, judge, window_features
from tests.faults.poison import RECIPES, Context, good_value

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1_700_000_000.0


def _record(value: bytes | None, key: bytes | None = b"s") -> Record:
    return Record("t.in", 0, 0, key, value, int(NOW_S * 1000))


def test_window_features_equal_a_sum_done_by_hand() -> None:
    window = [Reading("s", 1_000_000, 2.0), Reading("s", 2_000_000, 4.0), Reading("s", 5_000_000, 9.0)]
    found = dict(zip(FEATURES, window_features(window), strict=True))
    assert found == {
        "n": 3.0,
        "mean": 5.0,
        "std": pytest.approx(math.sqrt(26.0 / 3.0)),
        "min": 2.0,
        "max": 9.0,
        "last": 9.0,
        "delta": 7.0,
        "rate": 1.75,
    }


def test_a_window_without_a_span_has_rate_zero() -> None:
    assert window_features([Reading("s", 7, 1.0), Reading("s", 7, 3.0)])[-1] == 0.0


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_every_poison_kind_is_bad(kind: str) -> None:
    for seed in range(20):
        for sensor in ("s", 'quo"te', "käse"):
            context = Context(sensor, NOW_S, good_value(sensor, NOW_S, 1.5), random.Random(seed))
            for draft in RECIPES[kind](context):
                verdict = judge(_record(draft.value, draft.key))
                assert isinstance(verdict, Bad), draft
                assert verdict.reasons


@pytest.mark.parametrize(
    "text",
    [
        '{"sensor_id":"s","ts":1700000000,"value":1}',
        ' {"value":1.0,\n"ts":1700000000.0,\t"sensor_id":"s","more":{"x":[1]}} ',
        '{"sensor_id":"s","ts":1700000000,"value":1e0,"note":"[[[ {{{ \\" NaN"}',
        '{"sensor_id":"s","ts":1.7e9,"value":1,"tiny":1e-400}',
    ],
)
def test_odd_but_good_records_are_good(text: str) -> None:
    assert judge(_record(text.encode())) == Reading("s", int(NOW_S * 1e6), 1.0)


def test_brackets_in_strings_are_not_depth() -> None:
    text = '{"sensor_id":"s","ts":1700000000,"value":1,"note":"' + "[" * 5_000 + '"}'
    assert isinstance(judge(_record(text.encode())), Reading)


def test_a_record_of_yesterday_makes_the_run_unjudgeable() -> None:
    with pytest.raises(AmbiguousInputError):
        judge(_record(good_value("s", NOW_S - 7_200.0, 1.0)))


def test_the_model_is_the_same_every_time_and_flags_some(tmp_path: Path) -> None:
    first, second = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    scorer = Scorer(first)
    dice = random.Random(3)
    rows = [tuple(dice.gauss(c, s) for c, s in zip(CENTER, SCALE, strict=True)) for _ in range(2_000)]
    scores = scorer.score(rows)
    assert 0 < sum(score > scorer.threshold for score in scores) < len(scores)
    assert scores[7:8] == pytest.approx(scorer.score(rows[7:8]), rel=1e-7)
