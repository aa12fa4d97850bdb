"""Who is remembered: evictions and expiry against a plain-Python oracle, however the input is cut, and again in a restore."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.operators.rolling.store import RollingSpec, RollingStore
from streamer.operators.samples import Results
from streamer.state.delta import TICK, Delta, merge
from streamer.state.names import Names
from streamer.topology.view import Needs, Rolling, rolling

SECOND = 1_000_000
ASKED = Needs({("a", "sum")})
Row = tuple[int, int]


@dataclass(slots=True)
class Expected:
    """One partition, key by key and row by row."""

    keys_max: int
    ttl: int
    size: int
    watermark: int = -1
    samples: dict[int, list[float]] = field(default_factory=dict)
    newest: dict[int, int] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    evicted: int = 0

    def row(self, key: int, time: int, value: float) -> list[float]:
        """The window of one more sample."""
        self.watermark = max(self.watermark, time)
        if key in self.samples and self.ttl and self.newest[key] < self.watermark - self.ttl:
            self.forget(key)
        elif key not in self.samples and len(self.samples) == self.keys_max:
            self.forget(self.seen[0])
            self.evicted += 1
        self.samples[key] = [*self.samples.get(key, []), value][-self.size :]
        self.newest[key] = max(time, self.newest.get(key, -1))
        self.seen = [*(k for k in self.seen if k != key), key]
        return self.samples[key]

    def forget(self, key: int) -> None:
        del self.samples[key], self.newest[key]
        self.seen.remove(key)


def feed(store: RollingStore, rows: Sequence[Row], first: int) -> tuple[Delta, Results]:
    """Enter one batch; the value of a sample is its place in the input."""
    keys = [str(key).encode() for key, _ in rows]
    times = np.array([time for _, time in rows], np.int64)
    values = np.arange(first, first + len(rows), dtype=np.float64)[None, :]
    results = Results.empty(store.spec, len(rows))
    delta, _ = store.advance(keys, times, values, np.arange(len(rows)), results)
    return delta, results


def edges(rows: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Where batches begin and end."""
    return [(a, b) for a, b in pairwise([0, *sorted(cut % (rows + 1) for cut in cuts), rows]) if a < b]


def window(by_time: bool, size: int, ttl: int) -> Rolling:
    text = f"{ttl}us" if ttl else None
    return rolling("1us", max_samples=size, ttl=text) if by_time else rolling(count=size, ttl=text)


rows_ = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), min_size=1, max_size=80)
cuts_ = st.lists(st.integers(0, 80), max_size=8)


@pytest.mark.parametrize("queue", [1, 1024])
@settings(max_examples=150)
@given(rows=rows_, cuts=cuts_, keys_max=st.integers(1, 7), ttl=st.sampled_from([0, 0, 1, 5, 20]), size=st.integers(1, 4))
def test_evictions_and_expiry_equal_the_oracle(
    queue: int, rows: list[Row], cuts: list[int], keys_max: int, ttl: int, size: int
) -> None:
    spec = RollingSpec.of(window(False, size, ttl), ASKED)
    live, replayed, joined = (RollingStore(spec, keys_max) for _ in range(3))
    oracle, deltas = Expected(keys_max, ttl, size), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamer.state.keys._QUEUE_MIN", queue)
        for start, end in edges(len(rows), cuts):
            delta, results = feed(live, rows[start:end], start)
            deltas.append(delta)
            replayed.apply(delta)
            for place, (key, time) in enumerate(rows[start:end]):
                held = oracle.row(key, time, float(start + place))
                assert (results.count[0, place], results.aggregates[0, 0, place]) == (len(held), sum(held))
            assert replayed.dump() == live.dump()
    assert {int(key): list(live.samples(key)[1][0]) for key in live.keys.index.names()} == oracle.samples  # type: ignore[index]
    assert (live.watermark, live.keys.evicted) == (oracle.watermark, oracle.evicted)
    joined.apply(merge(deltas, 1))
    assert joined.dump() == live.dump()


