"""Stores of windows that close against the oracle: any cut into batches, any order of events, and again in a restore."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.closing.store import Advanced, ClosingStore
from streamer.state.delta import Delta, merge
from streamer.topology.closing import Closing, hopping, session, tumbling
from streamer.topology.view import Requested
from tests.kit.window_oracle import Found, Oracle

ASKED = Requested({("a", "sum"), ("a", "first"), ("a", "last"), ("a", "min")}, {"a"}, set(), {("a", 0.5)})
SAMPLES = 64
Step = tuple[str, int]  # key and event time, or "" for a tick


def spec_of(window: Closing, *, advances_watermark: bool = True) -> ClosingSpec:
    spec = ClosingSpec.of(window, ASKED)
    return ClosingSpec(
        window=spec.window, fields=spec.fields, needs=spec.needs, quantiles=spec.quantiles, keeps_time=spec.keeps_time,
        advances_watermark=advances_watermark,
    )  # fmt: skip


def oracle_of(window: Closing, keys_max: int, *, advances_watermark: bool = True) -> Oracle:
    return Oracle(window.size_us, window.hop_us, window.gap_us, window.grace_us, keys_max, advances_watermark)


@dataclass(slots=True)
class Live:
    """A store that is fed batches and ticks, and what it gave, row by row of the input."""

    store: ClosingStore
    fed: int = 0
    found: list[list[Found]] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    truncated: int = 0

    def feed(self, steps: Sequence[Step]) -> None:
        keys, n = [key.encode() for key, _ in steps], len(steps)
        times, values = np.array([time for _, time in steps], np.int64), np.arange(self.fed, self.fed + n, dtype=np.float64)
        self.fed += n
        advanced = self.store.pass_on(keys, times, values[None, :], final=True, each=True)
        self.note(advanced, n)
        for row, watermark, end in zip(advanced.late, advanced.late_watermark, advanced.late_end, strict=True):
            self.found[row - n].append(("late", steps[row][0], 0, int(end), (int(watermark),)))
        for row in advanced.refused:
            self.found[row - n].append(("refused", steps[row][0], 0, 0, ()))

    def tick(self, time: int) -> None:
        self.fed += 1
        self.note(self.store.close_until(time, final=True), 1)

    def note(self, advanced: Advanced, rows: int) -> None:
        self.deltas.append(advanced.delta)
        self.truncated += advanced.truncated
        self.found += [[] for _ in range(rows)]
        out = advanced.out
        for k in range(len(out)):
            numbers = tuple(out.results.matrix[0, k][SAMPLES - out.results.count[0, k] :].tolist())
            block, newest = out.results.aggregates[0, :, k], out.newest[0, k]
            assert (block[0], block[5], newest, block[3]) == (sum(numbers), numbers[0], numbers[-1], min(numbers))
            assert block[7] == np.quantile(numbers, 0.5)
            kind = "final" if out.final[k] else "each"
            row = out.rows[k] - rows if out.rows[k] >= 0 else -1
            self.found[row].append((kind, out.keys[k].decode(), int(out.start_us[k]), int(out.end_us[k]), numbers))

    def play(self, steps: Sequence[Step], cuts: Sequence[int]) -> "Live":
        """The steps in batches; a tick stands alone."""
        edges = {cut % (len(steps) + 1) for cut in cuts} | {0, len(steps)}
        edges |= {n + side for n, (key, _) in enumerate(steps) if not key for side in (0, 1)}
        for start, end in pairwise(sorted(edges)):
            if steps[start][0]:
                self.feed(steps[start:end])
            else:
                self.tick(steps[start][1])
        return self


def in_order(found: list[Found]) -> list[Found]:
    """Windows that close at the same time do so in the order of their slots, which the oracle does not know."""
    finals = [row for row in found if row[0] == "final"]
    return sorted(finals, key=lambda row: (row[3], row[1])) + [row for row in found if row[0] != "final"]


def expected(oracle: Oracle, steps: Sequence[Step]) -> list[list[Found]]:
    return [oracle.row(key, time, float(n)) if key else oracle.move(time) for n, (key, time) in enumerate(steps)]


def us(number: int) -> str:
    return f"{number}us"


windows_ = st.one_of(
    st.builds(lambda size, late: tumbling(us(size), grace=us(late), max_samples=SAMPLES), st.integers(1, 9), st.integers(0, 6)),
    st.builds(
        lambda every, more, late: hopping(us(every + more), hop=us(every), grace=us(late), max_samples=SAMPLES),
        st.integers(1, 5), st.integers(0, 9), st.integers(0, 6),
    ),
    st.builds(lambda gap, late: session(gap=us(gap), grace=us(late), max_samples=SAMPLES), st.integers(1, 6), st.integers(0, 6)),
)  # fmt: skip
keys_ = st.sampled_from("aabbcdefg")
times_ = st.integers(0, 60)
drifting_ = st.lists(st.tuples(keys_, st.integers(-8, 10)), min_size=1, max_size=50)
ticks_ = st.lists(st.tuples(st.integers(0, 50), times_), max_size=3)
cuts_ = st.lists(st.integers(0, 50), max_size=6)


def drift(moves: Sequence[tuple[str, int]]) -> list[Step]:
    """Event times that mostly grow, as in a log, with some out of order."""
    now, steps = 20, []
    for key, move in moves:
        steps.append((key, max(0, now + move)))
        now += max(0, move // 3)
    return steps


steps_ = st.one_of(drifting_.map(drift), st.lists(st.tuples(keys_, times_), min_size=1, max_size=50))


@settings(max_examples=300)
@given(window=windows_, steps=steps_, cuts=cuts_, keys_max=st.integers(1, 9), ticks=ticks_)
def windows_equal_the_oracle(
    window: Closing, steps: list[Step], cuts: list[int], keys_max: int, ticks: list[tuple[int, int]]
) -> None:
    for place, time in ticks:
        steps.insert(place % (len(steps) + 1), ("", time))
    oracle = oracle_of(window, keys_max)
    want = expected(oracle, steps)
    live = Live(ClosingStore(spec_of(window), keys_max)).play(steps, cuts)
    assert [in_order(row) for row in live.found] == [in_order(row) for row in want]
    assert (live.store.watermark, live.store.keys.evicted, live.truncated) == (oracle.watermark, oracle.evicted, 0)
    # whatever way the input is cut, the same comes out in the same order, and the same is kept
    whole = Live(ClosingStore(spec_of(window), keys_max)).play(steps, [])
    assert live.found == whole.found
    assert live.store.dump() == whole.store.dump()
    # the operations lead to the same state, one by one and all together
    replayed, joined = (ClosingStore(spec_of(window), keys_max) for _ in range(2))
    for delta in live.deltas:
        replayed.apply(delta)
    joined.apply(merge(live.deltas, 1))
    assert replayed.dump() == joined.dump() == live.store.dump()
    # accounting: every row has one outcome, and every sample that was admitted is in a window or was in one
    fates = [row[-1][0] for row, (key, _) in zip(live.found, steps, strict=True) if key]
    assert all(fate in ("each", "late", "refused") for fate in fates)


@settings(max_examples=150)
@given(window=windows_, steps=steps_, cuts=cuts_, keys_max=st.integers(2, 9))
def prefixes_go_on_alike(window: Closing, steps: list[Step], cuts: list[int], keys_max: int) -> None:
    live = Live(ClosingStore(spec_of(window), keys_max))
    for start, end in pairwise(sorted({cut % (len(steps) + 1) for cut in cuts} | {0, len(steps)})):
        live.feed(steps[start:end])
        loaded, replayed = (Live(ClosingStore(spec_of(window), keys_max), fed=end) for _ in range(2))
        loaded.store.load(live.store.dump())
        for delta in live.deltas:
            replayed.store.apply(delta)
        assert loaded.store.dump() == replayed.store.dump() == live.store.dump()
        for twin in (loaded, replayed):
            twin.play([*steps[end:], ("z", 99), ("", 200)], [])
        assert loaded.found == replayed.found
        assert loaded.store.dump() == replayed.store.dump()


@settings(max_examples=200)
@given(window=windows_, moves=drifting_, cuts=cuts_, dice=st.randoms(use_true_random=False))
def grace_gives_what_order_gives(window: Closing, moves: list[tuple[str, int]], cuts: list[int], dice: Any) -> None:
    """Sorted input and the same input shuffled by no more than the grace close the same windows with the same samples."""
    ordered = sorted(drift(moves), key=lambda step: step[1])
    late = window.grace_us
    shuffled = sorted(ordered, key=lambda step: step[1] + dice.uniform(0, late))
    end = [("", max(time for _, time in ordered) + 100)]

    def finals(steps: Sequence[Step]) -> list[tuple[str, int, int, list[Step]]]:
        live = Live(ClosingStore(spec_of(window), 100)).play([*steps, *end], cuts)
        assert not [row for rows in live.found for row in rows if row[0] == "late"]
        closed = [row for rows in live.found for row in rows if row[0] == "final"]
        return sorted((key, start, end, sorted(steps[int(n)] for n in numbers)) for _, key, start, end, numbers in closed)

    assert finals(shuffled) == finals(ordered)


def only_ticks_move_a_watermark() -> None:
    window = tumbling("10us", max_samples=SAMPLES)
    live = Live(ClosingStore(spec_of(window, advances_watermark=False), 9)).play(
        [("a", 5), ("a", 50), ("b", 1), ("", 20), ("a", 5)], []
    )
    assert [[row[0] for row in rows] for rows in live.found] == [["each"], ["each"], ["each"], ["final", "final"], ["late"]]
    oracle = oracle_of(window, 9, advances_watermark=False)
    assert [in_order(r) for r in live.found] == expected(oracle, [("a", 5), ("a", 50), ("b", 1), ("", 20), ("a", 5)])


def a_key_keeps_no_more_samples_than_it_may() -> None:
    window = tumbling("100us", max_samples=3)
    store = ClosingStore(spec_of(window), 9)
    values = np.arange(5.0)[None, :]
    advanced = store.pass_on([b"a"] * 5, np.array([5, 1, 9, 2, 7]), values, final=True, each=False)
    assert advanced.truncated == 2
    closed = store.close_until(100, final=True)
    assert closed.out.results.matrix[0, 0].tolist() == [0.0, 4.0, 2.0]  # at 5, 7 and 9


def many_keys_close_by_their_deadlines() -> None:
    """More keys than the first capacity, and heaps that overflow with stale entries."""
    dice = np.random.default_rng(4)
    moment = np.sort(dice.integers(0, 4_000, 20_000))
    times = np.maximum(0, moment - dice.integers(0, 40, 20_000)).tolist()
    steps = [(f"k{key}", time) for key, time in zip(dice.integers(0, 700, 20_000).tolist(), times, strict=True)]
    grid = hopping("40us", hop="10us", grace="20us", max_samples=SAMPLES)
    for window in (session(gap="30us", grace="20us", max_samples=SAMPLES), grid):
        oracle = oracle_of(window, 500)
        want = expected(oracle, steps)
        live = Live(ClosingStore(spec_of(window), 500)).play(steps, list(range(0, 20_000, 2_048)))
        assert [in_order(row) for row in live.found] == [in_order(row) for row in want]
        assert live.store.keys.evicted == oracle.evicted
        assert isinstance(live.store, ClosingStore)
