"""How much a worker may take in, and how long it may wait: what its stages leave room for, and what is due next."""

from dataclasses import dataclass

from streamer import limits
from streamer.changelog.snapshots import SnapshotScheduler
from streamer.pipeline.pipeline import Pipeline
from streamer.stages.commit.commit import Commit
from streamer.stages.produce.produce import Produce

# Idle: long enough to sleep, short enough to notice a stop.
_IDLE_S = 0.1
# While rows wait for a silence to be long enough, or the worker for its partitions: they are seen to at most this much late.
_WAITED_FOR_S = 0.01
# While a commit runs: it is noticed this much late, and the thread that runs it gets the processor meanwhile.
_COMMITTING_S = 0.001
# After a first record, what else arrives within this joins its batch: fewer, larger batches at a moderate rate. With
# transactions a record waits for its commit anyway, so a share of that wait is spent gathering.
_GATHER_S = 0.001
_GATHER_SHARE = 0.2
# Keeping up, a batch is scored at once rather than a turn later; a slow model is not waited for.
_SCORING_S = 0.001


@dataclass(slots=True)
class Room:
    """Looks at the stages behind the poll.

    Attributes:
        pipeline, produce, commit: what holds rows.
        bases: may hold rows back for a snapshot; None for a flow without windows.
    """

    pipeline: Pipeline
    produce: Produce
    commit: Commit
    bases: SnapshotScheduler | None

    @property
    def scored(self) -> bool:
        """Whether the model has nothing to do."""
        return len(self.pipeline) == 0

    @property
    def produced(self) -> bool:
        """Whether all rows that were polled are with the producer."""
        return self.scored and not len(self.produce)

    def rows(self) -> int:
        """How many more may be polled."""
        uncommitted = self.pipeline.rows + self.produce.rows + self.commit.rows
        if self.bases is not None and self.bases.holding:
            return 0
        return min(
            limits.ROWS_PER_BATCH_MAX,
            limits.ROWS_UNSCORED_MAX - self.pipeline.rows,
            limits.ROWS_WAITING_MAX - self.produce.rows,
            limits.BYTES_UNSCORED_MAX - self.pipeline.value_bytes,
            limits.ROWS_UNCOMMITTED_MAX - uncommitted,
        )

    @property
    def unscored_full(self) -> bool:
        """Whether it is the model that is waited for."""
        return self.pipeline.rows >= limits.ROWS_UNSCORED_MAX or self.pipeline.value_bytes >= limits.BYTES_UNSCORED_MAX

    @property
    def half_free(self) -> bool:
        """Whether what was paused may go on."""
        return self.pipeline.rows + self.produce.rows <= limits.ROWS_UNSCORED_MAX // 2

    def idle_for(self, *, behind: bool, awaited: bool) -> float:
        """Seconds that a poll may wait for a record: until something else needs the worker."""
        if not self.scored:
            return 0.0
        if self.commit.busy or len(self.produce):
            return _COMMITTING_S
        due = self.commit.due_in(behind=behind)
        rest = _WAITED_FOR_S if awaited else _IDLE_S
        return rest if due is None else min(rest, due)

    def gather_s(self, *, behind: bool) -> float:
        """Seconds in which more records may join a first one."""
        most = max(_GATHER_S, _GATHER_SHARE * self.commit.unseen_s)
        due = self.commit.due_in(behind=behind)
        return most if due is None else min(due, most)

    def patience(self, *, behind: bool) -> float:
        """Seconds to wait for the pool: none at all while input is behind (the next batch is decoded meanwhile)."""
        if behind or self.scored:
            return 0.0
        due = self.commit.due_in(behind=behind)
        return _SCORING_S if due is None else min(_SCORING_S, due)
