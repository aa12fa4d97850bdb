"""Partitions of a worker: what happens between "it is ours" and its first row, and again after every rollback.

Both are one path: read the committed offset, rebuild the windows from the changelog, check that the two agree, go on from
there. A partition is read only when that is done; others go on meanwhile. In the callback of a rebalance nothing is asked: a
broker that is away would keep the whole group waiting.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streamer import limits
from streamer.changelog.blocks import CommitMetadata
from streamer.changelog.restore import Hidden, Restore, Restored
from streamer.changelog.snapshots import SnapshotScheduler
from streamer.clock import Clock
from streamer.errors import LostOffsetsError
from streamer.kafka.ends import Ends
from streamer.operators.operator import Keyed
from streamer.rows.records import TopicAndPartition
from streamer.stages.commit.commit import Commit
from streamer.stages.commit.transaction import ChainPosition
from streamer.stages.consume.consume import Consume
from streamer.state.keyed_store import StateStore
from streamer.telemetry.logs import get_logger
from streamer.telemetry.metrics import Metrics
from streamer.worker.heap import give_back
from streamer.worker.topic_watch import TopicWatch

_log = get_logger(__name__)

_PROGRESS_EVERY_S = 5.0
# After that long a group has dealt its partitions.
_AWAITED_S = 10.0
_LEADERS_CHANGED = (KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION)
_REFRESH_S = 1.0
_ASK_AGAIN_S = 0.2
_TELL_AGAIN_S = 10.0
_TIMED_OUT = KafkaError._TIMED_OUT  # noqa: SLF001 - the name the binding gives it
_SILENT = "no broker answers, or a transaction over the group's offsets stays open; if it hangs: docs/operations.md, Health"
# Until then it may be the transaction of a worker that was killed; the broker takes 10 to 20 s to end that.
_OPEN_SOON_S, _OPEN_LONG_S, _OPEN_AGAIN_S = 1.0, 3 * limits.TRANSACTION_TIMEOUT_S, 60.0


@dataclass(slots=True)
class _Learning:
    """What was asked about new partitions: committed offsets are known; ends, and whether the topics are the same, will be."""

    committed: Mapping[TopicAndPartition, tuple[int | None, str | None]]
    ends: Ends
    asked_at: float


@dataclass(slots=True)
class _Pace:
    """When a question that went unanswered is asked again, and whether for each partition by itself."""

    at: float = 0.0
    apart: bool = False


@dataclass(slots=True, kw_only=True)
class Assignment:
    """Prepares partitions and keeps their places.

    Attributes:
        consume, window, commit: stages that hold something per partition.
        restore: rebuilds windows; None for a flow without state.
        admin: is asked for the ends of input and changelog.
        watch: knows whether the topics are still the same.
        bases: is told where a partition stands; None for a flow without state.
        changelog: its topic.
        start: "earliest" or "latest", for partitions without a committed offset.
        on_lost: policy for committed offsets that retention removed.
        metrics: restored rows and gauges.
        clock: for progress.
        tells_spares: whether the group tells a member that it has no partitions for it (KIP-848's broker says nothing).
        joined: whether the group has told us what is ours.
    """

    consume: Consume
    window: Keyed
    commit: Commit
    restore: Restore | None
    admin: AdminClient
    watch: TopicWatch
    bases: SnapshotScheduler | None
    changelog: str | None
    start: str
    on_lost: str
    metrics: Metrics
    clock: Clock
    tells_spares: bool = True
    joined: bool = False
    partitions: set[int] = field(default_factory=set)
    _new: dict[int, StateStore | None] = field(default_factory=dict)
    _learning: _Learning | None = None
    _ready: dict[int, Restored] = field(default_factory=dict)
    _placing: Ends | None = None
    _learn_pace: _Pace = field(default_factory=_Pace)
    _place_pace: _Pace = field(default_factory=_Pace)
    _tell_at: float = 0.0
    _open_tell_at: float = 0.0
    _progress_at: float = 0.0
    _awaited_until: float = field(init=False)

    def __post_init__(self) -> None:
        self._awaited_until = self.clock.monotonic() + _AWAITED_S

    def begin(self, partitions: list[int]) -> None:
        """Take partitions over, or take them back after a rollback; `step` does the rest."""
        self.partitions |= set(partitions)
        if not partitions:
            return
        self._forget(partitions)
        self._learn_pace, self._place_pace = _Pace(), _Pace()
        self._new |= {partition: self.window.open(partition) for partition in partitions}
        self._gauges()

    def _forget(self, partitions: list[int]) -> None:
        """Drop what was asked, and windows that were restored and not started yet."""
        if self.restore is not None:
            self.restore.cancel(partitions)
        if self.bases is not None:
            self.bases.forget(partitions)
        self._learning = self._placing = None
        for partition in partitions:
            self._new.pop(partition, None)
            self._ready.pop(partition, None)

    def lost(self, partitions: list[int]) -> None:
        """Forget partitions that the group took, since it took us for dead."""
        self.joined, self._awaited_until = False, self.clock.monotonic() + _AWAITED_S
        self.end(partitions)

    def end(self, partitions: list[int]) -> None:
        """Forget partitions."""
        self.partitions -= set(partitions)
        self._forget(partitions)
        for partition in partitions:
            self.window.close(partition)
            self.commit.places.pop(partition, None)
        self._gauges()

    @property
    def awaited(self) -> bool:
        """Whether partitions are about to come, or to be asked about again; a worker to spare stops counting on the first."""
        return self._resting or (not self.partitions and self.clock.monotonic() < self._awaited_until)

    @property
    def member(self) -> bool:
        """Whether the group knows us, with partitions or to spare."""
        silent = not self.tells_spares and self.clock.monotonic() >= self._awaited_until
        return self.joined or bool(self.partitions) or silent

    @property
    def restoring(self) -> bool:
        """Whether some partition is not being read yet."""
        return self._waiting > 0

    @property
    def busy(self) -> bool:
        """Whether there is something to do for them now."""
        return self.restoring and not self._resting

    @property
    def _resting(self) -> bool:
        now, under_way = self.clock.monotonic(), self._waiting - len(self._new) - len(self._ready)
        watching = self._learning is not None and self.watch.resting and not self.watch.sound_since(self._learning.asked_at)
        new_rest = not self._new or now < self._learn_pace.at or watching
        return self._waiting > 0 and not under_way and new_rest and (not self._ready or now < self._place_pace.at)

    @property
    def _waiting(self) -> int:
        return len(self._new) + len(self._ready) + (len(self.restore) if self.restore is not None else 0)

    def describe(self) -> str | None:
        """What is being restored and how far that is; None when nothing is."""
        if not self.restoring:
            return None
        if len(self._new) == self._waiting:
            return f"Kafka is asked where to go on: {len(self._new)} of {len(self.partitions)} partitions wait"
        share, left = self.restore.progress() if self.restore is not None else (1.0, 0.0)
        waiting = f"windows are being restored: {self._waiting} of {len(self.partitions)} partitions wait"
        if self.restore is not None and (hidden := _hidden(self.restore)) is not None:
            return f"{waiting}; {_open_transaction(hidden)}"
        return (
            f"{waiting}, {share:.0%} is read, {f'about {left:.0f} s are left' if left < float('inf') else 'nothing has come yet'}"
        )

    def step(self, timeout_s: float) -> None:
        """Go on with restores and start what is ready.

        Raises:
            LostOffsetsError: committed offsets are gone from the log and the policy is to stop.
            TopicError: a topic is not the one that the offsets are of.
        """
        if self._new:
            self._learn(timeout_s)
        if self.restore and len(self.restore):
            alone = self._waiting >= len(self.partitions)
            for restored in self.restore.step(timeout_s, limits.RESTORE_ALONE_S if alone else limits.RESTORE_SHARE_S):
                for topic, id_, offset in zip(self.consume.topics, restored.ids, restored.next, strict=False):
                    self.watch.check(topic, restored.partition, offset, CommitMetadata(None, id=id_))
                if restored.forgotten:
                    _log.warning(
                        "offsets_forgotten", topic=self.consume.lead, partition=restored.partition, commit=restored.seq,
                        next=restored.next, hint="the broker has lost the last ones; the changelog says where each input goes on",
                    )  # fmt: skip
                self._ready[restored.partition] = restored
                self.metrics.add("streamer_restored_rows_total", restored.rows)
            self._tell(self.restore)
        if self._ready:
            self._start(timeout_s)
        self._gauges()

    def _learn(self, timeout_s: float) -> None:
        """Ask for all new partitions at once where they stand; with the answers their restores begin."""
        if self._learning is None:
            if self.clock.monotonic() < self._learn_pace.at:
                return
            asked_at = self.clock.monotonic()
            try:
                committed = self.consume.committed(sorted(self._new))
            except KafkaException as error:
                self._ask_later(self._learn_pace, error)
                return
            self.watch.hurry()
            changelog = self.changelog if self.restore is not None else None
            places = [(changelog, partition) for partition in self._new] if changelog else []
            self._learning = _Learning(committed, Ends(self.admin, places, apart=self._learn_pace.apart), asked_at)
        if not self.watch.sound_since(self._learning.asked_at):
            self.watch.wait(timeout_s)
        if self.watch.sound_since(self._learning.asked_at) and self._learning.ends.wait(timeout_s):
            learned, self._learning = self._learning, None
            self._begin_restores(learned)

    def _begin_restores(self, learned: _Learning) -> None:
        known = learned.ends.known
        for partition, store in list(self._new.items()):
            committed = {topic: learned.committed[topic, partition] for topic in self.consume.topics}
            marks = {topic: CommitMetadata.parse(text) for topic, (_, text) in committed.items()}
            for topic, (offset, _) in committed.items():
                self.watch.check(topic, partition, offset, marks[topic])
            offsets, named = [offset for offset, _ in committed.values()], marks[self.consume.lead]
            if self.restore is None or self.changelog is None:
                self._ready[partition] = Restored(partition=partition, next=offsets, seq=named.seq or 0)
            elif (self.changelog, partition) in known:
                assert store is not None, "a flow with a changelog has stores"
                self.restore.begin(partition, store, offsets, named, known[self.changelog, partition])
            else:
                continue
            del self._new[partition]
        self._progress_at = self.clock.monotonic() + _PROGRESS_EVERY_S
        self._note(self._learn_pace, learned.ends)

    def _note(self, pace: _Pace, ends: Ends) -> None:
        """Whether all was answered; what was not is asked again in a while."""
        pace.apart = (error := ends.error) is not None
        if error is not None:
            self._ask_later(pace, error)

    def _ask_later(self, pace: _Pace, error: KafkaException) -> None:
        now = self.clock.monotonic()
        pace.at = now + _ASK_AGAIN_S
        if error.args[0].code() in _LEADERS_CHANGED:
            # The client goes on asking with the leaders and epochs that it learned while a broker was still starting.
            with suppress(KafkaException):
                self.admin.list_topics(timeout=_REFRESH_S)
        if now >= self._tell_at:
            self._tell_at = now + _TELL_AGAIN_S
            hint = _SILENT if error.args[0].code() == _TIMED_OUT else "they are asked for again"
            waiting = [*self._new, *self._ready]
            _log.warning("partitions_wait", topic=self.consume.lead, partitions=waiting, error=str(error), hint=hint)

    def _start(self, timeout_s: float) -> None:
        """Ask for all restored partitions at once where their inputs begin and end; with the answers they start together."""
        if self._placing is None:
            if self.clock.monotonic() < self._place_pace.at:
                return
            places = [(topic, partition) for partition in self._ready for topic in self.consume.topics]
            self._placing = Ends(self.admin, places, apart=self._place_pace.apart)
        if not self._placing.wait(timeout_s):
            return
        known = self._placing.known
        answered = [p for p in self._ready if all((topic, p) in known for topic in self.consume.topics)]
        placed = {partition: offsets for partition in answered if (offsets := self._placed(partition, known)) is not None}
        try:
            self.consume.start(list(placed))
        except KafkaException:
            return  # they stay ready; the next turn tries again
        for partition, offsets in placed.items():
            self._started(partition, offsets)
        if len(placed) == len(answered):
            self._note(self._place_pace, self._placing)
            self._placing = None
        if placed and not self.restoring:
            give_back()

    def _placed(self, partition: int, ends: Mapping[TopicAndPartition, tuple[int, int]]) -> dict[str, int] | None:
        """Where a partition that is ready goes on in each topic, once the consumer knows; None if that must be tried again."""
        offsets = {
            topic: self._offset(topic, partition, next_, *ends[topic, partition])
            for topic, next_ in zip(self.consume.topics, self._ready[partition].next, strict=True)
        }
        try:
            self.consume.seek(partition, offsets)
        except KafkaException:
            return None  # the assignment is not taken in yet
        return offsets

    def _started(self, partition: int, offsets: dict[str, int]) -> None:
        restored = self._ready.pop(partition)
        # Where lost records were jumped over, the next block covers the gap: the chain of blocks stays whole.
        reached = zip(offsets.items(), restored.next, strict=True)
        next_ = {topic: offset if known is None else known for (topic, offset), known in reached}
        self.commit.places[partition] = ChainPosition(restored.seq, next_)
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
            hidden = _hidden(restore)
            how_long = {"seconds_left": round(left, 1)} if hidden is None else {"transaction_open_s": round(hidden.seconds, 1)}
            _log.info("restoring", partitions=len(restore), read=f"{share:.0%}", bytes=restore.bytes, **how_long)
            if hidden is not None and hidden.seconds > _OPEN_LONG_S and self.clock.monotonic() >= self._open_tell_at:
                self._open_tell_at = self.clock.monotonic() + _OPEN_AGAIN_S
                _log.warning("transaction_open", what=_open_transaction(hidden))

    def _offset(self, topic: str, partition: int, reached: int | None, low: int, high: int) -> int:
        """Where an input goes on, the policy for lost offsets applied."""
        if reached is None:
            # A partition that came while we ran had no record that "latest" could mean to pass over.
            return low if self.start == "earliest" or partition >= self.watch.began[topic] else high
        if reached > high:
            raise LostOffsetsError(
                f"{topic}/{partition}: committed offset {reached} lies beyond the end of the log, which is at {high}: "
                "records were cut off there (an unclean election of a leader, an older copy of the disk), or a tool set the "
                "offset. What comes at these offsets now is not what was read of them, so no setting helps: streamer state reset "
                "FILE:NAME --to earliest reads what there is once more, --to latest goes on at the end"
            )
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
        """Let the reader go."""
        if self.restore is not None:
            self.restore.close()

    def _gauges(self) -> None:
        self.metrics.set("streamer_partitions_assigned", len(self.partitions))
        self.metrics.set("streamer_partitions_restoring", self._waiting)


def _hidden(restore: Restore) -> Hidden | None:
    """What a transaction hides that has been open for longer than a commit takes."""
    hidden = restore.hidden()
    return hidden if hidden is not None and hidden.seconds > _OPEN_SOON_S else None


def _open_transaction(hidden: Hidden) -> str:
    """What keeps a restore waiting that has read all it may."""
    verdict = (
        "the group's offsets say that it was committed: do not abort it"
        if hidden.committed
        else "the group's offsets know of no commit behind that place"
    )
    return (
        f"a transaction that is open has hidden changelog {hidden.where} for {hidden.seconds:.0f} s ({verdict}). Brokers that "
        f"answer end it within {limits.TRANSACTION_TIMEOUT_S:g} s and the 10 s between two looks; one that stays may hang: "
        "docs/operations.md says how to find out with kafka-transactions.sh, and what to do then"
    )
