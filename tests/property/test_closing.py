"""Windows that close against the oracle: any cut into batches, any order of events, and again in a restore."""

import os
from pathlib import Path

import numpy as np
import pytest

from streamer.operators.closing import store as closing_store
from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.closing.store import ClosingStore
from streamer.topology.closing import Closing, session, tumbling
from tests.kit.closing_checks import (
    ASKED,
    SAMPLES,
    Live,
    a_key_keeps_no_more_samples_than_it_may,
    grace_gives_what_order_gives,
    many_keys_close_by_their_deadlines,
    only_ticks_move_a_watermark,
    prefixes_go_on_alike,
    spec_of,
    windows_equal_the_oracle,
)

STATM, PAGE_BYTES = Path("/proc/self/statm"), os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(params=[1, 64])
def _room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for a single row of results at first, so that the kernel is interrupted everywhere; and as in service."""
    monkeypatch.setattr(closing_store, "_ROWS_MIN", request.param)


@pytest.mark.usefixtures("_room")
def test_closing_windows_equal_the_oracle() -> None:
    windows_equal_the_oracle()


def test_from_any_prefix_a_dump_and_a_replay_go_on_alike() -> None:
    prefixes_go_on_alike()


def test_out_of_order_within_grace_gives_what_order_gives() -> None:
    grace_gives_what_order_gives()


def test_only_ticks_move_a_watermark_that_is_not_its_own() -> None:
    only_ticks_move_a_watermark()


def test_a_key_keeps_no_more_samples_than_it_may() -> None:
    a_key_keeps_no_more_samples_than_it_may()


def test_many_keys_close_by_their_deadlines() -> None:
    many_keys_close_by_their_deadlines()


def test_nothing_stays_of_a_key_whose_windows_have_closed() -> None:
    store = ClosingStore(spec_of(session(gap="5us", max_samples=SAMPLES)), 9)
    live = Live(store).play([("a", 1), ("a", 2), ("b", 3), ("", 99)], [])
    assert live.store.arrays["seen"][:2].tolist() == [0, 0]
    found = live.store.samples(b"a")
    assert found is not None
    assert found[0].tolist() == []


@pytest.mark.parametrize("window", [tumbling("10us", grace="5us", max_samples=4_096), session(gap="5us", max_samples=4_096)])
def test_a_busy_key_takes_no_more_of_its_ring_than_it_needs(window: Closing) -> None:
    """A ring is large, for the one key that may need it; samples that wander through it would cost all of it for each key."""
    times = np.array([time for begin in range(0, 20_000, 20) for time in range(begin, begin + 10)])
    store, values = ClosingStore(spec_of(window), 9), np.ones((1, len(times)))
    for start in range(0, len(times), 7):
        some = times[start : start + 7]
        store.pass_on([b"a"] * len(some), some, values[:, : len(some)], final=True, each=False)
    assert len(times) > 2 * window.samples
    assert np.flatnonzero(store.arrays["ring_t"][0]).max() < 50


def test_a_dump_has_what_is_held_and_nothing_that_was() -> None:
    live = Live(ClosingStore(spec_of(tumbling("10us", max_samples=SAMPLES)), 9)).play([("a", time) for time in range(1, 96)], [])
    dump = live.store.dump()
    (held,) = dump.arrays["seen"].tolist()
    assert dump.arrays["start"].tolist() == [0]
    assert dump.arrays["ring_t"][0].tolist() == [*range(96 - held, 96), *[0] * (SAMPLES - held)]
    assert not dump.arrays["ring"][0, :, held:].any()


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells what is resident")
def test_few_samples_of_a_key_take_little_of_its_room() -> None:
    """Rings of 128 KiB in huge pages took 2 MiB for 16 keys with a sample each, in every partition that comes and goes."""
    keys = [f"k{n}".encode() for n in range(256)]
    spec = ClosingSpec.of(tumbling("60s", max_samples=16_384), ASKED)
    times, values = np.arange(len(keys), dtype=np.int64), np.ones((len(spec.fields), len(keys)))
    before, stores = resident_mib(), [ClosingStore(spec, 1_000) for _ in range(4)]
    for store in stores:
        store.pass_on(keys, times, values, final=True, each=False)
        store.load(store.dump())
    room = sum(array.nbytes for store in stores for array in store.arrays.values()) / 2**20
    assert resident_mib() - before < room / 8


def resident_mib() -> float:
    return int(STATM.read_text().split()[1]) * PAGE_BYTES / 2**20