@settings(max_examples=100)
@given(rows=rows_, cuts=cuts_, keys_max=st.integers(1, 7), ttl=st.sampled_from([0, 5]), by_time=st.booleans())
def test_the_cut_shows_nowhere_and_a_dump_is_the_whole_state(
    rows: list[Row], cuts: list[int], keys_max: int, ttl: int, by_time: bool
) -> None:
    spec = RollingSpec.of(window(by_time, 3, ttl), ASKED)
    whole, cut = RollingStore(spec, keys_max), RollingStore(spec, keys_max)
    feed(whole, rows, 0)
    for start, end in edges(len(rows), cuts):
        loaded = RollingStore(spec, keys_max)
        loaded.load(cut.dump())  # goes on where the other stood, at every cut
        assert loaded.dump() == cut.dump()
        feed(loaded, rows[start:end], start)
        cut = loaded
    assert cut.dump() == whole.dump()


def test_operations_mean_the_same_however_they_are_joined() -> None:
    """A slot given away between two samples of one delta, a tick, and a slot given twice in a row."""
    spec = RollingSpec.of(rolling(count=4), ASKED)
    slots = np.array([-2, 0, 0, -3, 1, -2, 0, TICK, -3, -3, 1], np.int32)
    times = np.array([1, 1, 2, 3, 3, 4, 4, 90, 5, 6, 6], np.int64)
    values = np.where(slots >= 0, np.arange(11.0), 0.0)[None, :]
    keys = [b"a", b"b", b"c", b"d", b"e"]
    whole, single = RollingStore(spec, 9), RollingStore(spec, 9)
    whole.apply(Delta(Names.of(keys), slots, times, values))
    for i in range(11):
        opened = int((slots[:i] < TICK).sum())
        new = keys[opened : opened + 1] if slots[i] < TICK else []
        single.apply(Delta(Names.of(new), slots[i : i + 1], times[i : i + 1], np.ascontiguousarray(values[:, i : i + 1])))
    assert whole.dump() == single.dump()
    assert list(whole.keys.index.names()) == [b"c", b"e"]
    assert whole.watermark == 90
    assert [whole.samples(key)[1].tolist() for key in (b"c", b"e")] == [[[6.0]], [[10.0]]]  # type: ignore[index]


def test_dumps_of_different_states_differ() -> None:
    spec = RollingSpec.of(rolling(count=4), ASKED)
    dumps = []
    for rows in ([(1, 1)], [(1, 2)], [(2, 1)], [(1, 1), (1, 1)], []):
        store = RollingStore(spec, 9)
        feed(store, rows, 0)
        dumps.append(store.dump())
    assert all(dumps[a] != dumps[b] for a in range(5) for b in range(a))


@pytest.mark.parametrize(("before", "after"), [(None, "20us"), ("20us", None)])
def test_a_ttl_may_come_and_go(before: str | None, after: str | None) -> None:
    old, store = (RollingStore(RollingSpec.of(rolling("10us", ttl=ttl), ASKED), 9) for ttl in (before, after))
    assert old.spec.fingerprint == store.spec.fingerprint
    feed(old, [(1, 100), (2, 105)], 0)
    store.load(old.dump())
    _, results = feed(store, [(2, 110), (1, 125), (2, 150)], 2)
    # A key without a note of its age is as old as the watermark was: 105; then it ages as all do.
    assert results.count[0].tolist() == [2, 1, 1]
    assert len(store.dump().arrays["newest"]) == (2 if after else 0)


def test_many_keys_come_and_go() -> None:
    """More keys than slots, in the manner of a service: the window of a key that was forgotten starts anew."""
    dice = np.random.default_rng(2)
    drawn = dice.integers(0, 3_000, 30_000)
    rows = [(int(key), n) for n, key in enumerate(drawn)]
    store, oracle = RollingStore(RollingSpec.of(rolling(count=4), ASKED), 1_000), Expected(1_000, 0, 4)
    for start in range(0, len(rows), 2_048):
        part = rows[start : start + 2_048]
        _, results = feed(store, part, start)
        assert results.count[0].tolist() == [len(oracle.row(key, time, 0.0)) for key, time in part]
    assert store.keys.evicted == oracle.evicted > 10_000
