"""Partitions of a worker: what happens between "it is ours" and its first row, and again after every rollback.

Both are one path: read the committed offset, rebuild the windows from the changelog, check that the two agree, go on from
there. A partition is read only when that is done; others go on meanwhile.
"""

from dataclasses import dataclass, field

from confluent_kafka import KafkaException

from streamer import limits
from streamer.bases import Bases
from streamer.clock import Clock
from streamer.errors import LostOffsetsError, TopicError
from streamer.flow import Keyed
from streamer.kafka import Watermarks, apart
from streamer.stages.commit import Commit
from streamer.stages.consume import Consume
from streamer.stages.transaction import Place
from streamer.state.changelog import mark
from streamer.state.restore import Restore, Restored
from streamer.telemetry.logs import get_logger
from streamer.telemetry.metrics import Metrics

_log = get_logger(__name__)

_PROGRESS_EVERY_S = 5.0
# After that long a group has dealt its partitions.
_AWAITED_S = 10.0


@dataclass(slots=True)
class Assignment:
    """Prepares partitions and keeps their places.

    Attributes:
        consume, window, commit: stages that hold something per partition.
        restore: rebuilds windows; None for a flow without state.
        watermarks: ends of input and changelog, asked on a connection of their own: on the consumer's they would wait
            behind its long polls.
        bases: is told where a partition stands; None for a flow without state.
        changelog: its topic.
        start: "earliest" or "latest", for partitions without a committed offset.
        on_lost: policy for committed offsets that retention removed.
        metrics: restored rows and gauges.
        clock: for progress.
    """

    consume: Consume
    window: Keyed
    commit: Commit
    restore: Restore | None
    watermarks: Watermarks
    bases: Bases | None
    changelog: str | None
    start: str
    on_lost: str
    metrics: Metrics
    clock: Clock
    partitions: set[int] = field(default_factory=set)
    _ready: dict[int, Restored] = field(default_factory=dict)
    _progress_at: float = 0.0
    _awaited_until: float = field(init=False)

    def __post_init__(self) -> None:
        self._awaited_until = self.clock.monotonic() + _AWAITED_S

    def begin(self, partitions: list[int]) -> None:
        """Take partitions over, or take them back after a rollback.

        Raises:
            KafkaException: committed offsets cannot be read now; call again.
            LostOffsetsError: they are gone from the log and the policy is to stop.
            TopicError: another input does not have these partitions.
        """
        self.partitions |= set(partitions)
        if not partitions:
            return
        self._check_others()
        if self.bases is not None:
            self.bases.forget(partitions)
        committed = self.consume.committed(partitions)
        for partition in partitions:
            self._ready.pop(partition, None)  # restored before, not started yet: that store is given up now
            offsets = [committed[topic, partition][0] for topic in self.consume.topics]
            named = mark(committed[self.consume.lead, partition][1])
            store = self.window.open(partition)
            if self.restore is None or self.changelog is None:
                self._ready[partition] = Restored(partition, offsets, named.seq or 0)
                continue
            assert store is not None, "a flow with a changelog has stores"
            self.restore.begin(partition, store, offsets, named, self.watermarks.range(self.changelog, partition))
        self._progress_at = self.clock.monotonic() + _PROGRESS_EVERY_S
        self._gauges()

    def _check_others(self) -> None:
        lead, *others = self.consume.topics
        count = self.watermarks.partitions(lead) if others else 0
        for topic in others:
            if (found := self.watermarks.partitions(topic)) != count:
                raise TopicError(apart(lead, count, topic, found))

    def end(self, partitions: list[int]) -> None:
        """Forget partitions."""
        self.partitions -= set(partitions)
        if self.restore is not None:
            self.restore.cancel(partitions)
        if self.bases is not None:
            self.bases.forget(partitions)
        for partition in partitions:
            self._ready.pop(partition, None)
            self.window.close(partition)
            self.commit.places.pop(partition, None)
        self._gauges()

    @property
    def awaited(self) -> bool:
        """Whether the first partitions are about to come; a worker to spare stops counting on that."""
        return not self.partitions and self.clock.monotonic() < self._awaited_until

    @property
    def restoring(self) -> bool:
        """Whether some partition is not being read yet."""
        return bool(self._ready) or (self.restore is not None and len(self.restore) > 0)

    def describe(self) -> str | None:
        """What is being restored and how far that is; None when nothing is."""
        if not self.restoring:
            return None
        share, left = self.restore.progress() if self.restore is not None else (1.0, 0.0)
        waiting = len(self._ready) + (len(self.restore) if self.restore is not None else 0)
        return (
            f"windows are being restored: {waiting} of {len(self.partitions)} partitions wait, {share:.0%} is read, "
            f"{f'about {left:.0f} s are left' if left < float('inf') else 'nothing has come yet'}"
        )

    def step(self, timeout_s: float) -> None:
        """Go on with restores and start what is ready."""
        if self.restore and len(self.restore):
            alone = len(self.restore) + len(self._ready) >= len(self.partitions)
            for restored in self.restore.step(timeout_s, limits.RESTORE_ALONE_S if alone else limits.RESTORE_SHARE_S):
                self._ready[restored.partition] = restored
                self.metrics.add("streamer_restored_rows_total", restored.rows)
            self._tell(self.restore)
        placed = {partition: offsets for partition in self._ready if (offsets := self._placed(partition)) is not None}
        try:
            self.consume.start(list(placed))
        except KafkaException:
            return  # they stay ready; the next turn tries again
        for partition, offsets in placed.items():
            self._started(partition, offsets)
        self._gauges()

    def _placed(self, partition: int) -> dict[str, int] | None:
        """Where a partition that is ready goes on in each topic, once the consumer knows; None if that must be tried again."""
        try:
            offsets = {
                topic: self._offset(topic, partition, next_)
                for topic, next_ in zip(self.consume.topics, self._ready[partition].next, strict=True)
            }
            self.consume.seek(partition, offsets)
        except KafkaException:
            return None  # no answer, or the assignment is not taken in yet
        return offsets

    def _started(self, partition: int, offsets: dict[str, int]) -> None:
        restored = self._ready.pop(partition)
        # Where lost records were jumped over, the next block covers the gap: the chain of blocks stays whole.
        reached = zip(offsets.items(), restored.next, strict=True)
        next_ = {topic: offset if known is None else known for (topic, offset), known in reached}
        self.commit.places[partition] = Place(restored.seq, next_)
        if self.bases is not None:
            self.bases.start(restored)
        _log.info(
            "partition_started", topic=self.consume.lead, partition=partition, offsets=offsets, commit=restored.seq,
            restored_rows=restored.rows,
        )  # fmt: skip

    def _tell(self, restore: Restore) -> None:
        """Progress, in the log every few seconds and in the metrics always."""
        share, left = restore.progress()
        self.metrics.set("streamer_restored_bytes_total", restore.bytes)
        self.metrics.set("streamer_restore_seconds_left", left if left < float("inf") else 0.0)
        if len(restore) and self.clock.monotonic() >= self._progress_at:
            self._progress_at = self.clock.monotonic() + _PROGRESS_EVERY_S
            _log.info("restoring", partitions=len(restore), read=f"{share:.0%}", bytes=restore.bytes, seconds_left=round(left, 1))

    def _offset(self, topic: str, partition: int, reached: int | None) -> int:
        """Where an input goes on, the policy for lost offsets applied."""
        low, high = self.watermarks.range(topic, partition)
        if reached is None:
            return low if self.start == "earliest" else high
        if low <= reached:
            return reached
        if self.on_lost == "stop":
            raise LostOffsetsError(
                f"{topic}/{partition}: committed offset {reached} was removed by retention, the log now starts at {low} "
                f"({low - reached:,} records are lost). Set on_lost_offsets = earliest to go on from there, or latest"
            )
        _log.error("offsets_lost", topic=topic, partition=partition, lost=low - reached)
        return low if self.on_lost == "earliest" else high

    def close(self) -> None:
        """Let the readers go."""
        if self.restore is not None:
            self.restore.close()
        self.watermarks.close()

    def _gauges(self) -> None:
        self.metrics.set("streamer_partitions_assigned", len(self.partitions))
        self.metrics.set("streamer_partitions_restoring", (len(self.restore) if self.restore else 0) + len(self._ready))
