"""What the flow without windows should have said: of each good record alone, whatever its key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.oracle import Bad, Expected, Origin, Scorer, Truth, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.log import Record


def expect_stateless(inputs: Iterable[Record], scorer: Scorer) -> Truth:
    """Recompute the run from its input. Outputs bear the key of their record, also where that is no sensor's or missing."""
    good: dict[Origin, Expected] = {}
    bad: dict[Origin, tuple[Record, Bad]] = {}
    for record in inputs:
        origin, verdict = (record.partition, record.offset), judge(record, keyed=False)
        if isinstance(verdict, Bad):
            bad[origin] = (record, verdict)
            continue
        value = verdict.value
        features = (0.0, value, 0.0, value, value, value, 0.0, 0.0)
        good[origin] = Expected(verdict, features, abs(value), record=record)
    scores = scorer.score([expected.features for expected in good.values()])
    scored = {o: replace(e, score=score) for (o, e), score in zip(good.items(), scores, strict=True)}
    return Truth(scored, bad, {}, scorer.threshold)
