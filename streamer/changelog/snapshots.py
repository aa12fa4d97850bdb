"""When a partition gets a new base snapshot, how it goes out beside the blocks, and when old records may go.

One snapshot at a time is under way, so that partitions take turns. It is taken at a commit with no row behind it: the
state then is that of this commit. Its messages go out with this and the next commits, whatever partitions these are for.
A commit names the base only after the manifest was committed; what lies before the base before goes only after that commit.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from streamer import limits
from streamer.changelog.blocks import ChangelogTopic
from streamer.changelog.restore import Restored
from streamer.changelog.snapshot import Snapshot
from streamer.clock import Clock
from streamer.state.keyed_store import StateStore
from streamer.telemetry.logs import get_logger
from streamer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from concurrent.futures import Future

_log = get_logger(__name__)

Stores = Mapping[int, StateStore]
# Partition -> number of its last commit, and offset of each input after it.
Ends = Mapping[int, tuple[int, list[int]]]


@dataclass(slots=True)
class SnapshotState:
    """The base of one partition.

    Attributes:
        offset: changelog offset of the newest valid one.
        named: the one that the committed metadata names.
        size: its bytes in the changelog; 0 without one.
        blocks: bytes of the blocks since, with what each of them costs beside.
    """

    offset: int | None = None
    named: int | None = None
    size: int = 0
    blocks: int = 0


@dataclass(slots=True)
class PendingSnapshot:
    """The snapshot under way: of which partition, how many messages went out, where the first one lies."""

    partition: int
    snapshot: Snapshot
    blocks: int
    sent: int = 0
    offset: int | None = None

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Note where the first chunk lies."""
        if error is None:
            self.offset = message.offset()


class SnapshotSlice(NamedTuple):
    """Messages of a snapshot that go out with one commit."""

    under_way: PendingSnapshot
    numbers: range

    @property
    def partition(self) -> int:
        """Of the changelog."""
        return self.under_way.partition

    @property
    def last(self) -> bool:
        """Whether the manifest is among them."""
        return self.numbers.stop == self.under_way.snapshot.messages


