"""What the re-keyed flow should have said: each good record forwarded once, and windows in the order of the internal topic.

The order in which partitions of the source meet is the service's to choose; that it is one order, holds every record once
and keeps the order of each partition is checked here, and everything behind it is recomputed.
"""

from __future__ import annotations

import struct
from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.names import WINDOW_COUNT
from tests.faults.oracle import Bad, Expected, Origin, Reading, Scorer, Truth, judge, window_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.log import Record

# Magic, version, partitions of the source, partition, length of the key (-1: none), offset (negative: no record), two times.
HEADER = struct.Struct("<HHiiiqqq")


def expect_rekeyed(inputs: Sequence[Record], forwarded: Sequence[Record], scorer: Scorer) -> Truth:
    """Recompute the run from its input and the internal topic, both in log order per partition."""
    verdicts = {(r.partition, r.offset): (r, judge(r, keyed=False)) for r in inputs}
    bad: dict[Origin, tuple[Record, Bad]] = {
        origin: (record, verdict) for origin, (record, verdict) in verdicts.items() if isinstance(verdict, Bad)
    }
    windows: dict[tuple[int, str], deque[Reading]] = defaultdict(lambda: deque(maxlen=WINDOW_COUNT))
    good: dict[Origin, Expected] = {}
    ranks: dict[Origin, int] = {}
    wrong: list[tuple[str, str]] = []
    last: dict[tuple[str, int], Origin] = {}
    for copy in forwarded:
        _, _, _, partition, length, offset, _, _ = HEADER.unpack_from(copy.value or b"")
        if offset < 0:
            continue
        origin = (partition, offset)
        source, verdict = verdicts.get(origin, (None, None))
        if source is None:
            wrong.append(("invented_forward", f"{copy.where} names {origin}"))
        if source is None or not isinstance(verdict, Reading):
            continue  # fields that the first flow does not need are judged by the second: a dead letter from there
        body = (copy.value or b"")[HEADER.size :]
        if origin in ranks:
            wrong.append(("duplicate_forward", f"{copy.where} names {origin} again"))
            continue
        length_expected = -1 if source.key is None else len(source.key)
        whole = (source.key or b"") + (source.value or b"")
        if (copy.key, length, body) != (verdict.sensor.encode(), length_expected, whole):
            wrong.append(("changed_forward", f"{copy.where}: key {copy.key!r}, {body[:200]!r}"))
        if last.get((verdict.sensor, partition), (partition, -1)) > origin:
            wrong.append(("reordered_forward", f"{copy.where}: {origin} after {last[verdict.sensor, partition]}"))
        last[verdict.sensor, partition] = origin
        ranks[origin] = copy.offset
        window = windows[copy.partition, verdict.sensor]
        window.append(verdict)
        good[origin] = Expected(verdict, window_features(window), max(abs(r.value) for r in window))
    lost = verdicts.keys() - bad.keys() - ranks.keys()
    wrong += [("lost_forward", f"input {origin} was not forwarded") for origin in sorted(lost)]
    scores = scorer.score([expected.features for expected in good.values()])
    scored = {o: replace(e, score=score) for (o, e), score in zip(good.items(), scores, strict=True)}
    final = {where: list(window) for where, window in windows.items()}
    return Truth(scored, bad, final, scorer.threshold, ranks=ranks, wrong=wrong)
