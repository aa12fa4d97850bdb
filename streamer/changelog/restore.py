"""Rebuilding windows from the changelog: the live `apply`, fed from the log, while other partitions go on.

A partition starts at its base snapshot, where it has one, and applies the blocks of later commits. Threads do that, while the
worker reads on.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from threading import Semaphore
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamer import limits
from streamer.changelog.blocks import START_OVER, Block, CommitMetadata, decode
from streamer.changelog.progress import Progress
from streamer.changelog.snapshot import CHUNK, MANIFEST, Assembly
from streamer.clock import Clock
from streamer.errors import StateError, TopicError
from streamer.state.bounds import check_lines, slots_after
from streamer.state.delta import Delta
from streamer.state.keyed_store import StateStore

# The client's thread for a broker may sleep through the start of a partition, for up to a second. Any request to that broker
# wakes it; it is not asked again and again, since an answer may wait behind a long poll.
_WAKE_AFTER_S, _WAKE_FOR_S, _WAKE_TIMEOUT_S = 0.03, 1.0, 0.1
# A chunk takes about a millisecond, a small block a fiftieth of that: enough to make a call worth it, not to stall a turn.
_MESSAGES = 16
# Filling fresh memory takes longer than reading and decoding the log, and needs no lock of the interpreter.
_THREADS = 2
# Deltas that may wait for a thread, of a megabyte at most.
_AHEAD = 32
_REFUSALS = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A partition that is back.

    Attributes:
        partition: which.
        next: where each input goes on; None: never read.
        seq: number of its last commit.
        rows: applied from blocks.
        base: changelog offset of its base snapshot.
        base_bytes, block_bytes: of that snapshot, and of the blocks after it.
        ids: of the input topics at its last commit, as far as the changelog says.
        forgotten: whether the group's offsets are gone or those of an earlier commit: the changelog says where inputs go on.
    """

    partition: int
    next: list[int | None]
    seq: int
    rows: int = 0
    base: int | None = None
    base_bytes: int = 0
    block_bytes: int = 0
    ids: tuple[str, ...] = ()
    forgotten: bool = False


class Hidden(NamedTuple):
    """The rest of a changelog, which a transaction that is still open hides.

    Attributes:
        where: it begins.
        seconds: for how long by now.
        committed: whether the group's offsets name a commit that lies in there.
    """

    where: str
    seconds: float
    committed: bool


