"""A sample without a value takes its place in the window; what is asked is of those that have one, and NaN where none has."""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.closing.store import ClosingStore
from streamer.operators.rolling.stage import WindowStage
from streamer.operators.rolling.store import RollingSpec
from streamer.rows.batch import Batch
from streamer.state.delta import merge
from streamer.topology.closing import Closing, hopping, session, tumbling
from streamer.topology.rolling import Rolling, rolling
from streamer.topology.view import AGGREGATES, Requested, Window
from tests.kit.window_oracle import Oracle
from tests.kit.window_rows import SECOND, cuts_, keys

Floats = NDArray[np.float64]
Sample = tuple[int, float, float]  # event time, a number that may be missing, and one that never is
Row = tuple[str, int, float, float]
FIELDS = ("a", "b")
SAMPLES = 64

# Whole numbers: sums of these are exact, so that what is compared is which of them count.
numbers_ = st.integers(-9, 9).map(float)
maybe_ = st.one_of(st.just(math.nan), numbers_)
times_ = st.integers(0, 12).map(lambda n: n * SECOND // 2)
rows_ = st.lists(st.tuples(keys, times_, maybe_, numbers_), min_size=1, max_size=50)


def needs(looks: int) -> Requested:
    """Everything there is of both fields, of which one may be null."""

    def every() -> Requested:
        asked = {(f, a) for f in FIELDS for a in AGGREGATES} | {("a", "values")}
        return Requested(asked, set(FIELDS), quantiles={(f, 0.25) for f in FIELDS}, nullable=frozenset("a"))

    first = every()
    first.further = [every() for _ in range(looks - 1)]
    return first


class Flow:
    """A window stage that remembers what a feature function saw."""

    def __init__(self, window: Rolling) -> None:
        asked = needs(len(window.looks))
        self.window, self.seen, self.batches = window, list[dict[str, Floats]](), list[Batch]()
        self.spec = RollingSpec.of(window, asked)
        self.stage = WindowStage(spec=self.spec, needs=asked, features=self.look, keys_max=100)
        self.stage.open(0)

    def look(self, w: Window) -> dict[str, Any]:
        seen: dict[str, Floats] = {}
        for name, view in w.looks.items():
            for f in FIELDS:
                seen |= {f"{name}/{aggregate}({f})": getattr(view, aggregate)(f) for aggregate in AGGREGATES}
                seen |= {f"{name}/quantile({f})": view.quantile(f, 0.25), f"{name}/[{f}]": view[f]}
                seen[f"{name}/count({f})"] = view.count(f)
            seen[f"{name}/count"] = np.asarray(view.count)
        self.seen.append(seen)
        return {"n": w.looks[self.window.names[0]].count}

    def feed(self, rows: Sequence[Row], cuts: Sequence[int]) -> "Flow":
        edges = sorted({0, *(cut % (len(rows) + 1) for cut in cuts), len(rows)})
        for start, end in pairwise(edges):
            some, n = rows[start:end], end - start
            columns = {name: np.array([row[place] for row in some]) for place, name in ((2, "a"), (3, "b"))}
            batch = Batch(
                topic="t", polled_us=0, keys=[row[0].encode() for row in some], partitions=np.zeros(n, np.int32),
                offsets=np.arange(n), timestamps_ms=np.zeros(n, np.int64), times_us=np.array([row[1] for row in some]),
                columns=columns, values=[b""] * n,
            )  # fmt: skip
            self.stage(batch)
            self.batches.append(batch)
        return self

    def columns(self) -> dict[str, Floats]:
        return {name: np.concatenate([part[name] for part in self.seen]) for name in self.seen[0]}


def said(samples: Sequence[Sample], place: int) -> dict[str, float]:
    """What is to be said of one field of a window, oldest sample first, in plain Python."""
    given = [(time, numbers[place]) for time, *numbers in samples if not math.isnan(numbers[place])]
    found = dict.fromkeys([*AGGREGATES, "quantile"], math.nan)
    found["count"] = len(given)
    if not given:
        return found
    values, seconds = [value for _, value in given], (given[-1][0] - given[0][0]) / 1e6
    mean, delta = math.fsum(values) / len(values), values[-1] - values[0]
    return found | {
        "sum": math.fsum(values), "mean": mean, "std": math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)),
        "min": min(values), "max": max(values), "first": values[0], "last": values[-1], "delta": delta,
        "rate": delta / seconds if seconds > 0 else 0.0, "distinct": len(set(values)),
        "quantile": float(np.quantile(values, 0.25)),
    }  # fmt: skip


def check(columns: dict[str, Floats], look: object, windows: Sequence[Sequence[Sample]], width: int) -> None:
    for row, samples in enumerate(windows):
        assert columns[f"{look}/count"][row] == len(samples)
        for place, name in enumerate(FIELDS):
            for what, want in said(samples, place).items():
                np.testing.assert_allclose(columns[f"{look}/{what}({name})"][row], want, rtol=1e-12, atol=1e-12, err_msg=what)
            matrix = [math.nan] * (width - len(samples)) + [numbers[place] for _, *numbers in samples]
            np.testing.assert_array_equal(columns[f"{look}/[{name}]"][row], matrix)


def by_count(rows: Sequence[Row], size: int) -> list[list[Sample]]:
    held: dict[str, list[Sample]] = defaultdict(list)
    found = []
    for key, time, a, b in rows:
        held[key] = [*held[key], (time, a, b)][-size:]
        found.append(held[key])
    return found


