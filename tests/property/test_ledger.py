"""Latency adds up: the parts of every row sum to the whole, and quantiles lie within the error of a bucket."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.rows.batch import Batch
from streamer.rows.stamps import Stamps
from streamer.telemetry.ledger import BEFORE, BOUNDS_S, Histogram, Ledger, parts_of
from streamer.telemetry.steps import Steps
from tests.kit import flows
from tests.kit.faulty import FaultTest, short_waits

__all__ = ["short_waits"]
NAMED = Steps("rolling-1", "infer-1", "flag-1")
MONOTONIC, WALL_US = 50_000.0, 1_700_000_000_000_000
STATIONS = ("polled", "decoded", "windowed", "run_started", "run_ended", "encoded", "produced")
waits = st.lists(st.floats(0, 100), min_size=len(STATIONS), max_size=len(STATIONS))
ages_ms = st.lists(st.integers(-5_000, 10**9), min_size=1, max_size=6)


def batch(passed: list[float], ages: list[int], event_age_us: int, rekey_ms: int | None = None) -> Batch:
    n = len(ages)
    stamps = Stamps(**dict(zip(STATIONS, (MONOTONIC + np.cumsum([0.0, *passed[:-1]])).tolist(), strict=True)))
    timestamps = WALL_US // 1000 - np.array(ages)
    made = Batch(
        topic="t", polled_us=WALL_US, keys=[b"k"] * n, partitions=np.zeros(n, np.int32), offsets=np.arange(n),
        timestamps_ms=timestamps, times_us=timestamps * 1000 - event_age_us, columns={}, values=[None] * n, stamps=stamps,
    )  # fmt: skip
    if rekey_ms is not None:
        made.received, made.timestamps_ms = made.origin, timestamps + rekey_ms
    return made


@given(waits, ages_ms, st.integers(-(10**9), 10**12), st.none() | st.integers(0, 10**6))
def test_the_parts_of_every_row_sum_to_the_whole(
    passed: list[float], ages: list[int], event_age_us: int, rekey_ms: int | None
) -> None:
    committed = MONOTONIC + sum(passed)
    for age in ages:  # a ledger of one row shows that row
        ledger = Ledger(NAMED)
        ledger.record([batch(passed, [age], event_age_us, rekey_ms)], committed, None)
        parts = {name: histogram.total_s for name, histogram in ledger.parts.items()}
        assert list(parts) == list(parts_of(NAMED))
        assert sum(parts.values()) == pytest.approx(ledger.end_to_end["event"].total_s, rel=1e-9, abs=1e-6)
        since_record = sum(parts.values()) - parts["source"]
        assert since_record == pytest.approx(ledger.end_to_end["record"].total_s, rel=1e-9, abs=1e-6)
        # What lies ahead of who saw it happened just then.
        arrived_ms = max(age - (rekey_ms or 0), 0)
        assert parts["broker"] == pytest.approx(arrived_ms / 1e3)
        assert parts["rekey"] == pytest.approx((max(age, arrived_ms) - arrived_ms) / 1e3)
        ahead_us = (max(age, arrived_ms) - age) * 1000
        assert parts["source"] == pytest.approx(max(event_age_us - ahead_us, 0) / 1e6)
        assert min(parts.values()) >= 0
        own = [parts[name] for name in parts_of(NAMED)[len(BEFORE) :]]
        assert own == pytest.approx(passed, abs=1e-6)
    whole = Ledger(NAMED)
    batches = [batch(passed, ages[:1], event_age_us, rekey_ms), batch(passed, ages[1:], event_age_us, rekey_ms)]
    whole.record(batches, committed, None)
    assert {h.rows for h in [*whole.parts.values(), *whole.end_to_end.values()]} == {len(ages)}
    assert sum(h.total_s for h in whole.parts.values()) == pytest.approx(whole.end_to_end["event"].total_s, rel=1e-9, abs=1e-5)


@given(waits, ages_ms)
def test_without_a_model_too(passed: list[float], ages: list[int]) -> None:
    """Its stamps are those of where the row came from, as a flow without one sets them."""
    made = batch(passed, ages, 0)
    made.stamps.run_started = made.stamps.run_ended = made.stamps.windowed
    ledger = Ledger(Steps("match-1", scores=False))
    ledger.record([made], MONOTONIC + sum(passed), None)
    assert list(ledger.parts) == [*BEFORE, "decode", "match-1", "encode", "produce", "commit"]
    assert {h.rows for h in ledger.parts.values()} == {len(ages)}
    assert sum(h.total_s for h in ledger.parts.values()) == pytest.approx(ledger.end_to_end["event"].total_s, rel=1e-9, abs=1e-5)


@given(
    st.lists(st.floats(1e-5, 9_000.0), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_is_off_by_at_most_its_bucket(seconds: list[float], q: float) -> None:
    each, one = Histogram(), Histogram()
    each.add_each(np.array(seconds))
    for value in seconds:
        one.add(value, 1)
    exact = float(np.quantile(seconds, q, method="inverted_cdf"))
    assert each.quantile(q) == one.quantile(q)
    assert abs(each.quantile(q) / exact - 1) <= 0.16
    assert each.rows == len(seconds)
    assert each.total_s == pytest.approx(sum(seconds))


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e5, float(BOUNDS_S[0]), float(BOUNDS_S[-1])])
def test_durations_beyond_the_buckets_are_counted(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds, 2)
    histogram.add_each(np.array([seconds]))
    assert histogram.rows == 3
    assert 0 < histogram.quantile(0.5) <= BOUNDS_S[-1]


def test_an_empty_ledger_has_nothing_to_say() -> None:
    ledger = Ledger(NAMED)
    ledger.record([], MONOTONIC, None)
    ledger.record([batch([0.0] * 7, [], 0)], MONOTONIC, None)
    assert ledger.end_to_end["event"].rows == 0
    assert Histogram().quantile(0.99) == 0.0


def test_a_deadline_is_counted_from_the_record_timestamp() -> None:
    ledger = Ledger(NAMED)
    ledger.record([batch([0.1] * 7, [0, 100, 299, 301], 10**9)], MONOTONIC + 0.7, 1.0)
    assert ledger.deadline_missed == 1


@pytest.mark.usefixtures("short_waits")
def test_what_the_worker_books_adds_up() -> None:
    with FaultTest(flows.topology(), models=flows.score, partitions=2) as test:
        for n in range(50):
            test.send_bytes(flows.SOURCE, b"s", flows.value_of("s", test.now - 2.0, float(n)))
            test.clock.advance(0.01)
            if n % 7 == 0:
                test.turns(2)
        test.run()
        ledger = test.worker.metrics.ledger
        parts = {name: histogram.total_s for name, histogram in ledger.parts.items()}
        assert sum(parts.values()) == pytest.approx(ledger.end_to_end["event"].total_s, rel=1e-9)
        assert {histogram.rows for histogram in ledger.parts.values()} == {50}
        assert parts["source"] == pytest.approx(100.0, rel=1e-3)
        assert min(parts.values()) >= 0
