"""Which key holds which slot: a hash table over names that lie in one piece of memory.

A dict of a million keys costs a million objects to build, and the interpreter's lock while it is built; this is filled by a
kernel. Open addressing with linear probing, deletion by shifting back (D. E. Knuth, The Art of Computer Programming, volume 3,
section 6.4, algorithms L and R).
"""

import os
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.state.bytes_column import BytesColumn
from streamer.state.compiled import Bytes, Int32s, Int64Matrix, Int64s, Uint64s, njit, njit_inline
from streamer.state.growth import grown
from streamer.state.siphash import siphash

# Of an entry in the table: the slot plus one in the low half, 31 bits of the hash in the high half; 0 where there is none.
_HALF = 32
_LOW = (1 << _HALF) - 1
_TAG_SHIFT = np.uint64(_HALF + 1)
# Names that are hashed together.
_BLOCK = 64
# In the counters: slots given so far, where the text ends, and how much of it is in use.
_USED, _END, _LIVE = range(3)
_FIRST_SLOTS, _FIRST_TEXT = 256, 4096
_SEED = np.frombuffer(bytearray(os.urandom(16)), np.uint64)


@njit_inline
def _same(one: Bytes, start: int, end: int, other: Bytes, begin: int, stop: int) -> bool:
    if end - start != stop - begin:
        return False
    for i in range(end - start):
        if one[start + i] != other[begin + i]:
            return False
    return True


@njit
def _hash(data: Bytes, ends: Int64s, first: int, seed: Uint64s, table: Int64s, tags: Int64s, entries: Int64s) -> int:
    """Hash some names from number `first` on, at most as many as there is room for in `tags`, and load where each may stand.

    In loops of their own the loads of all names overlap: five times as fast as one after the other when nothing is in a cache.
    """
    mask = table.shape[0] - 1
    count: int = min(tags.shape[0], ends.shape[0] - first)
    start = ends[first - 1] if first else 0
    for i in range(count):
        end = ends[first + i]
        tags[i] = np.int64(siphash(data, start, end, seed) >> _TAG_SHIFT)
        start = end
    for i in range(count):
        entries[i] = table[tags[i] & mask]
    return count


@njit
def _find(data: Bytes, ends: Int64s, seed: Uint64s, table: Int64s, spans: Int64Matrix, text: Bytes, out: Int32s) -> int:
    """Write the slot of each name into `out` (names,), -1 where it has none; returns how many have none."""
    tags, entries, mask = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64), table.shape[0] - 1
    start = missing = 0
    for first in range(0, ends.shape[0], _BLOCK):
        for i in range(_hash(data, ends, first, seed, table, tags, entries)):
            end, tag, entry = ends[first + i], tags[i], entries[i]
            at = tag & mask
            while entry:
                slot = (entry & _LOW) - 1
                if entry >> _HALF == tag and _same(data, start, end, text, spans[slot, 0], spans[slot, 1]):
                    break
                at = (at + 1) & mask
                entry = table[at]
            out[first + i] = (entry & _LOW) - 1
            missing += entry == 0
            start = end
    return missing


@njit
def _put(table: Int64s, tag: np.int64, slot: int) -> None:
    """Enter a name that has no entry."""
    mask = table.shape[0] - 1
    at = tag & mask
    while table[at]:
        at = (at + 1) & mask
    table[at] = tag << _HALF | (slot + 1)


@njit
def _remove(table: Int64s, tag: np.int64, slot: int) -> None:
    """Take the entry of a slot out; those behind it move up as far as they may."""
    mask = table.shape[0] - 1
    hole = tag & mask
    while table[hole] & _LOW != slot + 1:
        hole = (hole + 1) & mask
    at = (hole + 1) & mask
    while table[at]:
        home = (table[at] >> _HALF) & mask
        if (at - home) & mask >= (at - hole) & mask:
            table[hole] = table[at]
            hole = at
        at = (at + 1) & mask
    table[hole] = 0


@njit
def _give(
    slots: Int32s, data: Bytes, ends: Int64s, seed: Uint64s, table: Int64s, spans: Int64Matrix, text: Bytes, counters: Int64s
) -> int:
    """Give slots to names, in order; there is room. Returns how many had another name, or -1 - i where i skips a slot."""
    tags, entries = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    start = evicted = 0
    for i in range(slots.shape[0]):
        if i % _BLOCK == 0:
            _hash(data, ends, i, seed, table, tags, entries)
        slot, end, place = slots[i], ends[i], counters[_END]
        size = end - start
        if slot > counters[_USED]:
            return -1 - i
        if slot == counters[_USED]:
            counters[_USED] += 1
        else:
            low, high = spans[slot, 0], spans[slot, 1]
            if _same(data, start, end, text, low, high):
                start = end
                continue
            evicted += 1
            _remove(table, np.int64(siphash(text, low, high, seed) >> _TAG_SHIFT), slot)
            counters[_LIVE] -= high - low
            if size <= high - low:
                place = low
        for j in range(size):
            text[place + j] = data[start + j]
        spans[slot, 0], spans[slot, 1] = place, place + size
        counters[_LIVE] += size
        counters[_END] = max(counters[_END], place + size)
        _put(table, tags[i % _BLOCK], slot)
        start = end
    return evicted


