"""A heap of (number, slot) pairs, smallest first, in two arrays: when a window closes, or who was seen longest ago.

Entries are lazy. One counts only while `current[slot]` is its number; the others are left where they are until they come up
or the heap is full. So a change costs the logarithm of the keys, and never a scan.
"""

from streamer.state.kernel_cache import njit


@njit("int64(int64[::1], int32[::1], int64, int64, int32)", cache=True, nogil=True)
def _sink_in(numbers, slots, n, number, slot):  # type: ignore[no-untyped-def]
    at = n
    while at > 0:
        up = (at - 1) // 2
        if numbers[up] < number or (numbers[up] == number and slots[up] <= slot):
            break
        numbers[at], slots[at] = numbers[up], slots[up]
        at = up
    numbers[at], slots[at] = number, slot
    return n + 1


@njit("int64(int64[::1], int32[::1], int64, int64[::1])", cache=True, nogil=True)
def _swept(numbers, slots, n, current):  # type: ignore[no-untyped-def]
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


@njit("int64(int64[::1], int32[::1], int64, int64, int32, int64[::1])", cache=True, nogil=True)
def push(numbers, slots, n, number, slot, current):  # type: ignore[no-untyped-def]
    """Add an entry to the n there are; returns how many there are now. The arrays hold twice as many as there are slots."""
    if n == numbers.shape[0]:
        n = _swept(numbers, slots, n, current)
    return _sink_in(numbers, slots, n, number, slot)


@njit("int64(int64[::1], int32[::1], int64)", cache=True, nogil=True)
def pop(numbers, slots, n):  # type: ignore[no-untyped-def]
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
