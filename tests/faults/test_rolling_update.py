"""What counts as a partition that went from one version to the other."""

from __future__ import annotations

import pytest

from tests.faults.evidence import Start, Story
from tests.faults.rolling_update import Handovers


def lives(*starts: tuple[int, str, int, int]) -> list[tuple[str, Story]]:
    """Starts of partitions, one second apart, each in a life of its own: partition, version, commit, samples."""
    return [
        (version, Story(starts=[Start(f"2026-11-29T20:15:{second:02}Z", partition, commit, rows)]))
        for second, (partition, version, commit, rows) in enumerate(starts)
    ]


@pytest.mark.parametrize(
    ("told", "partitions", "rows"),
    [
        (lives((0, "old", 0, 0), (0, "new", 5, 40)), {"old -> new": 1}, {"old -> new": 40}),
        (lives((0, "old", 0, 0), (0, "new", 5, 40), (0, "old", 9, 70)), {"old -> new": 1, "new -> old": 1}, {"new -> old": 70}),
        # Nothing of the other one's is taken up: it wrote nothing, is of the same version, or had another partition.
        (lives((0, "old", 5, 40), (0, "new", 5, 40)), {}, {}),
        (lives((0, "old", 0, 0), (0, "old", 5, 40)), {}, {}),
        (lives((0, "old", 0, 0), (1, "new", 5, 40)), {}, {}),
    ],
)
def test_a_handover_is_a_start_behind_what_the_other_version_wrote(
    told: list[tuple[str, Story]], partitions: dict[str, int], rows: dict[str, int]
) -> None:
    found = Handovers.of(list(reversed(told)))
    assert dict(found.partitions) == partitions
    assert rows.items() <= found.rows.items()
    assert all(f"{count} {way}" in str(found) for way, count in partitions.items())
