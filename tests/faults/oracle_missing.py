"""What the flow of missing values should have said: a reading without one takes its place, and the rest is told of the others."""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.names import NO_VALUE, WINDOW_COUNT
from tests.faults.oracle import Bad, Expected, Origin, Reading, Scorer, Truth, judge, window_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.log import Record


def expect_missing(inputs: Iterable[Record], scorer: Scorer) -> Truth:
    """Recompute the run from its input, given in log order per partition."""
    windows: dict[tuple[int, str], deque[Reading]] = defaultdict(lambda: deque(maxlen=WINDOW_COUNT))
    good: dict[Origin, Expected] = {}
    bad: dict[Origin, tuple[Record, Bad]] = {}
    for record in inputs:
        verdict = judge_missing(record)
        if isinstance(verdict, Bad):
            bad[record.partition, record.offset] = (record, verdict)
            continue
        window = windows[record.partition, verdict.sensor]
        window.append(verdict)
        present = [reading for reading in window if not math.isnan(reading.value)]
        magnitude = max((abs(reading.value) for reading in present), default=1.0)
        good[record.partition, record.offset] = Expected(verdict, _features(len(window), present), magnitude)
    scores = scorer.score([expected.features for expected in good.values()])
    scored = {o: replace(e, score=score) for (o, e), score in zip(good.items(), scores, strict=True)}
    return Truth(scored, bad, {where: list(window) for where, window in windows.items()}, scorer.threshold)


def judge_missing(record: Record) -> Reading | Bad:
    """As other records are judged, but for a null value: that is one without, and all else of it must be right."""
    try:
        document = json.loads((record.value or b"").decode())
    except (ValueError, RecursionError):  # a wrong encoding is a ValueError too
        return judge(record)
    if not isinstance(document, dict) or document.get("value", 0) is not None:
        return judge(record)
    verdict = judge(replace(record, value=json.dumps(document | {"value": 0.0}).encode()))
    return verdict if isinstance(verdict, Bad) else replace(verdict, value=math.nan)


def _features(samples: int, present: Sequence[Reading]) -> tuple[float, ...]:
    if not present:
        return (float(samples), *[NO_VALUE] * 5, 0.0, NO_VALUE)
    _, *others, _, rate = window_features(present)
    return (float(samples), *others, float(len(present)), rate)
