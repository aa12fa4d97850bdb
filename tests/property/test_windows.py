"""Windows against an oracle in exact arithmetic, and against themselves: how the input is cut into batches shows nowhere."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.operators import aggregates
from streamer.operators.rolling.stage import WindowStage
from streamer.operators.rolling.store import RollingSpec
from streamer.rows.batch import Batch
from streamer.topology.rolling import Rolling, rolling
from streamer.topology.view import AGGREGATES, Requested, Window
from tests.kit.window_rows import EPSILON, FIELDS, SECOND, Row, cuts_, exact, keys, numbers_

Floats = NDArray[np.float64]


QUANTILES = (0.0, 0.25, 0.5, 0.95, 1.0)


def needs(looks: int = 1) -> Requested:
    """Everything there is, of both fields and in every look-back."""

    def every() -> Requested:
        return Requested(
            {(f, a) for f in FIELDS for a in AGGREGATES}, set(FIELDS), quantiles={(f, q) for f in FIELDS for q in QUANTILES}
        )

    first = every()
    first.events, first.further = {"a"}, [every() for _ in range(looks - 1)]
    return first


@dataclass(slots=True)
class Flow:
    """A window stage that remembers what a feature function saw, in float64."""

    window: Rolling
    partitions: int = 2
    seen: list[dict[str, Floats]] = field(default_factory=list)
    stage: WindowStage = field(init=False)

    def __post_init__(self) -> None:
        asked = needs(len(self.window.looks))
        self.stage = WindowStage(spec=RollingSpec.of(self.window, asked), needs=asked, features=self.look, keys_max=10_000)
        for partition in range(self.partitions):
            self.stage.open(partition)

    def look(self, w: Window) -> dict[str, Floats]:
        row: dict[str, Floats] = {}
        looks = [w] if len(self.window.names) == 1 else [w.over(name) for name in self.window.names]
        for place, look in enumerate(looks):
            seen = {"n": look.count, "event": w.event("a")}
            for name in FIELDS:
                seen |= {f"{aggregate}({name})": getattr(look, aggregate)(name) for aggregate in AGGREGATES}
                seen |= {f"quantile({name}, {q})": look.quantile(name, q) for q in QUANTILES}
                seen[f"matrix({name})"] = look[name]
            row |= {f"{place}/{called}": column for called, column in seen.items()}
        self.seen.append(row)
        return {"n": looks[0].count}

    def feed(self, rows: Sequence[Row]) -> Batch:
        """One batch."""
        n = len(rows)
        partitions = np.array([hash_of(key) % self.partitions for key, *_ in rows], np.int32)
        batch = Batch(
            topic="t", polled_us=0, keys=[key.encode() for key, *_ in rows], partitions=partitions, offsets=np.arange(n),
            timestamps_ms=np.zeros(n, np.int64), times_us=np.array([time for _, time, *_ in rows], np.int64),
            columns={"a": np.array([a for *_, a, _ in rows]), "b": np.array([b for *_, b in rows])}, values=[b""] * n,
        )  # fmt: skip
        self.stage(batch)
        return batch

    def feed_cut(self, rows: Sequence[Row], cuts: Sequence[int]) -> list[Batch]:
        """The rows as several batches."""
        edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
        return [self.feed(rows[start:end]) for start, end in pairwise(edges) if end > start]

    def columns(self, look: int = 0) -> dict[str, Floats]:
        """What was seen over one look-back, all batches joined."""
        start = f"{look}/"
        called = [name for name in self.seen[0] if name.startswith(start)]
        return {name.removeprefix(start): np.concatenate([part[name] for part in self.seen]) for name in called}


def hash_of(key: str) -> int:
    return sum(key.encode())


# ---------------------------------------------------------------------- the oracle


@dataclass(slots=True)
class Expected:
    """The samples of one window, oldest first."""

    samples: list[tuple[int, float, float]]

    def numbers(self, name: str) -> list[float]:
        return [sample[1 + FIELDS.index(name)] for sample in self.samples]


def by_count(rows: Sequence[Row], size: int) -> list[Expected]:
    last: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    found = []
    for key, time, a, b in rows:
        last[key] = [*last[key], (time, a, b)][-size:]
        found.append(Expected(last[key]))
    return found


def by_time(rows: Sequence[Row], span_us: int, most: int) -> tuple[list[Expected], int]:
    """Windows (t - span, t], and how many events pushed a sample out that was still inside the newest span."""
    heard: dict[str, list[tuple[int, int, float, float]]] = defaultdict(list)
    found, truncated = [], 0
    for number, (key, time, a, b) in enumerate(rows):
        own = (time, number, a, b)
        heard[key] = sorted([*heard[key], own], key=lambda s: s[:2])
        held = heard[key][-most:]
        if len(heard[key]) > most and heard[key][-most - 1][0] > held[-1][0] - span_us:
            truncated += 1
        heard[key] = held
        inside = [s for s in held if time - span_us < s[0] and s[:2] <= own[:2]] if own in held else [own]
        found.append(Expected([(t, x, y) for t, _, x, y in inside]))
    return found, truncated


def check(columns: dict[str, Floats], expected: Sequence[Expected], samples: int) -> None:
    assert len(columns["n"]) == len(expected)
    for row, want in enumerate(expected):
        seen = {name: column[row] for name, column in columns.items()}
        assert seen["n"] == len(want.samples)
        assert seen["event"] == want.samples[-1][1]
        for name in FIELDS:
            check_field(seen, name, want, samples)


def check_field(seen: dict[str, Any], name: str, want: Expected, samples: int) -> None:
    numbers = want.numbers(name)
    n, largest = len(numbers), max(map(abs, numbers))
    total, mean, std = exact(numbers)
    slack = n * (2 * EPSILON * largest + 5e-324)  # what adding n numbers of this size may lose
    assert abs(Fraction(seen[f"sum({name})"]) - total) <= n * slack
    assert abs(Fraction(seen[f"mean({name})"]) - mean) <= slack
    if largest < 1e150:  # beyond, a square is infinite, and so is the deviation until that sample has left
        # Two passes: the deviation inherits the error of the mean only squared, unless there is none itself.
        assert abs(seen[f"std({name})"] - std) <= math.hypot(std, slack) - std + 4 * n * EPSILON * std + 1e-160
    assert seen[f"min({name})"] == min(numbers)
    assert seen[f"max({name})"] == max(numbers)
    assert seen[f"first({name})"] == numbers[0]
    assert seen[f"last({name})"] == numbers[-1]
    assert seen[f"delta({name})"] == numbers[-1] - numbers[0]
    seconds = (want.samples[-1][0] - want.samples[0][0]) / 1e6
    assert seen[f"rate({name})"] == ((numbers[-1] - numbers[0]) / seconds if seconds > 0 else 0.0)
    assert seen[f"distinct({name})"] == len(set(numbers))
    for q in QUANTILES:
        assert seen[f"quantile({name}, {q})"] == np.quantile(numbers, q)
    matrix = seen[f"matrix({name})"]
    assert matrix.shape == (samples,)
    assert np.isnan(matrix[: samples - n]).all()
    assert matrix[samples - n :].tolist() == numbers


# ---------------------------------------------------------------------- properties

times = st.integers(0, 12).map(lambda n: n * SECOND // 2)
rows_ = st.lists(st.tuples(keys, times, numbers_, numbers_), min_size=1, max_size=60)


@settings(max_examples=200)
@given(rows=rows_, size=st.integers(1, 9), cuts=cuts_)
def test_windows_by_count_equal_the_oracle_however_they_are_cut(rows: list[Row], size: int, cuts: list[int]) -> None:
    flow = Flow(rolling(count=size))
    flow.feed_cut(rows, cuts)
    check(flow.columns(), by_count(rows, size), size)


@settings(max_examples=200)
@given(rows=rows_, span=st.integers(1, 8), most=st.integers(1, 9), cuts=cuts_)
def test_windows_by_time_equal_the_oracle_however_they_are_cut(rows: list[Row], span: int, most: int, cuts: list[int]) -> None:
    flow = Flow(rolling(f"{span * 500}ms", max_samples=most))
    flow.feed_cut(rows, cuts)
    expected, truncated = by_time(rows, span * SECOND // 2, most)
    check(flow.columns(), expected, most)
    assert flow.stage.truncated == truncated


@settings(max_examples=100)
@given(rows=rows_, spans=st.lists(st.integers(1, 12), min_size=2, max_size=3, unique=True), most=st.integers(1, 9), cuts=cuts_)
def test_several_look_backs_by_time_are_each_what_it_would_be_alone(
    rows: list[Row], spans: list[int], most: int, cuts: list[int]
) -> None:
    flow = Flow(rolling(*(f"{span * 500}ms" for span in spans), max_samples=most))
    flow.feed_cut(rows, cuts)
    for place, span in enumerate(spans):
        check(flow.columns(place), by_time(rows, span * SECOND // 2, most)[0], most)
        alone = Flow(rolling(f"{span * 500}ms", max_samples=most))
        alone.feed(rows)
        for name, column in alone.columns().items():
            assert column.tobytes() == flow.columns(place)[name].tobytes(), name
    assert flow.stage.truncated == by_time(rows, max(spans) * SECOND // 2, most)[1]


@settings(max_examples=100)
@given(rows=rows_, counts=st.lists(st.integers(1, 9), min_size=2, max_size=3, unique=True), cuts=cuts_)
def test_several_look_backs_by_count_equal_the_oracle(rows: list[Row], counts: list[int], cuts: list[int]) -> None:
    flow = Flow(rolling(count=counts))
    batches = flow.feed_cut(rows, cuts)
    for place, count in enumerate(counts):
        check(flow.columns(place), by_count(rows, count), count)
    widest = [len(window.samples) for window in by_count(rows, max(counts))]
    assert np.concatenate([batch.counts for batch in batches]).tolist() == widest


@settings(max_examples=100)
@given(rows=rows_, size=st.integers(1, 9), cuts=cuts_, timed=st.booleans())
@example(rows=[("a", 0, 0.1, 0.2)] * 9, size=4, cuts=[1, 5, 6], timed=False)
def test_batches_show_nowhere(rows: list[Row], size: int, cuts: list[int], timed: bool) -> None:
    window = rolling("3s", "1s", max_samples=size) if timed else rolling(count=(size, 10))
    whole, cut, replayed = Flow(window), Flow(window), Flow(window)
    whole.feed(rows)
    batches = cut.feed_cut(rows, cuts)
    for look in range(2):
        for name, column in whole.columns(look).items():
            assert column.tobytes() == cut.columns(look)[name].tobytes(), name
    for batch in batches:  # a restore: the same columns, no results
        for partition, delta in batch.deltas.items():
            replayed.stage.stores[partition].apply(delta)
    for partition in range(2):
        dumps = [flow.stage.stores[partition].dump() for flow in (whole, cut, replayed)]
        assert dumps[0] == dumps[1] == dumps[2]


# ---------------------------------------------------------------------- what a window has seen must leave with it


@pytest.mark.parametrize("intruder", [1e200, -1e200, 1e15, 3.4e38])
@pytest.mark.parametrize("window", [rolling(count=4), rolling("4s", max_samples=16)])
def test_an_outlier_leaves_no_trace(intruder: float, window: Rolling) -> None:
    rows = [("k", n * SECOND, intruder if n == 3 else float(n), 0.0) for n in range(9)]
    flow = Flow(window)
    flow.feed(rows)
    last = {name: column[-1] for name, column in flow.columns().items()}
    assert (last["sum(a)"], last["mean(a)"], last["std(a)"]) == (26.0, 6.5, math.sqrt(1.25))


def test_a_level_of_1e9_keeps_the_small_things() -> None:
    dice = np.random.default_rng(7)
    rows = [("k", n * SECOND, 1e9 + noise, -1e9 + noise) for n, noise in enumerate(dice.normal(0, 1e-3, 500).tolist())]
    flow = Flow(rolling(count=64))
    flow.feed(rows)
    want = [exact(window.numbers("a"))[2] for window in by_count(rows, 64)]
    assert np.allclose(flow.columns()["std(a)"], want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [0.1, -0.3, 1e9 + 0.1, 1e-300, 0.0])
@pytest.mark.parametrize("window", [rolling(count=64), rolling("1h", max_samples=64)])
def test_a_constant_series_has_no_deviation(value: float, window: Rolling) -> None:
    """A z-score divides by it: what rounding leaves there would look like an anomaly."""
    flow = Flow(window)
    flow.feed([("k", n * SECOND, value, value) for n in range(130)])
    columns = flow.columns()
    assert columns["std(a)"].tolist() == [0.0] * 130
    assert columns["mean(a)"].tolist() == [value] * 130


def test_many_keys_keep_apart() -> None:
    """More keys than the first capacity, in an order that mixes them."""
    dice = np.random.default_rng(3)
    rows = [(f"k{key}", n * SECOND, float(key), float(n)) for n, key in enumerate(dice.integers(0, 1500, 6000).tolist())]
    flow = Flow(rolling(count=3), partitions=3)
    flow.feed_cut(rows, list(range(0, 6000, 512)))
    columns = flow.columns()
    assert columns["std(a)"].max() == 0.0
    assert columns["max(a)"].tolist() == [row[2] for row in rows]
    assert columns["first(b)"].tolist() == [window.numbers("b")[0] for window in by_count(rows, 3)]


def test_what_nobody_asks_for_is_neither_kept_nor_computed() -> None:
    spec = RollingSpec.of(rolling(count=4), Requested({("a", "last")}, set(), {"b"}))
    assert (spec.fields, spec.needs, spec.keeps_time) == (("a",), (0,), False)
    asked = Requested({("a", "mean")}, further=[Requested({("b", "min")}, {"b"})])
    spec = RollingSpec.of(rolling("1s", "2s"), asked)
    assert spec.fields == ("a", "b")
    assert spec.needs == (aggregates.NEED_SUM, 0, 0, aggregates.NEED_RANGE | aggregates.NEED_MATRIX)
    assert spec.matrices == (-1, -1, -1, 0)
    assert RollingSpec.of(rolling(count=4), Requested({("a", "rate")})).keeps_time
