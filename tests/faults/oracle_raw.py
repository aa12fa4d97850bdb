"""What the flow of records as they are should have said: of each record alone, and only one without a value is bad."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.oracle import Bad, Expected, Origin, Reading, Scorer, Truth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.log import Record


def expect_raw(inputs: Iterable[Record], scorer: Scorer) -> Truth:
    """Recompute the run from its input: of each record its value, headers by name, key and timestamp."""
    good: dict[Origin, Expected] = {}
    bad: dict[Origin, tuple[Record, Bad]] = {}
    for record in inputs:
        origin = (record.partition, record.offset)
        if record.value is None:
            bad[origin] = (record, Bad(frozenset({"null_value"})))
            continue
        features = _features(record, list(record.value))
        reading = Reading("", record.timestamp_ms * 1000, features[2])
        good[origin] = Expected(reading, features, max(map(abs, features)), record=record)
    scores = scorer.score([expected.features for expected in good.values()])
    scored = {o: replace(e, score=score) for (o, e), score in zip(good.items(), scores, strict=True)}
    return Truth(scored, bad, {}, scorer.threshold)


def _features(record: Record, value: list[int]) -> tuple[float, ...]:
    gain = 0.0
    for name, data in record.headers:
        if name == "gain":  # the last one of several counts
            gain = float(data or b"0")
    names = {name for name, _ in record.headers}
    key = -1 if record.key is None else len(record.key)
    lowest, highest, last = (min(value), max(value), value[-1]) if value else (0, 0, 0)
    return (0.0, float(len(names)), float(len(value)), float(lowest), float(highest), float(last), gain, float(key))
