"""Seeded bugs of flows with several inputs; see `mutants.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.changelog import blocks as changelog
from streamer.changelog.restore import Restore, Restored
from streamer.operators.join.store import JoinStore
from streamer.stages.commit.commit import Commit
from streamer.state.delta import TICK, Delta

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from confluent_kafka import TopicPartition

    from streamer.stages.commit.transaction import Advance


def tick_not_logged() -> None:
    """The watermark's steps stay out of the changelog, so that a restore does not know which rows have left."""
    encode = changelog.encode

    def without_ticks(
        delta: Delta, fingerprint: str, seq: int, covered: Sequence[tuple[int, int]], *args: Any, **more: Any
    ) -> Iterator[bytes]:
        kept = np.flatnonzero(delta.slots != TICK)
        values = np.ascontiguousarray(delta.values[:, kept])
        thinned = Delta(delta.new_keys, delta.slots[kept], delta.times[kept], values)
        return encode(thinned, fingerprint, seq, covered, *args, **more)

    changelog.encode = without_ticks


def follower_offsets_not_committed() -> None:
    """Only the offsets of the source are committed, not those of the topics read beside it."""
    numbered = Commit._numbered

    def lead_only(self: Commit, steps: Mapping[int, Advance]) -> list[TopicPartition]:
        leads = {next(iter(after.next_offsets)) for _, after in steps.values()}
        return [place for place in numbered(self, steps) if place.topic in leads]

    Commit._numbered = lead_only  # type: ignore[method-assign]


def waiting_rows_lost() -> None:
    """A restore brings the samples back and forgets the rows that wait for other inputs."""
    finish = Restore._finish

    def forgetful(self: Restore, partition: int, progress: Any) -> Restored:
        if isinstance(progress.store, JoinStore):
            progress.store.ends[:, 0] = progress.store.ends[:, 1]
        return finish(self, partition, progress)

    Restore._finish = forgetful  # type: ignore[method-assign]
