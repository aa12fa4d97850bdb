"""Which key holds which slot, against a dict; and the hash, against the one of Python itself."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.state.bytes_column import NO_BYTES, BytesColumn
from streamer.state.index import Index
from streamer.state.siphash import siphash

names_ = st.one_of(st.sampled_from([b"", b"a", b"a\0", b"ab"]), st.binary(max_size=20))
pools = st.lists(names_, unique=True, min_size=1, max_size=40)


class Expected:
    """The same with a list."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.evicted = 0

    def assign(self, slot: int, name: bytes) -> None:
        if slot == len(self.names):
            self.names.append(name)
        else:
            self.evicted += self.names[slot] != name
            self.names[slot] = name

    def slot(self, name: bytes) -> int | None:
        return self.names.index(name) if name in self.names else None


@settings(max_examples=300)
@given(pool=pools, most=st.integers(1, 30), dice=st.randoms(use_true_random=False))
def test_slots_come_go_and_are_found_as_in_a_list(pool: list[bytes], most: int, dice: random.Random) -> None:
    """The table is as full as it may be, so that names meet; the text is so short that its gaps must be closed."""
    index, oracle = Index(np.zeros(2, np.int64), np.empty((1, 2), np.int64), np.empty(4, np.uint8)), Expected()
    for _ in range(8):
        names, slots = dice.sample(pool, dice.randint(0, min(len(pool), 10))), list[int]()
        for name in names:
            held, used = oracle.slot(name), len(oracle.names)
            slots.append(held if held is not None else used if used < most else dice.randrange(most))
            oracle.assign(slots[-1], name)
        oracle.evicted -= index.assign(np.array(slots, np.int32), BytesColumn.of(names))
        found, missing = index.find(BytesColumn.of(pool))
        expected = [oracle.slot(name) for name in pool]
        assert found.tolist() == [-1 if slot is None else slot for slot in expected]
        assert missing == expected.count(None)
        assert [index.slot(name) for name in pool] == expected
        assert list(index.names()) == oracle.names
        assert oracle.evicted == 0
        picked = np.array([dice.randrange(len(index)) for _ in range(5)] if len(index) else [], np.int32)
        assert list(index.names(picked)) == [oracle.names[slot] for slot in picked.tolist()]
        assert 2 * len(index.table) > 3 * len(index.spans), "a full table is searched for ever"


def test_a_text_whose_names_come_and_go_does_not_grow_for_ever() -> None:
    index = Index()
    for n in range(2_000):
        index.assign(np.array([n % 10 if n >= 10 else n], np.int32), BytesColumn.of([b"x" * (1 + n * 37 % 100)]))
    assert len(index.text) <= 4096


def test_a_slot_that_skips_others_is_refused() -> None:
    with pytest.raises(AssertionError, match="slot 5 is given before those in front of it"):
        Index().assign(np.array([0, 5], np.int32), BytesColumn.of([b"a", b"b"]))


@given(names=st.lists(st.binary(max_size=5)), cuts=st.lists(st.integers(0, 99), min_size=2, max_size=5))
def test_names_are_a_list_of_bytes(names: list[bytes], cuts: list[int]) -> None:
    whole, edges = BytesColumn.of(names), sorted(cut % (len(names) + 1) for cut in cuts)
    parts = [whole.part(start, end) for start, end in zip([0, *edges], [*edges, len(names)], strict=True)]
    assert (list(whole), len(whole)) == (names, len(names))
    assert [name for part in parts for name in part] == names
    joined = BytesColumn.joined(parts)
    assert joined == whole
    assert hash(joined) == hash(whole)
    assert BytesColumn.of([*names, b""]) != whole
    assert list(BytesColumn.joined([NO_BYTES])) == []


def test_the_hash_is_that_of_python() -> None:
    """Which has a key of zeros when told so; a hash of -1 means an error there and becomes -2, one of nothing is 0."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip(f"this Python hashes with {sys.hash_info.algorithm}")
    script = "import json, sys; json.dump([hash(bytes(range(n))) for n in range(1, 64)], sys.stdout)"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    answer = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True).stdout
    data, key = np.arange(64, dtype=np.uint8), np.zeros(2, np.uint64)
    assert [np.int64(np.uint64(siphash(data, 0, n, key))) for n in range(1, 64)] == json.loads(answer)
    assert siphash(data, 0, 8, key) != siphash(data, 0, 8, np.ones(2, np.uint64))
