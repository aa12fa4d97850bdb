"""A heap of (number, slot) pairs, smallest first, in two arrays: when a window closes, or who was seen longest ago.

Entries are lazy. One counts only while `current[slot]` is its number; the others are left where they are until they come up
or the heap is full. So a change costs the logarithm of the keys, and never a scan.
"""

from streamer.state.compiled import Int32, Int32s, Int64s, njit


@njit
def _sink_in(numbers: Int64s, slots: Int32s, n: int, number: int, slot: Int32) -> int:
    at = n
    while at > 0:
        up = (at - 1) // 2
        if numbers[up] < number or (numbers[up] == number and slots[up] <= slot):
            break
        numbers[at], slots[at] = numbers[up], slots[up]
        at = up
    numbers[at], slots[at] = number, slot
    return n + 1


@njit
def _swept(numbers: Int64s, slots: Int32s, n: int, current: Int64s) -> int:
    """Keep one entry for each slot whose number counts; how many there are."""
    kept = 0
    for j in range(n):
        number, slot = numbers[j], slots[j]
        if current[slot] == number:
            current[slot] = ~number  # seen, until the end of this pass
            numbers[kept], slots[kept] = number, slot
            kept += 1
    for j in range(kept):
        current[slots[j]] = numbers[j]
        _sink_in(numbers, slots, j, numbers[j], slots[j])
    return kept


@njit
def push(numbers: Int64s, slots: Int32s, n: int, number: int, slot: Int32, current: Int64s) -> int:
    """Add an entry to the n there are; returns how many there are now. The arrays hold twice as many as there are slots."""
    if n == numbers.shape[0]:
        n = _swept(numbers, slots, n, current)
    return _sink_in(numbers, slots, n, number, slot)


@njit
def pop(numbers: Int64s, slots: Int32s, n: int) -> int:
    """Take the first of n entries away; returns how many are left."""
    n -= 1
    number, slot = numbers[n], slots[n]
    at = 0
    while 2 * at + 1 < n:
        down = 2 * at + 1
        other = down + 1
        if other < n and (numbers[other] < numbers[down] or (numbers[other] == numbers[down] and slots[other] < slots[down])):
            down = other
        if numbers[down] > number or (numbers[down] == number and slots[down] >= slot):
            break
        numbers[at], slots[at] = numbers[down], slots[down]
        at = down
    numbers[at], slots[at] = number, slot
    return n


def room(slots: int) -> int:
    """Entries for so many slots: half of it at the most counts, so that sweeping a full heap pays."""
    return 2 * slots + 16