class SnapshotScheduler:
    """Bases of the worker's partitions.

    Args:
        changelog: where they go.
        admin: deletes old records.
        clock: for waiting times.
        metrics: where numbers go.
    """

    def __init__(self, changelog: ChangelogTopic, admin: AdminClient, clock: Clock, metrics: Metrics) -> None:
        self.changelog, self._admin, self._clock, self._metrics = changelog, admin, clock, metrics
        self._bases: dict[int, SnapshotState] = {}
        self._under_way: PendingSnapshot | None = None
        self._waits_since: float | None = None

    def start(self, restored: Restored) -> None:
        """A partition begins, with the base it was restored from."""
        self._bases[restored.partition] = SnapshotState(restored.base, restored.base, restored.base_bytes, restored.block_bytes)

    def forget(self, partitions: list[int]) -> None:
        """Partitions go, or are restored again: a snapshot of theirs is given up."""
        for partition in partitions:
            self._bases.pop(partition, None)
        if self._under_way is not None and self._under_way.partition in partitions:
            self._under_way = None

    def named(self, partition: int) -> int | None:
        """What the next commit names as base."""
        return self._bases[partition].offset

    @property
    def holding(self) -> bool:
        """Whether no rows should enter, because a snapshot has waited long for a commit with none behind it."""
        if self._waits_since is None:
            return False
        period = limits.SNAPSHOT_WAIT_S + limits.SNAPSHOT_HOLD_S
        return (self._clock.monotonic() - self._waits_since) % period >= limits.SNAPSHOT_WAIT_S

    def consider(self, stores: Stores, ends: Ends, *, quiet: bool) -> None:
        """Take a snapshot if one is due and, with `quiet`, nothing is behind the commit that now starts.

        Args:
            stores: partition -> store.
            ends: partition -> number and next input offsets of its last commit, the one that starts included.
            quiet: every row that entered a store is committed, or is by this commit.
        """
        if self._under_way is not None:
            return
        due = self._most_overdue(stores, ends)
        if due is None:
            self._waits_since = None
        elif not quiet:
            self._waits_since = self._waits_since or self._clock.monotonic()
        else:
            self._waits_since = None
            self._take(due, stores[due], *ends[due])

    def _most_overdue(self, stores: Stores, ends: Ends) -> int | None:
        found, most = None, 1.0
        for partition, base in self._bases.items():
            if partition not in ends or partition not in stores:
                continue
            store = stores[partition]
            state = base.size or len(store) * store.spec.bytes_per_key
            ratio = base.blocks / max(limits.SNAPSHOT_BLOCKS_RATIO * state, limits.SNAPSHOT_BLOCKS_MIN_BYTES)
            if ratio > most:
                found, most = partition, ratio
        return found

    def _take(self, partition: int, store: StateStore, seq: int, next_: list[int]) -> None:
        started = self._clock.monotonic()
        id_, most = uuid.uuid4().bytes, self.changelog.row_bytes_max
        snapshot = Snapshot(store.dump(), store.spec.fingerprint, seq, next_, id_, most=most)
        self._under_way = PendingSnapshot(partition, snapshot, self._bases[partition].blocks)
        stalled = self._clock.monotonic() - started
        self._metrics.add("streamer_snapshot_stall_seconds_total", stalled)
        _log.info("snapshot_taken", partition=partition, commit=seq, bytes=snapshot.size, stalled_ms=round(stalled * 1e3, 1))

    def share(self) -> SnapshotSlice | None:
        """What of the snapshot under way goes out with the commit that now starts."""
        under_way = self._under_way
        if under_way is None:
            return None
        start = under_way.sent
        under_way.sent = min(start + limits.SNAPSHOT_MESSAGES_PER_COMMIT, under_way.snapshot.messages)
        return SnapshotSlice(under_way, range(start, under_way.sent))

    def committed(self, share: SnapshotSlice | None, blocks: Mapping[int, int]) -> dict[int, int]:
        """A commit is through, with a share of a snapshot and so many bytes of blocks by partition.

        Returns:
            Partition -> changelog offset below which nothing is needed any more.
        """
        trims = {}
        for partition, size in blocks.items():
            base = self._bases[partition]
            base.blocks += size + limits.SNAPSHOT_BLOCK_BYTES
            if base.named != base.offset:  # this commit was the first to name it
                if base.named is not None:
                    trims[partition] = base.named
                base.named = base.offset
        if share is not None and share.last and share.under_way is self._under_way:
            self._complete(share.under_way)
        return trims

    def _complete(self, done: PendingSnapshot) -> None:
        self._under_way = None
        if done.offset is None:
            _log.warning("snapshot_place_unknown", partition=done.partition)
            return
        base = self._bases[done.partition]
        base.offset, base.size, base.blocks = done.offset, done.snapshot.written, base.blocks - done.blocks
        self._metrics.add("streamer_snapshots_total")
        self._metrics.add("streamer_snapshot_bytes_total", base.size)
        _log.info("snapshot_written", partition=done.partition, bytes=base.size, offset=base.offset)

    def trim(self, trims: dict[int, int]) -> None:
        """Delete what no restore needs; on threads of the client, and no matter if it fails."""
        if not trims:
            return
        try:
            answers = self._admin.delete_records([TopicPartition(self.changelog.topic, *place) for place in trims.items()])
        except KafkaException as error:
            self._refused(error)
            return
        for answer in answers.values():
            answer.add_done_callback(self._trimmed)

    def _trimmed(self, answer: "Future[object]") -> None:
        error = answer.exception()
        if error is not None:
            self._refused(error)

    def _refused(self, error: BaseException) -> None:
        topic = self.changelog.topic
        _log.warning("changelog_not_trimmed", topic=topic, error=str(error), hint="the topic grows; grant delete on it")
