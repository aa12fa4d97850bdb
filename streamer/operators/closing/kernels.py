"""Compiled kernels of windows that close: slices [start, end) of a key's samples, which are kept sorted by event time.

A window closes when the watermark reaches its end plus the grace. Whatever moves the watermark closes first and enters then.
Sessions are read off the sorted samples by their gaps, so that an event which bridges two of them merges them by itself. One
kernel runs live and in a restore: live it also finds slots and refuses late rows, and notes the operations that follow.

State that only speeds things up (`armed` and the two heaps) is rebuilt from the samples and is no part of a dump.
"""

import numpy as np

from streamer.operators.aggregates import (
    FIRST,
    NEED_GAPS,
    NEED_MATRIX,
    NEED_ORDER,
    SPAN,
    Ask,
    aggregate,
    in_order,
    with_gaps,
)
from streamer.operators.closing.columns import Cause, Notes, Out, Span, State
from streamer.operators.rings import Operations, straight, unroll
from streamer.state.compiled import Float64Matrix, Int32, Int32s, Int64s, njit
from streamer.state.timers import pop, push

# Columns of `config`. Either SIZE and EVERY are set or GAP; microseconds. FINAL and EACH: what is written to `out`.
SIZE, EVERY, GAP, LATE, FINAL, EACH, OWN_TIME, MOST = range(8)
# Columns of `counters`. DUE and IDLE are the entries of the heaps, IDLE is -1 while nobody needs that heap.
WATERMARK, CLOCK, USED, DUE, IDLE, TRUNCATED, ROWS, OPS, LATES, REFUSED = range(10)
COUNTERS = 10
# Why `advance` came back: all done, `out` is full, a key has lost its slot, or the heap of idle keys is needed.
DONE, FULL, MOVED, CROWDED = range(4)
FAR = np.iinfo(np.int64).max


@njit
def first_open(time: int, watermark: int, config: Int64s) -> int:
    """Start of the first window of a grid that holds `time` and has not closed."""
    size, every = config[SIZE], config[EVERY]
    start: int = (time - size) // every * every + every
    if watermark >= 0 and start + size + config[LATE] <= watermark:
        start = (watermark - config[LATE] - size) // every * every + every
    return start


@njit
def _session(ring_t: Int64s, start: int, held: int, place: int, gap: int) -> tuple[int, int]:
    """First and last place of the session around the sample at `place`."""
    size = ring_t.shape[0]
    first = last = place
    while first > 0 and ring_t[(start + first) % size] - ring_t[(start + first - 1) % size] < gap:
        first -= 1
    while last + 1 < held and ring_t[(start + last + 1) % size] - ring_t[(start + last) % size] < gap:
        last += 1
    return first, last


@njit
def _until(ring_t: Int64s, start: int, held: int, time: int) -> int:
    """How many of the sorted times are before `time`."""
    low, high, size = 0, held, ring_t.shape[0]
    while low < high:
        middle = (low + high) // 2
        if ring_t[(start + middle) % size] < time:
            low = middle + 1
        else:
            high = middle
    return low


@njit
def _missed(slot: Int32, time: int, config: Int64s, state: State) -> int:
    """End of the last window of a row when all of its windows have closed, else -1; `slot` is -1 for an unknown key."""
    watermark, gap = state.counters[WATERMARK], config[GAP]
    end: int = time + gap if gap else time // config[EVERY] * config[EVERY] + config[SIZE]
    if watermark < 0 or end + config[LATE] > watermark:
        return -1
    if gap and slot >= 0:  # a session that goes on takes in what lies within its gap
        ring_t, start, n = state.ring_t, state.starts[slot], state.held[slot]
        size = ring_t.shape[1]
        place = _until(ring_t[slot], start, n, time - gap + 1)
        if place < n and ring_t[slot, (start + place) % size] < time + gap:
            return -1
    return end


@njit
def _arm(slot: Int32, deadline: int, state: State) -> None:
    """Have a key looked at when the watermark is at `deadline`."""
    state.armed[slot] = deadline
    state.counters[DUE] = push(state.due_at, state.due_slots, state.counters[DUE], deadline, slot, state.armed)


