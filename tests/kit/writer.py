"""The live side of a changelog, and a restore of what it wrote."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from streamer.changelog.blocks import CommitMetadata, encode
from streamer.changelog.restore import Restore, Restored
from streamer.clock import ManualClock
from streamer.kafka.memory_clients import MemoryConsumer
from streamer.kafka.memory_log import MemoryLog
from streamer.operators.rolling.store import RollingSpec, RollingStore
from streamer.operators.samples import Results
from streamer.state.delta import Delta, merge
from streamer.topology.rolling import rolling
from streamer.topology.view import Requested

TOPIC = "g-t-window-changelog"
SPEC = RollingSpec.of(rolling("10s", max_samples=4), Requested({("a", "mean"), ("b", "rate")}))
Rows = list[tuple[Any, int, float]]


def advance(store: RollingStore, rows: Sequence[tuple[Any, int, float]]) -> Delta:
    """Enter these rows as the live path does; what entered."""
    values = np.array([[a for *_, a in rows], [-a for *_, a in rows]], np.float64).reshape(2, len(rows))
    times = np.array([time for _, time, *_ in rows], np.int64)
    keys = [str(key).encode() for key, *_ in rows]
    return store.advance(keys, times, values, np.arange(len(rows)), Results.empty(SPEC, len(rows)))[0]


def new_store() -> RollingStore:
    return RollingStore(SPEC, 100_000)


class Writer:
    """The live side: applies commits and appends their messages, as `stages.commit` does."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.store, self.log = new_store(), log or MemoryLog(1, ManualClock())
        self.seq = self.next = 0

    def commit(self, batches: Sequence[Rows], dead: int = 1) -> list[bytes]:
        deltas = [advance(self.store, rows) for rows in batches]
        end = self.next + sum(map(len, batches)) + dead
        messages = list(encode(merge(deltas, 2), SPEC.fingerprint, self.seq + 1, [(self.next, end)]))
        for message in messages:
            self.log.append(TOPIC, None, message, partition=0)
        self.seq, self.next = self.seq + 1, end
        return messages


def restore(
    log: MemoryLog, committed: int | None, seq: int | None, base: int | None = None, *, strict: bool = True
) -> tuple[RollingStore, Restored]:
    """Run a restore to its end."""
    consumer: Any = MemoryConsumer(log, {"group.id": "r", "enable.partition.eof": True})
    reader = Restore(consumer, TOPIC, ManualClock(), strict=strict)
    store = new_store()
    reader.begin(0, store, [committed], CommitMetadata(seq, base), (log.low(TOPIC, 0), log.end(TOPIC, 0)))
    for _ in range(1_000):
        if done := reader.step(0.0):
            assert len(reader) == 0
            return store, done[0]
    raise AssertionError("the restore does not end")


keys = st.integers(0, 6)
numbers = st.floats(width=64, allow_nan=False, allow_infinity=False)
rows_ = st.lists(st.tuples(keys, st.integers(0, 2**55), numbers), max_size=12)
commits_ = st.lists(st.lists(rows_, min_size=1, max_size=3), max_size=6)
