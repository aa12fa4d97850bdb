"""What windows that close should have come to: one record after the other, lists per window, a watermark per partition."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.names import CLOSE_LATE_S, CLOSE_SAMPLES, CLOSE_SIZE_S, closing_idle_s
from tests.faults.oracle import AmbiguousInputError, Bad, Expected, Origin, Reading, Scorer, Truth, judge, window_features

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.log import Record

SIZE_US, LATE_US = round(CLOSE_SIZE_S * 1e6), round(CLOSE_LATE_S * 1e6)
NO_TIME = -(1 << 62)
LATE = Bad(frozenset({"late"}))


def expect_closing(inputs: Iterable[Record], scorer: Scorer) -> Truth:
    """Recompute the run from its input, given in log order per partition. In the end every window has closed.

    Raises:
        AmbiguousInputError: a partition was silent for so long that its windows may have closed in between.
    """
    bad: dict[Origin, tuple[Record, Bad]] = {}
    late: dict[Origin, tuple[Record, Bad]] = {}
    missed: dict[Origin, int] = {}
    windows: dict[tuple[int, str, int], list[Reading]] = defaultdict(list)
    watermarks: dict[int, int] = defaultdict(lambda: NO_TIME)
    logged: dict[int, int] = {}
    silence_ms = (closing_idle_s() - 3) * 1000
    for record in inputs:
        origin, verdict = (record.partition, record.offset), judge(record)
        if record.timestamp_ms - logged.get(record.partition, record.timestamp_ms) > silence_ms:
            raise AmbiguousInputError(f"{record.where}: nothing came before it for {silence_ms:.0f} ms or more")
        logged[record.partition] = record.timestamp_ms
        if isinstance(verdict, Bad):
            bad[origin] = (record, verdict)
            continue
        watermark = watermarks[record.partition] = max(watermarks[record.partition], verdict.time_us)
        start = verdict.time_us // SIZE_US * SIZE_US
        if start + SIZE_US + LATE_US <= watermark:
            late[origin], missed[origin] = (record, LATE), watermark
            continue
        window = windows[record.partition, verdict.sensor, start]
        window.append(verdict)
        if len(window) > CLOSE_SAMPLES // 2:
            raise AmbiguousInputError(f"{record.where}: its key may have more samples than are kept")
    good: dict[Origin, Expected] = {}
    for (partition, sensor, start), samples in windows.items():
        samples.sort(key=lambda reading: reading.time_us)  # ties stay in log order
        closed = Reading(sensor, start + SIZE_US, samples[-1].value)
        magnitude = max(abs(reading.value) for reading in samples)
        good[partition, sensor, start] = Expected(closed, window_features(samples), magnitude)
    scores = scorer.score([expected.features for expected in good.values()])
    scored = {o: replace(e, score=score) for (o, e), score in zip(good.items(), scores, strict=True)}
    ranks = {origin: expected.reading.time_us for origin, expected in scored.items()}
    return Truth(scored, bad, {}, scorer.threshold, ranks=ranks, late=late, missed=missed)
