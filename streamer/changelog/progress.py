"""A partition on its way back: what was read of its changelog, and the thread that fills its store."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Semaphore

from streamer.changelog.blocks import START_OVER, Block, CommitMetadata
from streamer.changelog.snapshot import Assembly
from streamer.errors import StateError
from streamer.state.delta import Delta, merge
from streamer.state.keyed_store import StateStore

# Small blocks are applied many at a time, as a call costs more than their rows; large ones are not copied for that.
_BYTES_TOGETHER = 2**20


@dataclass(slots=True, kw_only=True)
class Progress:
    """One partition on its way back.

    Attributes:
        where: topic and partition.
        store: filled block by block.
        thread: does that; one thing after the other.
        committed: committed offset of each input, None where the group never committed this partition.
        mark: number of that commit, and its base.
        start, end: where reading began, and the offset after the last record, uncommitted ones included.
        since: monotonic seconds of the start.
        ended: whether all of the way is read.
        assembly: the base while it is being read.
        early: blocks that lie between its chunks, with their places.
        next: offset of each input after the last block; empty before the first.
        applied: sequence number of the last block.
        trimmed: whether the changelog begins behind what the group names, so that the first base there is counts.
        met: whether the commit that the group names is in the chain, or before its base.
        ids: of the input topics, as the last block says.
        rows: samples in the blocks.
        base_bytes, block_bytes: read so far.
        reached: how far the changelog was read.
        asleep: whether nothing has come of it yet.
        hidden_since: monotonic seconds when only a transaction that is still open kept the rest away; None: nothing does.
        slots: in use after the blocks so far, and
        slots_meanwhile: with the parts of the commit that is being read.
        parts: of that commit.
        commit: its number, offsets and number of parts; parts of another writer do not belong to it.
        waiting: parts of whole commits that are not applied yet, each with `expected` behind it.
        applying: what of them the thread has to do, or does.
    """

    where: str
    store: StateStore
    thread: ThreadPoolExecutor
    committed: list[int | None]
    mark: CommitMetadata
    start: int
    end: int
    since: float
    ended: bool = False
    assembly: Assembly | None = None
    early: list[tuple[Block, str]] = field(default_factory=list)
    next: list[int] = field(default_factory=list)
    applied: int = 0
    trimmed: bool = False
    met: bool = False
    ids: list[str] = field(default_factory=list)
    rows: int = 0
    base_bytes: int = 0
    block_bytes: int = 0
    reached: int = 0
    asleep: bool = True
    hidden_since: float | None = None
    slots: int = 0
    slots_meanwhile: int = 0
    parts: list[Delta] = field(default_factory=list)
    commit: tuple[int, list[tuple[int, int]], int] | None = None
    waiting: list[tuple[Delta, float]] = field(default_factory=list)
    applying: deque[Future[None]] = field(default_factory=deque)

    @property
    def uncommitted(self) -> bool:
        """Whether the group says nothing of this partition: it is new, or the broker has forgotten what was committed."""
        return self.mark.seq is None and all(offset is None for offset in self.committed)

    @property
    def share(self) -> float:
        """How much of the way is done, 0 to 1."""
        return (self.reached - self.start) / (self.end - self.start) if self.end > self.start else 1.0

    @property
    def base_gone(self) -> bool:
        """Whether the base that the group names lies before the beginning of the log."""
        return self.trimmed and self.mark.base is not None

    def passed(self, seq: int, next_: list[int]) -> None:
        """The chain is at the end of a commit."""
        self.applied, self.next = seq, next_
        self.met = self.met or (seq, next_) == (self.mark.seq, self.committed)

    def apply(self, room: Semaphore) -> None:
        """Have what waits applied, once there is room for it."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        if sum(delta.nbytes for delta, _ in waiting) <= _BYTES_TOGETHER:
            waiting = [(merge([delta for delta, _ in waiting], len(self.store.spec.fields)), waiting[-1][1])]
        for delta, share in waiting:
            room.acquire()
            self.applying.append(self.thread.submit(_apply, self.store, delta, share, room))
        while self.applying and self.applying[0].done():
            self._applied(self.applying.popleft())

    @property
    def applied_all(self) -> bool:
        """Whether nothing that was handed to the thread is left to do."""
        return all(each.done() for each in self.applying)

    @property
    def expected(self) -> float:
        """The share of all new keys that the blocks brought so far, as far as one can tell; 1 behind a base, which one cannot."""
        return self.share if self.mark.base is None else 1.0

    def finish(self, room: Semaphore) -> None:
        """Have the rest applied, and wait until all is."""
        self.apply(room)
        while self.applying:
            self._applied(self.applying.popleft())

    def _applied(self, done: Future[None]) -> None:
        try:
            done.result()
        except Exception as error:
            # Stores bound what they are given as far as it costs little; what else is wrong shows where it is used.
            raise StateError(
                f"{self.where}/{self.start}..{self.reached - 1} holds state that does not fit itself ({type(error).__name__}: "
                f"{error}); was something else produced to this topic? {START_OVER[0].upper()}{START_OVER[1:]}"
            ) from error


def _apply(store: StateStore, delta: Delta, share: float, room: Semaphore) -> None:
    try:
        if len(delta.new_keys):
            store.expect(delta.new_keys, share)
        store.apply(delta)
    finally:
        room.release()
