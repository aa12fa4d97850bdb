"""What the flow of missing values should have said: a reading without one takes its place, and the rest is told of the others."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.names import NO_VALUE
from tests.faults.oracle import Bad, Reading, Scorer, Truth, expect, judge, seen_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.faults.log import Record


def expect_missing(inputs: Iterable[Record], scorer: Scorer) -> Truth:
    """Recompute the run from its input, given in log order per partition."""
    return expect(inputs, scorer, judge_missing, _seen)


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


def _seen(window: Sequence[Reading]) -> tuple[tuple[float, ...], float]:
    present = [reading for reading in window if not math.isnan(reading.value)]
    if not present:
        return (float(len(window)), *[NO_VALUE] * 5, 0.0, NO_VALUE), 1.0
    (_, *others, _, rate), magnitude = seen_of(present)
    return (float(len(window)), *others, float(len(present)), rate), magnitude