class Restore:
    """Reads changelog partitions to their end and applies their blocks.

    Args:
        consumer: a reader of committed records, see `kafka.reader_config`.
        topic: the changelog.
        clock: for time spent and time left.
        strict: exactly-once: the chain must end at the committed offset and sequence. Otherwise (at-least-once) blocks
            of a worker that had lost its partition are skipped, and the input goes on where the chain ends.
    """

    def __init__(self, consumer: Consumer, topic: str, clock: Clock, *, strict: bool) -> None:
        self._consumer, self._topic, self._clock, self._strict = consumer, topic, clock, strict
        self._under_way: dict[int, Progress] = {}
        self._woken_at = 0.0
        self._room = Semaphore(_AHEAD)
        self._threads = [ThreadPoolExecutor(1, f"streamer-restore-{n}") for n in range(_THREADS)]
        self._threads_in_turn = cycle(self._threads)
        self.bytes = 0

    def begin(
        self, partition: int, store: StateStore, committed: list[int | None], mark: CommitMetadata, ends: tuple[int, int]
    ) -> None:
        """Start with an empty store.

        Args:
            partition: of the changelog.
            store: to fill.
            committed: offset of each input.
            mark: what the metadata of the lead input says.
            ends: the changelog's first offset and its uncommitted high watermark.

        Raises:
            StateError: the base that the commit names is not in there.
        """
        self.cancel([partition])
        low, end = ends
        # A base goes, and blocks before the first one, only when a later commit has named another: what the group says is older.
        trimmed = (mark.base or 0) < low
        start = low if mark.base is None or trimmed else mark.base
        thread = next(self._threads_in_turn)
        where, now = f"{self._topic}/{partition}", self._clock.monotonic()
        if start > end:
            raise StateError(
                f"{where}: the committed offset names a base snapshot at offset {start}, and the log ends at {end}. Offsets were "
                "set by another tool, or the changelog was deleted. Start over with streamer state reset, or with a new --group"
            )
        progress = Progress(
            where=where,
            store=store,
            thread=thread,
            committed=committed,
            mark=mark,
            start=start,
            end=end,
            since=now,
            reached=start,
            trimmed=trimmed,
        )
        if mark.base is not None and not trimmed:
            progress.assembly = Assembly(store.spec.fingerprint)
        self._under_way[partition] = progress
        self._consumer.incremental_assign([TopicPartition(self._topic, partition, start)])

    def cancel(self, partitions: list[int]) -> None:
        """Give up on partitions that are not ours any more."""
        known = [p for p in partitions if self._under_way.pop(p, None)]
        if known:
            self._consumer.incremental_unassign([TopicPartition(self._topic, p) for p in known])

    def __len__(self) -> int:
        return len(self._under_way)

    def progress(self) -> tuple[float, float]:
        """How much of all partitions under way is read, 0 to 1, and the seconds that are left at this pace."""
        under_way = list(self._under_way.values())
        if not under_way:
            return 1.0, 0.0
        read, whole = sum(p.reached - p.start for p in under_way), sum(p.end - p.start for p in under_way)
        share = read / whole if whole else 1.0
        took = self._clock.monotonic() - min(p.since for p in under_way)
        return share, took * (1 - share) / share if share else float("inf")

    def hidden(self) -> Hidden | None:
        """What a transaction that is still open hides; of several the one that has done so longest."""
        known = [(p.hidden_since, p) for p in list(self._under_way.values())]  # another thread asks, for health
        waits = [(since, p.where, p.reached, (p.mark.seq or 0) > p.applied) for since, p in known if since is not None]
        if not waits:
            return None
        since, where, reached, committed = min(waits)
        return Hidden(f"{where} from offset {reached}", self._clock.monotonic() - since, committed)

    def step(self, timeout_s: float, spend_s: float = 0.1) -> list[Restored]:
        """Apply what arrives within `timeout_s`, then what is there for `spend_s`; returns the partitions that are complete.

        Raises:
            StateError: the changelog does not match the committed offsets.
            TopicError: it cannot be read.
        """
        until = self._clock.monotonic() + spend_s
        while not self._all_read() and (messages := self._consumer.consume(_MESSAGES, timeout_s)):
            for message in messages:
                self._take(message)
            for progress in self._under_way.values():
                progress.apply(self._room)
            timeout_s = 0.0
            if self._clock.monotonic() >= until:
                break
        self._wake()
        if self._all_read():
            applying = [each for progress in self._under_way.values() for each in progress.applying]
            wait(applying, max(timeout_s, until - self._clock.monotonic()))
        ended = [partition for partition, progress in self._under_way.items() if progress.ended and progress.applied_all]
        return [self._finish(partition, self._under_way[partition]) for partition in ended]

    def _all_read(self) -> bool:
        return all(progress.ended for progress in self._under_way.values())

    def _wake(self) -> None:
        """Have the client look for partitions of which nothing has come."""
        now = self._clock.monotonic()
        asleep = (p for p, each in self._under_way.items() if each.asleep and _WAKE_AFTER_S < now - each.since < _WAKE_FOR_S)
        if now - self._woken_at > _WAKE_AFTER_S and (partition := next(asleep, None)) is not None:
            self._woken_at = now
            # What it answers is known already, and whether it does is no matter: the restore waits for records either way.
            with suppress(KafkaException):
                self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), _WAKE_TIMEOUT_S, cached=False)

    def _take(self, message: Message) -> None:
        partition, offset, error = message.partition(), message.offset(), message.error()
        at_end = error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001 - the name the binding gives it
        if error is not None and not at_end:
            if not error.retriable():  # it may be of the client, and have no place
                rights = ". Grant the rights that streamer topics plan lists" if error.code() in _REFUSALS else ""
                raise TopicError(f"changelog {self._topic} cannot be read: {error.str()}{rights}")
            return
        assert partition is not None, "a consumed message has a place"
        assert offset is not None, "a consumed message has a place"
        progress = self._under_way.get(partition)
        if progress is None or progress.ended:
            return
        progress.asleep = False
        if at_end:
            # A pending transaction hides the rest of the log; only the end that was asked for is the end.
            moved, progress.reached = offset != progress.reached, offset
            progress.ended = progress.reached >= progress.end
            if progress.ended:
                progress.hidden_since = None
            elif moved or progress.hidden_since is None:
                progress.hidden_since = self._clock.monotonic()
        else:
            self._read(progress, message, offset)

    def _read(self, progress: Progress, message: Message, offset: int) -> None:
        """One message: a block, or part of a base snapshot."""
        value, key, where = message.value() or b"", message.key(), self._where(message)
        self.bytes += len(value)
        progress.hidden_since = None
        if progress.reached == progress.start:
            self._first(progress, message, offset)
        progress.reached = offset + 1
        if key == CHUNK and progress.assembly is not None:
            progress.assembly.add(value, where)
            progress.base_bytes += len(value)
        elif key == MANIFEST and progress.assembly is not None:
            self._load(progress, value, where)
        elif key not in (CHUNK, MANIFEST):  # those that the commit does not name are passed over
            progress.block_bytes += len(value) + limits.SNAPSHOT_BLOCK_BYTES
            block = decode(value, progress.store.spec.fingerprint, where)
            if progress.assembly is not None:
                progress.early.append((block, where))
            else:
                self._apply(progress, block, where)

    def _first(self, progress: Progress, message: Message, offset: int) -> None:
        """Whether the log begins where it should, and with a base where nobody says which one counts.

        Old records go only up to a base that was named, so a log that begins with one begins with one that counts.
        """
        found, at = progress.assembly, progress.start
        if found is None and message.key() == CHUNK and (progress.uncommitted or progress.trimmed):
            found, at = Assembly(progress.store.spec.fingerprint), offset
            if progress.base_gone and not found.begins(message.value() or b"", self._where(message)):
                found = None
        if progress.base_gone if found is None else at != offset:
            raise StateError(
                f"{progress.where}: the base snapshot at offset {progress.mark.base} is gone, the log goes on at {offset}: the "
                "changelog was cut. Start over with streamer state reset, or with a new --group"
            )
        if found is not None:
            progress.mark, progress.assembly = progress.mark._replace(base=at), found

    def _load(self, progress: Progress, value: bytes, where: str) -> None:
        """The base is complete: take it, then the blocks of later commits that came before its end."""
        assert progress.assembly is not None, "a manifest ends a base"
        found = progress.assembly.finish(value, where)
        if found is None:
            return
        manifest, dump = found
        self._check_inputs(progress, len(manifest.next), where)
        progress.slots = len(dump.keys)
        progress.applying.append(progress.thread.submit(progress.store.load, dump))
        # What the group names lies before all that is there. 0 stands in offsets that were reset: nothing there is theirs.
        progress.met = progress.trimmed and 0 < (progress.mark.seq or 0) <= manifest.seq
        progress.passed(manifest.seq, manifest.next)
        progress.assembly = None
        early, progress.early = progress.early, []
        for block, place in early:
            if block.seq > manifest.seq:
                self._apply(progress, block, place)

    def _apply(self, progress: Progress, block: Block, where: str) -> None:
        if not self._follows(progress, block, where):
            return
        progress.parts.append(self._checked(progress, block, where))
        if block.part + 1 < block.parts:
            return
        progress.slots = progress.slots_meanwhile
        progress.rows += sum(part.samples for part in progress.parts)
        progress.waiting += [(part, progress.expected) for part in progress.parts]
        progress.parts.clear()
        progress.passed(block.seq, [next_ for _, next_ in block.covered])
        progress.ids = block.ids or progress.ids

    def _checked(self, progress: Progress, block: Block, where: str) -> Delta:
        """The operations of a block that follows, once they are known to be ones that its store can carry out."""
        self._check_inputs(progress, len(block.covered), where)
        used = progress.slots if block.part == 0 else progress.slots_meanwhile
        try:
            delta = block.delta(len(progress.store.spec.fields))
            progress.slots_meanwhile = slots_after(delta.slots, delta.times, used)
            check_lines(delta.upstreams, delta.upstreams[:, 0])
            progress.store.spec.check(delta)
        except ValueError as error:
            raise StateError(f"{where} is a damaged changelog block ({error}); {START_OVER}") from error
        return delta

    def _check_inputs(self, progress: Progress, inputs: int, where: str) -> None:
        if inputs != len(progress.committed):
            raise StateError(f"{where} is of {inputs} inputs, the flow has {len(progress.committed)}; {START_OVER}")

    def _follows(self, progress: Progress, block: Block, where: str) -> bool:
        """Whether a block continues the chain; in strict mode it must."""
        commit = (block.seq, block.covered, block.parts)
        first = [first for first, _ in block.covered]
        if block.seq == progress.applied + 1 and progress.next in ([], first):
            if block.part == 0:  # perhaps anew, after a writer that died between its parts
                progress.parts.clear()
                progress.commit = commit
                return True
            if block.part == len(progress.parts) and commit == progress.commit:
                return True
        if self._strict:
            raise StateError(
                f"{where} holds commit {block.seq} for input {_ranges(block)}, but commit {progress.applied} ended at "
                f"{_listed(progress.next)}: the changelog has a gap. Start over with streamer state reset, or with a new --group"
            )
        return False

    def _finish(self, partition: int, progress: Progress) -> Restored:
        if progress.assembly is not None or (progress.base_gone and not progress.next):
            raise StateError(
                f"{self._topic}/{partition}: the base snapshot at offset {progress.mark.base} has no end, the changelog was cut. "
                "Start over with streamer state reset, or with a new --group"
            )
        self._check_end(partition, progress)
        progress.finish(self._room)
        self.cancel([partition])
        # At-least-once commits offsets after the blocks, so there they may be older at any time.
        older = self._strict and (progress.mark.seq, progress.committed) != (progress.applied, progress.next)
        return Restored(
            partition=partition,
            next=list(progress.next or progress.committed),
            seq=progress.applied,
            rows=progress.rows,
            base=progress.mark.base,
            base_bytes=progress.base_bytes,
            block_bytes=progress.block_bytes,
            ids=tuple(progress.ids),
            forgotten=bool(progress.next) and (progress.uncommitted or older),
        )

    def _check_end(self, partition: int, progress: Progress) -> None:
        """Whether chain and committed offsets tell the same.

        New windows (commit 0, or none at all) have no chain yet. Where the broker has forgotten the offsets, or tells those of
        an earlier commit in the chain, the chain is right: its last block says how far each input was read, and what was
        committed with it.
        """
        seq = progress.mark.seq
        agree = progress.uncommitted or (progress.met if progress.next else seq == 0)
        if self._strict and not agree:
            raise StateError(
                f"{self._topic}/{partition} ends with commit {progress.applied} at input offset {_listed(progress.next)}, the "
                f"group committed number {seq or 0} at {_listed(progress.committed)}. Offsets were set by another tool, or the "
                "changelog was deleted. Start over with streamer state reset, or with a new --group"
            )

    def _where(self, message: Message) -> str:
        return f"{self._topic}/{message.partition()}/{message.offset()}"

    def close(self) -> None:
        """Let the client and the threads go."""
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)
        self._consumer.close()


def _ranges(block: Block) -> str:
    return ", ".join(f"{first}..{next_}" for first, next_ in block.covered)


def _listed(offsets: Sequence[int | None]) -> str:
    return ", ".join(map(str, offsets)) or "None"
