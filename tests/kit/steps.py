"""What a run is made of, step by step: rows, turns, crashes, calls that fail; and what must hold when it has ended."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from streamer.operators.rolling.store import RollingStore
from tests.kit import flows
from tests.kit.faulty import FaultTest

BAD = (b"", b"{", b'{"sensor":"a"}', b"\xff", None, b'{"sensor":"b","ts":1,"value":2,"load":3}')
CALLS = ("begin", "produce", "produce_changelog", "produce_batch", "offsets", "commit", "abort", "init", "flush")
FAULTS = ("abortable", "retriable", "lost_answer", "fatal", "full")
REQUESTS = ("committed", "list_offsets", "seek")

good = st.tuples(st.just("good"), st.sampled_from("abde"), st.integers(-1000, 1000))
bad = st.tuples(st.just("bad"), st.sampled_from("ad"), st.sampled_from(BAD))
turn = st.tuples(st.just("turn"), st.integers(1, 6), st.none())
restart = st.tuples(st.just("restart"), st.none(), st.none())
fault = st.tuples(st.just("fault"), st.sampled_from(CALLS), st.sampled_from(FAULTS))
request = st.tuples(st.just("fault"), st.sampled_from(REQUESTS), st.just("plain"))
fence = st.tuples(st.just("fault"), st.sampled_from(("offsets", "commit", "produce_changelog")), st.just("fenced"))
Step = tuple[str, Any, Any]


def play(test: FaultTest, steps: Sequence[Step]) -> None:
    """Carry out the steps one by one."""
    for kind, first, second in steps:
        if kind == "good":
            test.send_bytes(flows.SOURCE, first.encode(), flows.value_of(first, test.now, second / 8, second / 4))
        elif kind == "bad":
            test.send_bytes(flows.SOURCE, first.encode(), second)
        elif kind == "turn":
            test.turns(first)
        elif kind == "restart":
            test.crash()
        elif second != "fenced" or "fenced" not in [hit[2] for hit in test.script.hits]:
            test.script.fail_next(first, second)


def windows_are_right(test: FaultTest, count: int = flows.COUNT) -> bool:
    """Whether each live window equals the recomputation from the source topic."""
    last = {(key_of(o), id_.split("/")[1]): o.window for id_, o in flows.expected(test.log, count).items() if o.good}
    stores = test.worker.pipeline.window.stores
    assert sum(map(len, stores.values())) == len(last)
    for (key, partition), window in last.items():
        store = stores[int(partition)]
        assert isinstance(store, RollingStore)
        found = store.samples(key)
        assert found is not None
        # fields are kept by name: load, value
        assert np.array_equal(found[1], np.array([[load for _, load in window], [value for value, _ in window]]))
    return True


def repeats_are_equal(test: FaultTest) -> bool:
    """Whether repetitions of a prediction differ in nothing but their latency."""
    seen: dict[str, Any] = {}
    for record in test.log.committed_records(flows.PREDICTIONS):
        row = json.loads(record.value or b"")
        row.pop("latency_ms")
        assert seen.setdefault(row["id"], row) == row
    return True


def key_of(outcome: flows.Outcome) -> bytes:
    assert outcome.key is not None
    return outcome.key
