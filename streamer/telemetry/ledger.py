"""The latency ledger: how long rows spent where. The parts of a row sum to its end-to-end time by construction."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.rows.batch import Batch
from streamer.rows.records import believed
from streamer.telemetry.steps import Steps

# What passes before a row is polled.
BEFORE = ("source", "hold", "rekey", "broker")
# Eight bounds a decade from 10 us to 10,000 s: a quantile, told as the middle of its bucket, is off by at most 16 %.
BOUNDS_S = 10.0 ** (np.arange(-40, 33) / 8)
# Clocks of different machines differ by less: a timestamp so little ahead of its poll is not worth a word.
_SKEW_US = 1_000_000
_MIDDLE = 10.0 ** (-1 / 16)


@dataclass(slots=True)
class Histogram:
    """Counts of durations, in seconds, in fixed exponential buckets. Safe to read from another thread."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BOUNDS_S) + 1, np.int64))
    total_s: float = 0.0

    def add(self, seconds: float, rows: int) -> None:
        """Add the same duration for many rows."""
        self.counts[int(np.searchsorted(BOUNDS_S, seconds))] += rows
        self.total_s += seconds * rows

    def add_each(self, seconds: NDArray[np.float64]) -> None:
        """Add one duration per row."""
        self.counts += np.bincount(np.searchsorted(BOUNDS_S, seconds), minlength=len(self.counts))
        self.total_s += float(seconds.sum())

    def quantile(self, q: float) -> float:
        """Geometric middle of the bucket that holds the quantile, in seconds; 0 when empty."""
        counts = self.counts.copy()
        total = int(counts.sum())
        if total == 0:
            return 0.0
        place = int(np.searchsorted(np.cumsum(counts), q * total))
        return float(BOUNDS_S[min(place, len(BOUNDS_S) - 1)] * _MIDDLE)

    @property
    def rows(self) -> int:
        """How many durations were added."""
        return int(self.counts.sum())


def parts_of(steps: Steps) -> tuple[str, ...]:
    """From event time to commit, in the order in which a row passes them; `queue` is the way to the model."""
    scored = ("queue", steps.infer) if steps.scores else ()
    return (*BEFORE, "decode", *steps.stateless, steps.window, *scored, "encode", "produce", "commit")


class Ledger:
    """Histograms per part and end to end, from event time and from record time.

    Args:
        steps: of the flow whose rows are entered.

    Attributes:
        parts, end_to_end: the histograms; see `parts_of`.
        deadline_missed: rows later than they should have been.
        unbelieved: rows whose record timestamp cannot be true, so that they count from the poll.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.parts = {part: Histogram() for part in parts_of(steps)}
        self.end_to_end = {"event": Histogram(), "record": Histogram()}
        self.deadline_missed = self.unbelieved = 0
        self.lock = threading.Lock()

    def record(self, batches: Iterable[Batch], committed: float, deadline_s: float | None) -> None:
        """Enter committed batches.

        Args:
            batches: of one commit.
            committed: monotonic seconds of its end.
            deadline_s: latency from record time that should not be exceeded.
        """
        batches = [batch for batch in batches if len(batch)]
        if not batches:
            return
        with self.lock:
            for batch in batches:
                self._enter(batch, committed)
            rows = [len(batch) for batch in batches]
            arrived = records = np.concatenate([batch.logged_us for batch in batches])
            events = believed(np.concatenate([batch.times_us for batch in batches]), records)
            if any(batch.received for batch in batches):
                arrived = np.concatenate([batch.arrived_us for batch in batches])
                self.parts["rekey"].add_each((arrived - records) / 1e6)
            else:
                self.parts["rekey"].add(0.0, len(records))
            polled = np.repeat([batch.polled_us for batch in batches], rows)
            stamped = np.concatenate([batch.origin.timestamps_ms for batch in batches]) * 1000
            self.unbelieved += int((np.abs(stamped - records) > _SKEW_US).sum())
            since_event, waited = (records - events) / 1e6, _closed(batches)
            self.parts["source"].add_each(np.where(waited, 0.0, since_event))
            self.parts["hold"].add_each(np.where(waited, since_event, 0.0))
            self.parts["broker"].add_each((polled - arrived) / 1e6)
            # Wall time of the commit is the poll's plus what passed since, so that a clock step cannot break the sum.
            since_poll = np.repeat([committed - batch.stamps.polled for batch in batches], rows)
            self.end_to_end["event"].add_each((polled - events) / 1e6 + since_poll)
            latency = (polled - records) / 1e6 + since_poll
            self.end_to_end["record"].add_each(latency)
            if deadline_s is not None:
                self.deadline_missed += int((latency > deadline_s).sum())

    def _enter(self, batch: Batch, committed: float) -> None:
        stamps, rows = batch.stamps, len(batch)
        scored = (stamps.run_started, stamps.run_ended) if self._steps.scores else ()
        between = stamps.stateless or (stamps.decoded,) * len(self._steps.stateless)
        began, ended = (stamps.polled, stamps.decoded, *between, stamps.windowed), (stamps.encoded, stamps.produced, committed)
        passed = (*began, *scored, *ended)
        for part, start, end in zip(list(self.parts)[len(BEFORE) :], passed, passed[1:], strict=False):
            self.parts[part].add(end - start, rows)


def _closed(batches: list[Batch]) -> NDArray[np.bool_]:
    """Which rows are closed windows: the time from their end to the record that closed them was meant to pass."""
    finals = [batch.payload.spans.final for batch in batches]
    if not any(map(len, finals)):
        return np.zeros(1, np.bool_)
    return np.concatenate([f if len(f) else np.zeros(len(batch), np.bool_) for f, batch in zip(finals, batches, strict=True)])