@njit
def _fill(table: Int64s, larger: Int64s) -> None:
    """Put all entries of a table into an empty one."""
    for entry in table:
        if entry:
            _put(larger, entry >> _HALF, (entry & _LOW) - 1)


@njit
def _gather(slots: Int32s, spans: Int64Matrix, text: Bytes, data: Bytes, ends: Int64s) -> None:
    """Copy the names of slots into `data`, one after the other, and write where each ends."""
    end = 0
    for i in range(slots.shape[0]):
        low, high = spans[slots[i], 0], spans[slots[i], 1]
        data[end : end + high - low] = text[low:high]
        end += high - low
        ends[i] = end


@dataclass(slots=True)
class Index:
    """Names and their slots, which are given from 0 on and may change hands.

    Attributes:
        table: (a power of two, over one and a half times the slots there is room for,) entries.
        spans: (slots there is room for, 2) where in the text each name starts and ends.
        text: names, with gaps where one took the place of another of another length.
        counters: `_USED`, `_END`, `_LIVE`.
    """

    table: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * _FIRST_SLOTS, np.int64))
    spans: NDArray[np.int64] = field(default_factory=lambda: np.empty((_FIRST_SLOTS, 2), np.int64))
    text: NDArray[np.uint8] = field(default_factory=lambda: np.empty(_FIRST_TEXT, np.uint8))
    counters: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))

    def __len__(self) -> int:
        return int(self.counters[_USED])

    def find(self, names: BytesColumn) -> tuple[NDArray[np.int32], int]:
        """Slot of each name, -1 where it has none, and how many have none."""
        slots = np.empty(len(names), np.int32)
        return slots, _find(names.data, names.ends, _SEED, self.table, self.spans, self.text, slots)

    def slot(self, name: bytes) -> int | None:
        """Slot of one name; None where it has none."""
        slots, missing = self.find(BytesColumn.of([name]))
        return None if missing else int(slots[0])

    def names(self, slots: NDArray[np.int32] | None = None) -> BytesColumn:
        """Names of slots, or of all there are."""
        if slots is None:
            slots = np.arange(len(self), dtype=np.int32)
        sizes = self.spans[slots]
        data, ends = np.empty(int((sizes[:, 1] - sizes[:, 0]).sum()), np.uint8), np.empty(len(slots), np.int64)
        _gather(slots, self.spans, self.text, data, ends)
        return BytesColumn(data, ends)

    def assign(self, slots: NDArray[np.int32], names: BytesColumn) -> int:
        """Give slots to names, in their order; returns how many had another name until then."""
        if not len(slots):
            return 0
        self.reserve(int(slots.max()) + 1)
        self.have_text(len(names.data))
        evicted: int = _give(slots, names.data, names.ends, _SEED, self.table, self.spans, self.text, self.counters)
        assert evicted >= 0, f"slot {slots[-1 - evicted]} is given before those in front of it"
        return evicted

    def reserve(self, slots: int) -> None:
        """Have room for so many slots, and no more: who asks knows how many are to come."""
        if slots <= len(self.spans):
            return
        spans = np.empty((slots, 2), np.int64)
        spans[: len(self)] = self.spans[: len(self)]
        self.spans = spans
        table = np.zeros(1 << (3 * len(spans) // 2).bit_length(), np.int64)
        _fill(self.table, table)
        self.table = table

    def have_text(self, more: int) -> None:
        """Have room behind the text; closing its gaps comes first, when they are a quarter of it."""
        end, live = int(self.counters[_END]), int(self.counters[_LIVE])
        if end + more <= len(self.text):
            return
        if 4 * live > 3 * end:
            self.text = grown(self.text, max(3 * len(self.text) // 2, end + more))
            return
        names = self.names()
        self.text = grown(names.data, max(len(self.text), live + more))
        self.counters[_END] = live
        self.spans[: len(names), 0], self.spans[: len(names), 1] = names.ends - np.diff(names.ends, prepend=0), names.ends