def by_time(rows: Sequence[Row], span: int, most: int) -> list[list[Sample]]:
    held: dict[str, list[tuple[int, int, float, float]]] = defaultdict(list)
    found = []
    for number, (key, time, a, b) in enumerate(rows):
        own = (time, number, a, b)
        held[key] = sorted([*held[key], own], key=lambda s: s[:2])[-most:]
        kept = any(sample[1] == number for sample in held[key])
        seen = [s for s in held[key] if time - span < s[0] and s[:2] <= own[:2]] if kept else [own]
        found.append([(t, x, y) for t, _, x, y in seen])
    return found


def cut_and_replayed_alike(flow: Flow, rows: Sequence[Row]) -> None:
    """However the input is cut the same is seen and kept, and the operations lead to the same state."""
    whole = Flow(flow.window).feed(rows, [])
    for name, column in whole.columns().items():
        assert column.tobytes() == flow.columns()[name].tobytes(), name
    replayed = flow.spec.open(100)
    replayed.apply(merge([batch.deltas[0] for batch in flow.batches], len(FIELDS)))
    dump = flow.stage.stores[0].dump()
    assert replayed.dump() == dump == whole.stage.stores[0].dump()
    loaded = flow.spec.open(100)
    loaded.load(dump)
    assert loaded.dump() == dump


@settings(max_examples=150)
@given(rows=rows_, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=2, unique=True), cuts=cuts_)
def test_windows_by_count_pass_over_what_is_missing(rows: list[Row], sizes: list[int], cuts: list[int]) -> None:
    flow = Flow(rolling(count=sizes)).feed(rows, cuts)
    for size in sizes:
        check(flow.columns(), size, by_count(rows, size), size)
    cut_and_replayed_alike(flow, rows)


@settings(max_examples=150)
@given(rows=rows_, span=st.integers(1, 8), most=st.integers(1, 9), cuts=cuts_)
def test_windows_by_time_pass_over_what_is_missing(rows: list[Row], span: int, most: int, cuts: list[int]) -> None:
    name = f"{span * 500}ms"
    flow = Flow(rolling(name, max_samples=most)).feed(rows, cuts)
    check(flow.columns(), name, by_time(rows, span * SECOND // 2, most), most)
    cut_and_replayed_alike(flow, rows)


us_ = st.integers(0, 6).map(lambda n: f"{n}us")
windows_ = st.one_of(
    st.builds(lambda size, late: tumbling(f"{size}us", grace=late, max_samples=SAMPLES), st.integers(1, 9), us_),
    st.builds(
        lambda hop, more: hopping(f"{hop + more}us", hop=f"{hop}us", max_samples=SAMPLES), st.integers(1, 5), st.integers(0, 9)
    ),
    st.builds(lambda gap, late: session(gap=f"{gap}us", grace=late, max_samples=SAMPLES), st.integers(1, 6), us_),
)  # fmt: skip


@settings(max_examples=150)
@given(window=windows_, rows=st.lists(st.tuples(keys, st.integers(0, 40), maybe_), min_size=1, max_size=40))
def test_windows_that_close_pass_over_what_is_missing(window: Closing, rows: list[tuple[str, int, float]]) -> None:
    asked = needs(1)
    spec, oracle = ClosingSpec.of(window, asked), Oracle(window.size_us, window.hop_us, window.gap_us, window.grace_us)
    want = [found for key, time, value in rows for found in oracle.row(key, time, value) if found[0] in ("each", "final")]
    store, times = ClosingStore(spec, 100), np.array([time for _, time, _ in rows])
    values = np.array([[value for *_, value in rows], [0.0] * len(rows)])
    advanced = store.pass_on([key.encode() for key, *_ in rows], times, values, final=True, each=True)
    out = advanced.out
    assert len(out) == len(want)
    for k in range(len(out)):
        n = int(out.results.count[0, k])
        numbers, block = out.results.matrix[spec.matrices[0], k][SAMPLES - n :].tolist(), out.results.aggregates[0, :, k]
        name = "final" if out.final[k] else "each", out.keys[k].decode(), int(out.start_us[k]), int(out.end_us[k])
        assert any(other[:4] == name and str(list(other[4])) == str(numbers) for other in want), name
        present = [number for number in numbers if not math.isnan(number)]
        first, last, total = (present[0], present[-1], sum(present)) if present else [math.nan] * 3
        np.testing.assert_array_equal(block[[0, 5, -1, -2]], [total, first, last, len(present)])
    replayed = ClosingStore(spec, 100)
    replayed.apply(advanced.delta)
    assert replayed.dump() == store.dump()


@pytest.mark.parametrize("window", [rolling(count=4), rolling("5s"), tumbling("5s"), session(gap="5s")])
def test_only_a_field_that_may_be_null_marks_its_state(window: Any) -> None:
    kind: Any = RollingSpec if isinstance(window, Rolling) else ClosingSpec
    asked = {("a", "mean"), ("b", "mean")}
    plain, marked = kind.of(window, Requested(asked)), kind.of(window, Requested(asked, nullable=frozenset("a")))
    assert plain.fingerprint.endswith("/a,b")
    assert marked.fingerprint == plain.fingerprint.replace("/a,b", "/a?,b")
    assert (plain.gaps, marked.gaps) == (False, True)