@njit
def _to_front(slot: Int32, state: State) -> None:
    """Begin at the first place again where more has gone than is left, so that no page of the ring is touched for nothing."""
    starts, held, ring, ring_t = state.starts, state.held, state.ring, state.ring_t
    start, n = starts[slot], held[slot]
    if start < n or start + n > ring_t.shape[1]:
        return
    ring_t[slot, :n] = ring_t[slot, start : start + n]
    for f in range(ring.shape[1]):
        ring[slot, f, :n] = ring[slot, f, start : start + n]
    starts[slot] = 0


@njit
def _drop(slot: Int32, count: int, config: Int64s, state: State) -> None:
    """Forget the oldest samples of a key, whose windows have closed, and note when the next one does."""
    starts, held, ring_t, armed, last, counters = state.starts, state.held, state.ring_t, state.armed, state.last, state.counters
    size, closed = ring_t.shape[1], armed[slot] - config[LATE]
    starts[slot] = (starts[slot] + count) % size
    held[slot] -= count
    _to_front(slot, state)
    if held[slot]:
        oldest = ring_t[slot, starts[slot]]
        deadline = oldest + config[GAP]
        if config[GAP] == 0:
            every = config[EVERY]
            deadline = max((oldest - config[SIZE]) // every * every + every + config[SIZE], closed + every)
        _arm(slot, deadline + config[LATE], state)
        return
    armed[slot] = FAR
    if counters[IDLE] >= 0:
        counters[IDLE] = push(state.idle_last, state.idle_slots, counters[IDLE], last[slot], slot, last)


@njit
def _write(slot: Int32, window: Span, cause: Cause, state: State, ask: Ask, out: Out) -> None:
    """One row of results."""
    ring, ring_t, counters, newest, n = state.ring, state.ring_t, state.counters, out.newest, window.samples
    needs, quantiles, places = ask
    counts, span_us, block, matrix = out.answers
    k = counters[ROWS]
    counters[ROWS] += 1
    out.slot[k], out.start[k], out.end[k] = slot, window.start, window.end
    out.row[k], out.op[k], out.final[k] = cause.row, cause.op, cause.final
    size = ring.shape[2]
    begin = (state.starts[slot] + window.first) % size
    counts[0, k] = n
    span_us[0, k] = ring_t[slot, (begin + n - 1) % size] - ring_t[slot, begin]
    scratch = np.empty(n)
    for f in range(ring.shape[1]):
        samples = straight(ring[slot, f], begin, n, scratch)
        newest[f, k], block[f, FIRST, k] = samples[n - 1], samples[0]
        if needs[f] & NEED_MATRIX:
            unroll(samples, 0, n, matrix[places[f], k])
        if needs[f] & NEED_GAPS:
            first, last = with_gaps(samples, n, needs[f], quantiles[f], scratch, block, f, k)
            block[f, block.shape[1] + SPAN, k] = ring_t[slot, (begin + last) % size] - ring_t[slot, (begin + first) % size]
            continue
        aggregate(samples, n, needs[f], block, f, k)
        if needs[f] & NEED_ORDER:
            in_order(samples, n, quantiles[f], scratch, block, f, k)


@njit
def _close(row: int, op: int, config: Int64s, state: State, ask: Ask, out: Out) -> bool:
    """Close what the watermark has reached, in the order of deadlines; False when `out` is full, and again will go on."""
    starts, held, ring_t, armed, counters = state.starts, state.held, state.ring_t, state.armed, state.counters
    due_at, due_slots = state.due_at, state.due_slots
    late, gap, size = config[LATE], config[GAP], ring_t.shape[1]
    while counters[DUE] and due_at[0] <= counters[WATERMARK]:
        deadline, slot = due_at[0], due_slots[0]
        if armed[slot] != deadline:
            counters[DUE] = pop(due_at, due_slots, counters[DUE])
            continue
        start, n = starts[slot], held[slot]
        if gap:
            count = _session(ring_t[slot], start, n, 0, gap)[1] + 1
            begin, end = ring_t[slot, start], ring_t[slot, (start + count - 1) % size] + gap
            if end + late > deadline:  # it went on since it was armed
                counters[DUE] = pop(due_at, due_slots, counters[DUE])
                _arm(slot, end + late, state)
                continue
            gone = count
        else:
            end = deadline - late
            begin = end - config[SIZE]
            count = _until(ring_t[slot], start, n, end)
            gone = _until(ring_t[slot], start, n, begin + config[EVERY])
        if count and config[FINAL]:
            if counters[ROWS] == out.slot.shape[0]:
                return False
            _write(slot, Span(0, count, begin, end), Cause(row, op, final=True), state, ask, out)
        counters[DUE] = pop(due_at, due_slots, counters[DUE])
        _drop(slot, gone, config, state)
    return True


@njit
def _insert(slot: Int32, time: int, values: Float64Matrix, row: int, config: Int64s, state: State) -> int:
    """Put a sample where it belongs among the sorted ones, after its ties; the oldest goes when there is no room."""
    starts, held, ring, ring_t, counters = state.starts, state.held, state.ring, state.ring_t, state.counters
    size = ring_t.shape[1]
    if held[slot] == size:
        starts[slot] = (starts[slot] + 1) % size
        held[slot] -= 1
        counters[TRUNCATED] += 1
    start, n = starts[slot], held[slot]
    place: int = n
    if n and ring_t[slot, (start + n - 1) % size] > time:
        place = _until(ring_t[slot], start, n, time + 1)
    for j in range(n, place, -1):
        to, source = (start + j) % size, (start + j - 1) % size
        ring_t[slot, to] = ring_t[slot, source]
        for f in range(ring.shape[1]):
            ring[slot, f, to] = ring[slot, f, source]
    at = (start + place) % size
    ring_t[slot, at] = time
    for f in range(ring.shape[1]):
        ring[slot, f, at] = values[f, row]
    held[slot] = n + 1
    deadline = time + config[GAP]
    if config[GAP] == 0:
        deadline = first_open(time, counters[WATERMARK], config) + config[SIZE]
    if deadline + config[LATE] < state.armed[slot]:
        _arm(slot, deadline + config[LATE], state)
    return place


@njit
def _write_early(slot: Int32, time: int, place: int, cause: Cause, config: Int64s, state: State, ask: Ask, out: Out) -> None:
    """What the window of a sample has come to: of several, the one that closes first."""
    ring_t, start, n = state.ring_t, state.starts[slot], state.held[slot]
    size = ring_t.shape[1]
    if config[GAP]:
        first, last = _session(ring_t[slot], start, n, place, config[GAP])
        begin, end = ring_t[slot, (start + first) % size], ring_t[slot, (start + last) % size] + config[GAP]
        count = last - first + 1
    else:
        begin = first_open(time, state.counters[WATERMARK], config)
        end = begin + config[SIZE]
        first = _until(ring_t[slot], start, n, begin)
        count = _until(ring_t[slot], start, n, end) - first
    _write(slot, Span(first, count, begin, end), cause, state, ask, out)


@njit
def _note(slot: Int32, time: int, state: State, notes: Notes) -> None:
    """An operation that is no sample, for the changelog."""
    counters = state.counters
    op = counters[OPS]
    notes.slots[op], notes.times[op], notes.rows[op] = slot, time, -1
    counters[OPS] += 1


@njit
def _free_slot(config: Int64s, state: State) -> Int32:
    """A slot for a new key: one never used, or that of the key seen longest ago that has no open window; -1 if none."""
    last, idle_last, idle_slots, counters = state.last, state.idle_last, state.idle_slots, state.counters
    if counters[USED] < config[MOST]:
        unused: int = counters[USED]
        counters[USED] += 1
        return unused
    while counters[IDLE] > 0:
        slot: int = idle_slots[0]
        number = idle_last[0]
        counters[IDLE] = pop(idle_last, idle_slots, counters[IDLE])
        if last[slot] == number:
            return slot
    return -1


@njit
def _open(slot: Int32, state: State) -> None:
    """Empty a slot for another key."""
    state.starts[slot], state.held[slot], state.armed[slot], state.last[slot] = 0, 0, FAR, -1


@njit
def _given(new: int, place: Int32s, holder: Int32s) -> Int32:
    """The slot that a new key was given and still has, or -1."""
    slot: int = place[new]
    return slot if slot >= 0 and holder[slot] == new else -1


@njit
def _admit(new: int, row: int, time: int, config: Int64s, state: State, notes: Notes) -> Int32:
    """Give a new key its slot; -1 where there is none, and the row is refused."""
    counters, slot = state.counters, _free_slot(config, state)
    if slot < 0:
        notes.refused[counters[REFUSED]] = row
        counters[REFUSED] += 1
        if config[OWN_TIME] and counters[WATERMARK] == time:  # what it closed is closed
            _note(-1, time, state, notes)
        return slot
    notes.place[new], notes.holder[slot] = slot, new
    _note(-2 - slot, time, state, notes)
    _open(slot, state)
    return slot


@njit
def repeat(operations: Operations, begin: int, config: Int64s, state: State, ask: Ask, out: Out) -> tuple[int, int]:
    """Carry out operations from `begin` on.

    Returns:
        Where it stopped and why: DONE, or FULL (called again from there, it goes on).
    """
    slots, times, values = operations
    last, due_at, counters = state.last, state.due_at, state.counters
    for i in range(begin, slots.shape[0]):
        slot, time = slots[i], times[i]
        if slot < -1:
            _open(-2 - slot, state)
            counters[USED] = max(counters[USED], -1 - slot)
            continue
        if time > counters[WATERMARK] and (slot == -1 or config[OWN_TIME]):
            counters[WATERMARK] = time
        # Asked here, since a call with all these arrays costs more than most rows do.
        if counters[DUE] and due_at[0] <= counters[WATERMARK] and not _close(-1, i, config, state, ask, out):
            return i, FULL
        if slot >= 0:
            last[slot] = counters[CLOCK] + i
            _insert(slot, time, values, i, config, state)
    return slots.shape[0], DONE


@njit
def advance(rows: Operations, begin: int, config: Int64s, state: State, ask: Ask, out: Out, notes: Notes) -> tuple[int, int]:
    """The live way: rows in the order of the log, from `begin` on. What is decided is noted as operations.

    Their slots are known ones, or -1 - u for the new key number u. `place` and `holder` of the notes are all -1 at first.

    Returns:
        Where it stopped and why: DONE; FULL, CROWDED (called again from there, it goes on); MOVED (look the slots up again).
    """
    slots, times, values = rows
    last, due_at, counters = state.last, state.due_at, state.counters
    holder, op_slots, op_times, op_rows = notes.holder, notes.slots, notes.times, notes.rows
    for i in range(begin, slots.shape[0]):
        slot, time, new = slots[i], times[i], -1 - slots[i]
        if slot < 0:
            slot = _given(new, notes.place, holder)
        elif holder[slot] >= 0:
            return i, MOVED
        if time > counters[WATERMARK] and config[OWN_TIME]:
            counters[WATERMARK] = time
        watermark = counters[WATERMARK]
        if counters[DUE] and due_at[0] <= watermark and not _close(i, counters[OPS], config, state, ask, out):
            return i, FULL
        end = -1 if time + config[LATE] >= watermark else _missed(slot, time, config, state)
        if end >= 0:
            late = counters[LATES]
            notes.late[late], notes.watermarks[late], notes.ends[late] = i, watermark, end
            counters[LATES] += 1
            continue
        if config[EACH] and counters[ROWS] == out.slot.shape[0]:
            return i, FULL
        if slot < 0:
            if counters[USED] >= config[MOST] and counters[IDLE] < 0:
                return i, CROWDED
            slot = _admit(new, i, time, config, state, notes)
            if slot < 0:
                continue
        op = counters[OPS]
        op_slots[op], op_times[op], op_rows[op] = slot, time, i
        counters[OPS] += 1
        last[slot] = counters[CLOCK] + op
        at = _insert(slot, time, values, i, config, state)
        if config[EACH]:
            _write_early(slot, time, at, Cause(i, counters[OPS], final=False), config, state, ask, out)
    return slots.shape[0], DONE
