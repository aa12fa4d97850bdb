"""Who is remembered: evictions and expiry against a plain-Python oracle, however the input is cut, and again in a restore."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.operators.rolling.store import RollingSpec, RollingStore
from streamer.state.bytes_column import BytesColumn
from streamer.state.delta import TICK, Delta
from streamer.topology.rolling import rolling
from tests.kit.remembered import ASKED, Expected, Row, cuts_, edges, evictions_and_expiry_equal_the_oracle, feed, rows_, window

SECOND = 1_000_000


@pytest.mark.parametrize("queue", [1, 1024])
def test_evictions_and_expiry_equal_the_oracle(queue: int) -> None:
    evictions_and_expiry_equal_the_oracle(queue)


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
    whole.apply(Delta(BytesColumn.of(keys), slots, times, values))
    for i in range(11):
        opened = int((slots[:i] < TICK).sum())
        new = keys[opened : opened + 1] if slots[i] < TICK else []
        single.apply(Delta(BytesColumn.of(new), slots[i : i + 1], times[i : i + 1], np.ascontiguousarray(values[:, i : i + 1])))
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
