"""Partitions of the source beside each other: who runs ahead waits, and who has fallen silent says so."""

from collections.abc import Callable, Iterator

import numpy as np

from streamer.clock import Clock
from streamer.limits import ALIGN_WAIT_S
from streamer.operators.operator import Inputs
from streamer.operators.rekey.send import PartitionTimes, Told
from streamer.rows.batch import Batch
from streamer.telemetry.metrics import Metrics


class WatermarkAlignment:
    """Looks at the partitions of one worker once a turn.

    Args:
        inputs: knows who has unread records.
        progress: knows how far each has come.
        clock: our time, for silence.
        metrics: who waits.
    """

    def __init__(self, inputs: Inputs, progress: PartitionTimes, clock: Clock, metrics: Metrics) -> None:
        self._inputs, self._progress, self._clock, self._metrics = inputs, progress, clock, metrics
        self._waiting: set[int] = set()
        self._heard: dict[int, tuple[int, float]] = {}
        progress.fallen_silent = self._fallen_silent

    @property
    def due(self) -> bool:
        """No row is held back here."""
        return False

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Let partitions wait or go on; then word of those that have fallen silent, while there is room for it."""
        self._align([partition for partition in self._inputs.reading() if self._inputs.silence_s(partition)[0] is None])
        quiet = self._fallen_silent()
        if quiet and room() > 0:
            yield self._word(quiet)

    def _fallen_silent(self) -> list[int]:
        """Partitions that have been silent for long enough, and of which nobody has been told."""
        idle_timeout_s, known = self._progress.idle_timeout_s, self._progress.silent
        if not idle_timeout_s:
            return []
        silence = {p: self._inputs.silence_s(p)[0] for p in self._inputs.reading() if p not in known}
        return [p for p, s in silence.items() if s is not None and idle_timeout_s <= s]

    def _align(self, unread: list[int]) -> None:
        """Of the partitions with unread records, those far ahead of the slowest wait until they are only half as far ahead."""
        reached, max_drift_us = self._progress.reached, self._progress.max_drift_us
        slowest = min((reached[p] for p in unread if self._moves(p)), default=None)
        waiting = set()
        if slowest is not None:
            waiting = {p for p in unread if reached[p] - slowest > (max_drift_us // 2 if p in self._waiting else max_drift_us)}
        for partition in waiting ^ self._waiting:
            self._inputs.wait_for_others(partition, self._inputs.topics if partition in waiting else ())
        self._waiting = waiting
        self._metrics.set("streamer_rekey_partitions_waiting", len(waiting), self._metrics.steps.window)

    def _moves(self, partition: int) -> bool:
        """Whether a partition is worth waiting for: it waits itself, or gave something not long ago."""
        now, rows = self._clock.monotonic(), self._progress.rows[partition]
        before, since = self._heard.get(partition, (-1, now))
        if before != rows or partition in self._waiting:
            self._heard[partition] = rows, now
            return True
        return now - since < ALIGN_WAIT_S

    def _word(self, quiet: list[int]) -> Batch:
        batch = Batch.unpolled(self._inputs.lead, self._clock.wall_us())
        batch.payload = Told(watermarks=np.empty(0, np.int64), quiet=self._progress.hush(quiet))
        batch.stamps.begin_windowed(self._clock.monotonic())
        return batch
