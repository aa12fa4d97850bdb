"""Base snapshots all the time, in small pieces."""

import pytest

from streamer import limits
from streamer.changelog import snapshot


def small_snapshots(patch: pytest.MonkeyPatch) -> None:
    """A base as soon as there is a block, in chunks of a few hundred bytes, one message a commit."""
    patch.setattr(snapshot, "CHANGELOG_BYTES_MAX", 500)
    patch.setattr(limits, "SNAPSHOT_BLOCKS_RATIO", 0)
    patch.setattr(limits, "SNAPSHOT_BLOCKS_MIN_BYTES", 1)
    patch.setattr(limits, "SNAPSHOT_MESSAGES_PER_COMMIT", 1)
