"""Keys and their slots in the arrays of a store: who gets which slot, and who must go when there is none left.

`plan_slots` decides and changes nothing; `apply_slots` carries decisions out, live and in a restore alike. A key is given a slot
by an operation of the delta, so that a replay repeats the decision and need not make it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.state.bounds import size_of
from streamer.state.bytes_column import NO_BYTES, BytesColumn
from streamer.state.compiled import Bools, Int32s, Int64s, njit
from streamer.state.delta import TICK, Delta, opening
from streamer.state.growth import grown, grown_capacity
from streamer.state.index import Index
from streamer.state.watermarks import NO_TIME

_FIRST_CAPACITY = 256
# Keys that may go are lined up this many at a time: a pass over all keys for each of them would cost milliseconds.
_QUEUE_MIN = 1024
_QUEUE_SHARE = 16


class _Clock(NamedTuple):
    """Operations so far, the watermark, and whether samples advance it; see `Keys`."""

    operations: int
    watermark: int
    advances_watermark: bool


class _Room(NamedTuple):
    """Slots in use, the most there are, and how long a key that is not seen keeps its own, or 0."""

    used: int
    most: int
    ttl: int


class _Seen(NamedTuple):
    """When keys were seen, as in `Keys`, and which have lost their slot in this call: (keys,) all False before and after."""

    last: Int64s
    newest: Int64s
    stolen: Bools


class _Queue(NamedTuple):
    """Who may go, longest unseen first.

    Attributes:
        slots, last: (n,) an entry is stale where `last` of its slot has changed.
        busy: (keys,) above 0 for those that may not go after all, or (0,).
    """

    slots: Int64s
    last: Int64s
    busy: Int64s


class _Decided(NamedTuple):
    """What is filled: (n,) slots, and (n,) the rows whose key is given its slot anew."""

    slots: Int32s
    opened: Int64s


@njit
def _touch(slots: Int32s, times: Int64s, start: int, clock: _Clock, last: Int64s, newest: Int64s) -> tuple[int, int, int]:
    """Note from `start` on when keys were seen; stops before a slot is given away that had a sample since `start`.

    Returns:
        Where it stopped, the watermark there, and how many rows until there are samples.
    """
    keeps_newest = newest.shape[0] > 0
    samples, watermark = 0, clock.watermark
    for i in range(start, slots.shape[0]):
        slot, time = slots[i], times[i]
        if slot >= 0:
            last[slot] = clock.operations + i
            samples += 1
            if keeps_newest:
                newest[slot] = max(newest[slot], time)
            if clock.advances_watermark:
                watermark = max(watermark, time)
        elif slot == -1:
            watermark = max(watermark, time)
        else:
            slot = -2 - slot
            if last[slot] >= clock.operations + start:
                return i, watermark, samples
            last[slot] = -1
            if keeps_newest:
                newest[slot] = NO_TIME
    return slots.shape[0], watermark, samples


@njit
def _candidate(head: int, last: Int64s, queue: _Queue) -> int:
    """Place in the queue, from `head` on, of the next key that may go."""
    slots, busy = queue.slots, queue.busy
    while head < slots.shape[0] and (last[slots[head]] != queue.last[head] or (busy.shape[0] > 0 and busy[slots[head]] > 0)):
        head += 1
    return head


@njit
def _admit(
    slots: Int32s, times: Int64s, room: _Room, clock: _Clock, seen: _Seen, queue: _Queue, place: Int32s, decided: _Decided
) -> tuple[int, int]:
    """Slots of rows in their order, as `apply_slots` will give them; what was `seen` is as before when it returns.

    It stops early where the decision needs what the rows before it change: no candidate is left, or a key of this call
    has lost its slot. `slots` are known ones, or -1 - u for the new key number u, whose slot comes to stand in `place`, all -1.

    Returns:
        How many rows were decided, and how many of them are in `opened`.
    """
    n, opens, head = slots.shape[0], 0, 0
    used, ttl, watermark, last, newest, stolen = room.used, room.ttl, clock.watermark, seen.last, seen.newest, seen.stolen
    out, opened = decided
    candidates = queue.slots
    before_last, before_newest = np.empty(n, np.int64), np.empty(n, np.int64)
    done = n
    for i in range(n):
        if clock.advances_watermark:
            watermark = max(watermark, times[i])
        slot = slots[i] if slots[i] >= 0 else place[-1 - slots[i]]
        anew = True
        if slot >= 0:
            if stolen[slot] and slots[i] >= 0:
                done = i
                break
            anew = ttl > 0 and watermark != NO_TIME and newest[slot] < watermark - ttl
        elif used < room.most:
            slot = used
            used += 1
        else:
            head = _candidate(head, last, queue)
            if head == candidates.shape[0]:
                done = i
                break
            slot = candidates[head]
            stolen[slot] = True
        if slots[i] < 0:
            place[-1 - slots[i]] = slot
        if anew:
            opened[opens] = i
            opens += 1
        out[i] = slot
        before_last[i] = last[slot]
        last[slot] = clock.operations + n + i
        if ttl > 0:
            before_newest[i] = newest[slot]
            newest[slot] = times[i] if anew else max(newest[slot], times[i])
    for i in range(done - 1, -1, -1):
        last[out[i]] = before_last[i]
        stolen[out[i]] = False
        if ttl > 0:
            newest[out[i]] = before_newest[i]
    return done, opens


@dataclass(slots=True)
class SlotPlan:
    """Slots for the first `len(slots)` rows asked for; a further call decides about the rest once these are applied.

    Attributes:
        slots: (rows,) int32.
        opened: rows before which their slot is given to their key.
        new_keys: the key of each of them.
    """

    slots: NDArray[np.int32]
    opened: NDArray[np.int64]
    new_keys: BytesColumn

    def delta(self, times: NDArray[np.int64], values: NDArray[np.float64]) -> Delta:
        """The operations, from event times (n,) and samples (fields, n) of at least these rows."""
        rows, opened = len(self.slots), self.opened
        if rows < values.shape[1]:
            times, values = times[:rows], values[:, :rows]
        if not len(opened):
            return Delta(NO_BYTES, self.slots, times, np.ascontiguousarray(values))
        return Delta(
            self.new_keys,
            np.insert(self.slots, opened, opening(self.slots[opened])),
            np.insert(times, opened, times[opened]),
            np.insert(values, opened, 0.0, axis=1),
        )


_NOBODY = np.empty(0, np.int64)
_NO_SLOTS = np.empty(0, np.int32)


@dataclass(slots=True, kw_only=True)
class Keys:
    """The keys of one store.

    Attributes:
        most: slots to give; then the key seen longest ago goes.
        ttl_us: a key whose last sample is older than this before the watermark starts anew; 0 for never.
        own_time: whether samples advance the watermark, and not ticks alone.
        index: which key holds which slot.
        last: (capacity,) number of the operation that saw the key last.
        newest: (capacity,) largest event time of the key, microseconds; (0,) without a ttl.
        clock: operations so far.
        watermark: largest event time so far, microseconds.
    """

    most: int
    ttl_us: int
    advances_watermark: bool
    index: Index = field(default_factory=Index)
    last: NDArray[np.int64] = field(default_factory=lambda: np.full(_FIRST_CAPACITY, -1))
    newest: NDArray[np.int64] = field(init=False)
    clock: int = 0
    watermark: int = NO_TIME
    evicted: int = 0
    _queue: NDArray[np.int64] = field(default_factory=lambda: _NOBODY)
    _queue_last: NDArray[np.int64] = field(default_factory=lambda: _NOBODY)
    _stolen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(_FIRST_CAPACITY, np.bool_))

    def __post_init__(self) -> None:
        self.newest = np.full(_FIRST_CAPACITY if self.ttl_us else 0, NO_TIME)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def capacity(self) -> int:
        """Slots there is room for."""
        return len(self.last)

    def plan_slots(self, keys: list[bytes], times: NDArray[np.int64], busy: NDArray[np.int64] = _NOBODY) -> SlotPlan:
        """Decide the slots of rows, in their order; nothing that counts is changed.

        Slots where `busy` (slots,) is above 0 do not go. When none can go the admission ends before the first new key, with
        no row at all if that is the first.
        """
        slots, new = self.find(keys)
        if not new and not self.ttl_us:
            return SlotPlan(slots, _NOBODY, NO_BYTES)
        self.reserve(min(len(self) + new, max(self.most, len(self))))
        self._line_up(new, busy)
        out, opened = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
        room, seen = _Room(len(self), self.most, self.ttl_us), _Seen(self.last, self.newest, self._stolen)
        queue, place = _Queue(self._queue, self._queue_last, busy), np.full(new, -1, np.int32)
        done, opens = _admit(slots, times, room, self._moment(), seen, queue, place, _Decided(out, opened))
        opened = opened[:opens]
        return SlotPlan(out[:done], opened, BytesColumn.of([keys[row] for row in opened.tolist()]))

    def find(self, keys: list[bytes]) -> tuple[NDArray[np.int32], int]:
        """Slots of these keys, or -1 - u for number u of the new ones, and how many those are."""
        slots, missing = self.index.find(BytesColumn.of(keys))
        new: dict[bytes, int] = {}
        for row in np.flatnonzero(slots < 0).tolist() if missing else ():
            slots[row] = -1 - new.setdefault(keys[row], len(new))
        return slots, len(new)

    def _line_up(self, new: int, busy: NDArray[np.int64]) -> None:
        """Have somebody in the queue when there are fewer free slots than new keys."""
        names = len(self)
        if names + new <= self.most:
            return
        stays = self.last[self._queue] == self._queue_last
        if len(busy):
            stays &= busy[self._queue] == 0
        self._queue, self._queue_last = self._queue[stays], self._queue_last[stays]
        if len(self._queue):
            return
        last, length = self.last[:names], min(names, max(_QUEUE_MIN, names // _QUEUE_SHARE))
        if len(busy) and busy[:names].any():
            free = np.flatnonzero(busy[:names] == 0)
            length = min(length, len(free))
            chosen = free[np.argpartition(last[free], length - 1)[:length]] if length else _NOBODY
        else:
            chosen = np.argpartition(last, length - 1)[:length]
        self._queue = chosen[np.argsort(last[chosen])]
        self._queue_last = last[self._queue]

    def apply_slots(self, delta: Delta, start: int) -> tuple[int, int, NDArray[np.int32]]:
        """Take operations in, from row `start` on.

        Returns:
            Where it stopped: at the end, or before a slot changes hands that had a sample since `start`. How many of the rows
            until there are samples. And the slots that changed hands among them: nothing of their old keys may be left when
            the samples come.
        """
        if len(delta.new_keys):
            self.reserve(-1 - int(delta.slots.min()))
        end, self.watermark, samples = _touch(delta.slots, delta.times, start, self._moment(), self.last, self.newest)
        emptied = _NO_SLOTS
        if len(delta.new_keys):
            used, taken, rows = len(self), int(np.count_nonzero(delta.slots[:start] < TICK)), delta.slots[start:end]
            given = opening(rows[rows < TICK])
            self.assign(given, delta.new_keys.part(taken, taken + len(given)))
            emptied = given[given < used]
        if end == len(delta.slots):
            self.clock += end
        return end, samples, emptied

    def _moment(self) -> _Clock:
        return _Clock(self.clock, self.watermark, self.advances_watermark)

    def assign(self, slots: NDArray[np.int32], keys: BytesColumn) -> None:
        """Give slots to keys, in their order."""
        self.evicted += self.index.assign(slots, keys)

    def reserve(self, keys: int) -> None:
        """Have room for so many."""
        if keys > len(self.last):
            capacity = grown_capacity(len(self.last), keys, self.most)
            self.index.reserve(capacity)
            self.last = grown(self.last, capacity, -1)
            self._stolen = grown(self._stolen, capacity)
            if self.ttl_us:
                self.newest = grown(self.newest, capacity, NO_TIME)

    def dump(self) -> dict[str, NDArray[Any]]:
        """All there is to know besides the names, copied."""
        used = len(self)
        return {
            "counters": np.array([self.clock, self.watermark], np.int64),
            "last": self.last[:used].copy(),
            "newest": self.newest[:used].copy(),
        }

    def shapes(self, keys: int, arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Kinds and shapes of what `dump` gives with so many keys; where there was no ttl, ages were not noted."""
        ages = keys if size_of(arrays, "newest") else 0
        return {"counters": ("<i8", (2,)), "last": ("<i8", (keys,)), "newest": ("<i8", (ages,))}

    def load(self, names: BytesColumn, arrays: dict[str, NDArray[Any]], latest: int = NO_TIME) -> None:
        """Become what was dumped, with the names by slot; `latest` is an event time that was reached, beside the watermark.

        A ttl may come or go between a dump and its load. Without one nobody noted how old a key is, so all begin as young.
        """
        self.index = Index()
        self.clock, self.watermark = arrays["counters"].tolist()
        self.reserve(len(names))
        self.index.reserve(self.capacity)
        self.index.assign(np.arange(len(names), dtype=np.int32), names)
        self.last[: len(names)] = arrays["last"]
        if self.ttl_us:
            self.newest[: len(names)] = arrays["newest"] if len(arrays["newest"]) else max(self.watermark, latest)
        self._queue = self._queue_last = _NOBODY
