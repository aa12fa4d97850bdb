"""`python -m load.stateless run ...`: the service without changelog and snapshots, to measure what they cost.

This is not a mode of the service: windows live in memory only, and a restart or a rollback would lose them. The
worker's committer is told that there is no state to write; everything else is the service as it is.
"""

from typing import Any

from streamer.changelog.snapshots import SnapshotScheduler
from streamer.cli import app
from streamer.stages.commit.commit import Commit
from streamer.worker import parts


class Stateless(Commit):
    """Commits outputs and offsets, and no state."""

    def __init__(self, *, bases: SnapshotScheduler | None, **named: Any) -> None:
        assert bases is not None, "there is nothing to leave out"
        super().__init__(bases=None, **named)


if __name__ == "__main__":
    setattr(parts, "Commit", Stateless)  # noqa: B010  a type checker rightly minds when it is assigned
    app()
