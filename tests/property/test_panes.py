"""Windows of panes against an oracle that keeps every sample, in exact arithmetic; and against themselves.

Where a field may be null, a sample without a value takes its place, and what is asked is of those that have one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.operators.rolling.panes import PaneSpec, PaneStore
from streamer.operators.rolling.stage import WindowStage
from streamer.rows.batch import Batch
from streamer.topology.rolling import Rolling, rolling
from streamer.topology.view import Requested, Window
from tests.kit.window_rows import EPSILON, FIELDS, SECOND, Row, cuts_, exact, keys, numbers_

Floats = NDArray[np.float64]
ANSWERED = ("sum", "mean", "std", "min", "max", "first", "last", "delta", "rate")


def needs(looks: int, nullable: frozenset[str]) -> Requested:
    asked = {(f, a) for f in FIELDS for a in ANSWERED} | {(f, "values") for f in nullable}
    every = [Requested(set(asked), nullable=nullable) for _ in range(looks)]
    every[0].further = every[1:]
    return every[0]


class Flow:
    """A window stage of one partition that remembers what a feature function saw, look-back by look-back."""

    def __init__(self, window: Rolling, nullable: str = "") -> None:
        self.window, asked = window, needs(len(window.looks), frozenset(nullable))
        self.seen: list[list[dict[str, Floats]]] = []
        self.stage = WindowStage(spec=PaneSpec.of(window, asked), needs=asked, features=self.look, keys_max=10_000)
        self.stage.open(0)

    @property
    def store(self) -> Any:
        return self.stage.stores[0]

    def look(self, w: Window) -> dict[str, Floats]:
        looks = [w] if len(self.window.names) == 1 else [w.over(name) for name in self.window.names]
        self.seen.append(
            [
                {"n": look.count} | {f"{a}({f})": getattr(look, a)(f) for f in FIELDS for a in ("count", *ANSWERED)}
                for look in looks
            ]
        )
        return {"n": looks[0].count}

    def feed(self, rows: Sequence[Row]) -> Batch:
        n = len(rows)
        batch = Batch(
            topic="t", polled_us=0, keys=[key.encode() for key, *_ in rows], partitions=np.zeros(n, np.int32),
            offsets=np.arange(n), timestamps_ms=np.zeros(n, np.int64),
            times_us=np.array([time for _, time, *_ in rows], np.int64),
            columns={"a": np.array([a for *_, a, _ in rows]), "b": np.array([b for *_, b in rows])}, values=[b""] * n,
        )  # fmt: skip
        self.stage(batch)
        return batch

    def feed_cut(self, rows: Sequence[Row], cuts: Sequence[int]) -> list[Batch]:
        edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
        return [self.feed(rows[start:end]) for start, end in pairwise(edges) if end > start]

    def columns(self, look: int) -> dict[str, Floats]:
        return {name: np.concatenate([batch[look][name] for batch in self.seen]) for name in self.seen[0][look]}


@dataclass(slots=True)
class Oracle:
    """All samples of a key, and the rule which of them an event sees."""

    resolution: int
    kept: int  # panes of the widest look-back

    def windows(self, rows: Sequence[Row], panes: int) -> list[list[tuple[int, float, float]]]:
        heard: dict[str, list[tuple[int, float, float]]] = {}
        newest: dict[str, int] = {}
        found = []
        for key, time, a, b in rows:
            pane = time // self.resolution
            newest[key] = max(newest.get(key, 0), pane)
            if pane <= newest[key] - self.kept:
                found.append([(time, a, b)])
                continue
            heard.setdefault(key, []).append((time, a, b))
            oldest = max(pane - panes, newest[key] - self.kept) + 1
            found.append([s for s in heard[key] if oldest <= s[0] // self.resolution <= pane])
        return found


def check(columns: dict[str, Floats], row: int, samples: list[tuple[int, float, float]], own: Row) -> None:
    assert columns["n"][row] == len(samples)
    for place, name in enumerate(FIELDS):
        seen = {aggregate: columns[f"{aggregate}({name})"][row] for aggregate in ANSWERED}
        given = [(time, of[place]) for time, *of in samples if not math.isnan(of[place])]
        assert columns[f"count({name})"][row] == len(given)
        if not given:
            assert all(map(math.isnan, seen.values())), name
            continue
        first_at, first = min(given, key=lambda s: s[0])  # the first of several, in log order
        # The event's own value; where it has none, the newest that is seen, and of several the last in log order.
        last_at, last = (own[1], own[2:][place]) if own[2:][place] == own[2:][place] else max(given[::-1], key=lambda s: s[0])
        numbers = [number for _, number in given]
        n, largest = len(numbers), max(map(abs, numbers))
        total, mean, std = exact(numbers)
        slack = n * (4 * EPSILON * largest + 5e-324)
        assert abs(Fraction(seen["sum"]) - total) <= n * slack
        assert abs(Fraction(seen["mean"]) - mean) <= slack
        if largest < 1e150:
            assert abs(seen["std"] - std) <= math.hypot(std, slack) - std + 16 * n * EPSILON * std + 1e-160
        assert (seen["min"], seen["max"], seen["first"], seen["last"]) == (min(numbers), max(numbers), first, last)
        assert seen["delta"] == last - first
        seconds = (last_at - first_at) / 1e6
        assert seen["rate"] == ((last - first) / seconds if seconds > 0 else 0.0)


times = st.integers(0, 40).map(lambda n: n * SECOND // 2)
rows_ = st.lists(st.tuples(keys, times, numbers_, numbers_), min_size=1, max_size=60)
maybe_ = st.one_of(st.just(math.nan), numbers_)
spotty_ = st.lists(st.tuples(keys, times, maybe_, numbers_), min_size=1, max_size=60)


@settings(max_examples=200)
@given(rows=rows_, counts=st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True), seconds=st.integers(1, 3), cuts=cuts_)
def test_panes_equal_the_oracle_however_they_are_cut(rows: list[Row], counts: list[int], seconds: int, cuts: list[int]) -> None:
    window = rolling(*(f"{count * seconds}s" for count in counts), resolution=f"{seconds}s")
    flow, oracle = Flow(window), Oracle(seconds * SECOND, max(counts))
    flow.feed_cut(rows, cuts)
    for look, count in enumerate(counts):
        columns = flow.columns(look)
        for row, samples in enumerate(oracle.windows(rows, count)):
            check(columns, row, samples, rows[row])


@settings(max_examples=200)
@given(
    rows=spotty_, counts=st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True), seconds=st.integers(1, 3), cuts=cuts_
)  # fmt: skip
def test_panes_pass_over_what_is_missing(rows: list[Row], counts: list[int], seconds: int, cuts: list[int]) -> None:
    window = rolling(*(f"{count * seconds}s" for count in counts), resolution=f"{seconds}s")
    flow, oracle = Flow(window, "a"), Oracle(seconds * SECOND, max(counts))
    flow.feed_cut(rows, cuts)
    for look, count in enumerate(counts):
        columns = flow.columns(look)
        for row, samples in enumerate(oracle.windows(rows, count)):
            check(columns, row, samples, rows[row])


@pytest.mark.parametrize("nullable", ["", "a"])
@settings(max_examples=100)
@given(rows=spotty_, cuts=cuts_)
def test_batches_show_nowhere_and_a_restore_is_the_live_state(nullable: str, rows: list[Row], cuts: list[int]) -> None:
    window = rolling("8s", "2s", resolution="1s")
    rows = rows if nullable else [(key, time, 0.5 if math.isnan(a) else a, b) for key, time, a, b in rows]
    whole, cut, replayed, loaded = (Flow(window, nullable) for _ in range(4))
    whole.feed(rows)
    batches = cut.feed_cut(rows, cuts)
    for look in range(2):
        for name, column in whole.columns(look).items():
            assert column.tobytes() == cut.columns(look)[name].tobytes(), name
    for batch in batches:
        replayed.store.apply(batch.deltas[0])
    loaded.store.load(whole.store.dump())
    assert whole.store.dump() == cut.store.dump() == replayed.store.dump() == loaded.store.dump()
    whole.feed(rows[:3])
    loaded.feed(rows[:3])
    assert whole.store.dump() == loaded.store.dump()


@pytest.mark.parametrize("intruder", [1e200, -1e200, 1e15, 3.4e38])
def test_an_outlier_leaves_no_trace(intruder: float) -> None:
    flow = Flow(rolling("4s", resolution="1s"))
    flow.feed([("k", n * SECOND, intruder if n == 3 else float(n), 0.0) for n in range(9)])
    last = {name: column[-1] for name, column in flow.columns(0).items()}
    assert (last["sum(a)"], last["mean(a)"], last["std(a)"]) == (26.0, 6.5, math.sqrt(1.25))


def test_a_level_of_1e9_keeps_the_small_things() -> None:
    dice = np.random.default_rng(7)
    rows = [("k", n * SECOND // 8, 1e9 + noise, -1e9 + noise) for n, noise in enumerate(dice.normal(0, 1e-3, 2000).tolist())]
    flow = Flow(rolling("60s", resolution="10s"))
    flow.feed(rows)
    want = [exact([s[1] for s in samples])[2] for samples in Oracle(10 * SECOND, 6).windows(rows, 6)]
    assert np.allclose(flow.columns(0)["std(a)"], want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [0.1, -0.3, 1e9 + 0.1, 1e-300, 0.0])
def test_a_constant_series_has_no_deviation(value: float) -> None:
    flow = Flow(rolling("60s", resolution="10s"))
    flow.feed([("k", n * SECOND, value, value) for n in range(130)])
    assert flow.columns(0)["std(a)"].tolist() == [0.0] * 130
    assert flow.columns(0)["mean(a)"].tolist() == [value] * 130


def test_only_what_is_asked_is_kept() -> None:
    spec = PaneSpec.of(rolling("30d", resolution="1h"), Requested({("a", "mean")}))
    store = spec.open(10)
    assert isinstance(store, PaneStore)
    assert store.arrays["parts"].shape == (10, 3, 720)
    assert store.arrays["first_t"].shape == (10, 0)
    assert spec.bytes_per_key == 720 * (1 + 3) * 8 + 8 + 112
    more = PaneSpec.of(rolling("30d", resolution="1h"), Requested({("a", "mean")}, further=[]))
    other = PaneSpec.of(rolling("30d", resolution="1h"), Requested({("a", "std")}))
    assert spec.fingerprint == more.fingerprint == "panes/720/3600000000/a:1"
    assert spec.fingerprint != other.fingerprint
    held = spec.open(10).samples(b"nobody")
    assert held is None


@pytest.mark.parametrize(
    ("asked", "bits", "parts"),
    [
        (("values",), 64, 1),
        (("mean",), 64 + 1, 1 + 3),
        (("min", "first"), 64 + 4 + 16, 1 + 2 + 2),
        (("last",), 64 + 128, 1 + 2),
        (("rate", "std"), 64 + 128 + 16 + 2, 1 + 2 + 2 + 5),
    ],
    ids=str,
)
def test_of_a_field_that_may_be_null_it_keeps_how_many_have_a_value(asked: tuple[str, ...], bits: int, parts: int) -> None:
    spec = PaneSpec.of(rolling("4s", resolution="1s"), Requested({("a", one) for one in asked}, nullable=frozenset("ab")))
    assert spec.fingerprint == f"panes/4/1000000/a:{bits}"
    arrays = spec.open(10).arrays
    assert (arrays["parts"].shape, arrays["first_t"].shape) == ((10, parts, 4), (10, 0))


def test_a_key_shows_its_panes() -> None:
    flow = Flow(rolling("4s", resolution="1s"))
    flow.feed([("k", n * SECOND // 2, 1.0, 1.0) for n in range(11)])
    times, counts = flow.store.samples(b"k")
    assert (times // SECOND).tolist() == [2, 3, 4, 5]
    assert counts.tolist() == [[2.0, 2.0, 2.0, 1.0]]
