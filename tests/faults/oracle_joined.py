"""What the joined flow should have said: lists sorted by event time, and for every reading a look along the other list."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.names import JOIN_AFTER_S, JOIN_BEFORE_S, JOIN_LATE_S, JOIN_SAMPLES, WINDOW_COUNT
from tests.faults.oracle import AmbiguousInputError, Bad, Expected, Origin, Reading, Scorer, Truth, judge, window_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.log import Record

Good = dict[tuple[int, str], list[tuple[Reading, Origin]]]
SECOND_US = 1_000_000


def expect_joined(inputs: Iterable[Record], seconds: Iterable[Record], scorer: Scorer) -> Truth:
    """Recompute the run from both inputs, each in log order per partition.

    Raises:
        AmbiguousInputError: a record came so late in its log that the service may or may not have waited for it.
    """
    own, bad = _in_time(inputs)
    others, second_bad = _in_time(seconds)
    good: dict[Origin, Expected] = {}
    for where, rows in own.items():
        near = [reading for reading, _ in others.get(where, ())]
        times = [reading.time_us for reading in near]
        for place, (reading, origin) in enumerate(rows):
            window = [earlier for earlier, _ in rows[max(0, place + 1 - WINDOW_COUNT) : place + 1]]
            end = bisect_right(times, reading.time_us + round(JOIN_AFTER_S * SECOND_US))
            begin = bisect_left(times, reading.time_us - round(JOIN_BEFORE_S * SECOND_US))
            seen = near[max(begin, end - JOIN_SAMPLES) : end]
            magnitude = max(abs(r.value) for r in (*window, *seen))
            good[origin] = Expected(reading, _features(window, seen), magnitude)
    scores = scorer.score([expected.features for expected in good.values()])
    scored = {o: replace(e, score=score) for (o, e), score in zip(good.items(), scores, strict=True)}
    ranks = {origin: expected.reading.time_us for origin, expected in scored.items()}
    return Truth(scored, bad, {}, scorer.threshold, second_bad, ranks)


def _features(window: Sequence[Reading], seen: Sequence[Reading]) -> tuple[float, ...]:
    n, mean, std, *_ = window_features(window)
    values = [r.value for r in seen]
    if not values:
        return (n, mean, std, 0.0, 0.0, 0.0, 0.0, 0.0)
    return (n, mean, std, min(values), max(values), values[-1], float(len(values)), math.fsum(values))


def _in_time(records: Iterable[Record]) -> tuple[Good, dict[Origin, tuple[Record, Bad]]]:
    """Good readings by partition and sensor in the order of event time, ties in log order; and the bad ones."""
    good: Good = defaultdict(list)
    bad: dict[Origin, tuple[Record, Bad]] = {}
    newest: dict[int, int] = defaultdict(int)
    for record in records:
        verdict = judge(record)
        origin = (record.partition, record.offset)
        if isinstance(verdict, Bad):
            bad[origin] = (record, verdict)
            continue
        newest[record.partition] = max(newest[record.partition], verdict.time_us)
        if newest[record.partition] - verdict.time_us > JOIN_LATE_S * SECOND_US:
            raise AmbiguousInputError(f"{record.where} is more than {JOIN_LATE_S} s older than what stands before it")
        good[record.partition, verdict.sensor].append((verdict, origin))
    for rows in good.values():
        rows.sort(key=lambda row: (row[0].time_us, row[1]))
    return good, bad
