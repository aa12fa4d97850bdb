"""Rebuilding windows from the changelog: the live `apply`, fed from the log, while other partitions go on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamer.errors import StateError
from streamer.state.changelog import Block, decode
from streamer.state.delta import Delta, merge
from streamer.state.join_store import JoinStore
from streamer.state.store import Store


@dataclass(slots=True)
class Progress:
    """One partition on its way back.

    Attributes:
        store: filled block by block.
        committed: committed offset of each input, None where the group never committed this partition.
        seq: sequence number in the metadata of that commit.
        end: offset after the last record of the changelog, uncommitted ones included.
        next: offset of each input after the last applied block; empty before the first.
        applied: sequence number of the last applied block.
        rows: applied so far.
        reached: how far the changelog was read.
        parts: of the commit that is being read.
        commit: its number, offsets and number of parts; parts of another writer do not belong to it.
    """

    store: Store | JoinStore
    committed: list[int | None]
    seq: int
    end: int
    next: list[int] = field(default_factory=list)
    applied: int = 0
    rows: int = 0
    reached: int = 0
    parts: list[Delta] = field(default_factory=list)
    commit: tuple[int, list[tuple[int, int]], int] | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition that is back: where each input goes on (None: never read), and the number of its last commit."""

    partition: int
    next: list[int | None]
    seq: int
    rows: int


class Restore:
    """Reads changelog partitions to their end and applies their blocks.

    Args:
        consumer: a reader of committed records, see `kafka.reader_config`.
        topic: the changelog.
        strict: exactly-once: the chain must end at the committed offset and sequence. Otherwise (at-least-once) blocks
            of a worker that had lost its partition are skipped, and the input goes on where the chain ends.
    """

    def __init__(self, consumer: Consumer, topic: str, *, strict: bool) -> None:
        self._consumer = consumer
        self._topic, self._strict = topic, strict
        self._under_way: dict[int, Progress] = {}

    def begin(self, partition: int, store: Store | JoinStore, committed: list[int | None], seq: int, end: int) -> None:
        """Start with an empty store; `committed` is for each input, `end` is the changelog's uncommitted high watermark."""
        self.cancel([partition])
        self._under_way[partition] = Progress(store, committed, seq, end)
        self._consumer.incremental_assign([TopicPartition(self._topic, partition, 0)])

    def cancel(self, partitions: list[int]) -> None:
        """Give up on partitions that are not ours any more."""
        known = [p for p in partitions if self._under_way.pop(p, None)]
        if known:
            self._consumer.incremental_unassign([TopicPartition(self._topic, p) for p in known])

    def __len__(self) -> int:
        return len(self._under_way)

    def step(self, timeout_s: float) -> list[Restored]:
        """Apply what arrives within `timeout_s`; returns the partitions that are complete.

        Raises:
            StateError: the changelog does not match the committed offsets.
        """
        done = []
        for message in self._consumer.consume(64, timeout_s):
            partition, offset = message.partition(), message.offset()
            assert partition is not None, "a consumed message has a place"
            assert offset is not None, "a consumed message has a place"
            progress = self._under_way.get(partition)
            if progress is None:
                continue
            error = message.error()
            if error is None:
                progress.reached = offset + 1
                self._apply(progress, message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the name the binding gives it
                # A pending transaction hides the rest of the log; only the end that was asked for is the end.
                progress.reached = offset
                if progress.reached >= progress.end:
                    done.append(self._finish(partition, progress))
            elif not error.retriable():
                raise KafkaException(error)
        return done

    def _apply(self, progress: Progress, message: Message) -> None:
        block = decode(message.value() or b"", progress.store.spec.fingerprint, self._where(message))
        if not self._follows(progress, block, message):
            return
        progress.parts.append(block.delta(len(progress.store.spec.fields)))
        if block.part + 1 < block.parts:
            return
        delta = merge(progress.parts, len(progress.store.spec.fields))
        progress.parts.clear()
        progress.store.apply(delta)
        progress.rows += delta.samples
        progress.next, progress.applied = [next_ for _, next_ in block.covered], block.seq

    def _follows(self, progress: Progress, block: Block, message: Message) -> bool:
        """Whether a block continues the chain; in strict mode it must."""
        commit = (block.seq, block.covered, block.parts)
        first = [first for first, _ in block.covered]
        if not progress.next or (block.seq == progress.applied + 1 and first == progress.next):
            if block.part == 0:  # perhaps anew, after a writer that died between its parts
                progress.parts.clear()
                progress.commit = commit
                return True
            if block.part == len(progress.parts) and commit == progress.commit:
                return True
        if self._strict:
            raise StateError(
                f"{self._where(message)} holds commit {block.seq} for input {_ranges(block)}, but commit "
                f"{progress.applied} ended at {_listed(progress.next)}: the changelog has a gap. Run with a new --group to start "
                "new windows from the input"
            )
        return False

    def _finish(self, partition: int, progress: Progress) -> Restored:
        if self._strict and not self._agree(progress):
            raise StateError(
                f"{self._topic}/{partition} ends with commit {progress.applied} at input offset {_listed(progress.next)}, the "
                f"group committed number {progress.seq} at {_listed(progress.committed)}. Offsets were set by another tool, or "
                "the changelog was deleted. Run with a new --group to start new windows from the input"
            )
        self.cancel([partition])
        next_ = progress.next or progress.committed
        return Restored(partition, list(next_), progress.applied, progress.rows)

    @staticmethod
    def _agree(progress: Progress) -> bool:
        """Whether chain and committed offsets tell the same."""
        nothing = not progress.next and all(offset is None for offset in progress.committed)
        return progress.seq == progress.applied and (nothing or progress.committed == progress.next)

    def _where(self, message: Message) -> str:
        return f"{self._topic}/{message.partition()}/{message.offset()}"

    def close(self) -> None:
        """Let the client go."""
        self._consumer.close()


def _ranges(block: Block) -> str:
    return ", ".join(f"{first}..{next_}" for first, next_ in block.covered)


def _listed(offsets: Sequence[int | None]) -> str:
    return ", ".join(map(str, offsets)) or "None"
