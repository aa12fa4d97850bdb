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
from streamer.state.delta import Delta, merge
from streamer.topology.rolling import Rolling, rolling
from streamer.topology.view import Requested

ASKED = Requested({("a", "sum")})
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


@settings(max_examples=150)
@given(rows=rows_, cuts=cuts_, keys_max=st.integers(1, 7), ttl=st.sampled_from([0, 0, 1, 5, 20]), size=st.integers(1, 4))
def evictions_and_expiry_equal_the_oracle(
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
    assert {int(key): list(live.samples(key)[1][0]) for key in live.keys.index.names()} == oracle.samples  # type: ignore[index]  # a live key has some
    assert (live.watermark, live.keys.evicted) == (oracle.watermark, oracle.evicted)
    joined.apply(merge(deltas, 1))
    assert joined.dump() == live.dump()
