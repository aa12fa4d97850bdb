"""Compiled kernels of windows that close: slices [start, end) of a key's samples, which are kept sorted by event time.

A window closes when the watermark reaches its end plus the grace. Whatever moves the watermark closes first and enters then.
Sessions are read off the sorted samples by their gaps, so that an event which bridges two of them merges them by itself. One
kernel runs live and in a restore: live it also finds slots and refuses late rows, and notes the operations that follow.

State that only speeds things up (`armed` and the two heaps) is rebuilt from the samples and is no part of a dump.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from streamer.operators.aggregates import FIRST, NEED_MATRIX, NEED_ORDER, aggregate, in_order
from streamer.operators.rings import straight, unroll
from streamer.state.kernel_cache import njit
from streamer.state.timers import pop, push

# Columns of `config`. Either SIZE and EVERY are set or GAP; microseconds. FINAL and EACH: what is written to `out`.
SIZE, EVERY, GAP, LATE, FINAL, EACH, OWN_TIME, MOST = range(8)
# Columns of `counters`. DUE and IDLE are the entries of the heaps, IDLE is -1 while nobody needs that heap.
WATERMARK, CLOCK, USED, DUE, IDLE, TRUNCATED, ROWS, OPS, LATES, REFUSED = range(10)
COUNTERS = 10
# Why `advance` came back: all done, `out` is full, a key has lost its slot, or the heap of idle keys is needed.
DONE, FULL, MOVED, CROWDED = range(4)
FAR = np.iinfo(np.int64).max

_I4, _I8, _F8, _U1, _B1 = types.int32, types.int64, types.float64, types.uint8, types.boolean
_CONFIG = _I8[::1]
# starts, held, ring, ring_t, armed, last, due numbers and slots, idle numbers and slots, counters
_STATE = types.Tuple(
    (_I8[::1], _I8[::1], _F8[:, :, ::1], _I8[:, ::1], _I8[::1], _I8[::1], _I8[::1], _I4[::1], _I8[::1], _I4[::1], _I8[::1])
)
# needs, quantiles, places of matrices
_ASK = types.Tuple((_U1[::1], _F8[:, ::1], _I8[::1]))
# slot, start, end, row, operation, final, n, span, newest, aggregates, matrix
_OUT = types.Tuple(
    (_I4[::1], _I8[::1], _I8[::1], _I8[::1], _I8[::1], _B1[::1], _I8[:, ::1], _I8[:, ::1], _F8[:, ::1], _F8[:, :, ::1],
     _F8[:, :, ::1])
)  # fmt: skip
# place, holder, operation slots, times and rows, late rows, watermarks and ends, refused rows
_NOTES = types.Tuple((_I4[::1], _I4[::1], _I4[::1], _I8[::1], _I8[::1], _I8[::1], _I8[::1], _I8[::1], _I8[::1]))


@njit(_I8(_I8, _I8, _CONFIG), cache=True, nogil=True)
def first_open(time, watermark, config):  # type: ignore[no-untyped-def]
    """Start of the first window of a grid that holds `time` and has not closed."""
    size, every = config[SIZE], config[EVERY]
    start = (time - size) // every * every + every
    if watermark >= 0 and start + size + config[LATE] <= watermark:
        start = (watermark - config[LATE] - size) // every * every + every
    return start


@njit(types.UniTuple(_I8, 2)(_I8[::1], _I8, _I8, _I8, _I8), cache=True, nogil=True)
def _session(ring_t, start, held, place, gap):  # type: ignore[no-untyped-def]
    """First and last place of the session around the sample at `place`."""
    size = ring_t.shape[0]
    first = last = place
    while first > 0 and ring_t[(start + first) % size] - ring_t[(start + first - 1) % size] < gap:
        first -= 1
    while last + 1 < held and ring_t[(start + last + 1) % size] - ring_t[(start + last) % size] < gap:
        last += 1
    return first, last


@njit(_I8(_I8[::1], _I8, _I8, _I8), cache=True, nogil=True)
def _until(ring_t, start, held, time):  # type: ignore[no-untyped-def]
    """How many of the sorted times are before `time`."""
    low, high, size = 0, held, ring_t.shape[0]
    while low < high:
        middle = (low + high) // 2
        if ring_t[(start + middle) % size] < time:
            low = middle + 1
        else:
            high = middle
    return low


@njit(_I8(_I4, _I8, _CONFIG, _STATE), cache=True, nogil=True)
def _missed(slot, time, config, state):  # type: ignore[no-untyped-def]
    """End of the last window of a row when all of its windows have closed, else -1; `slot` is -1 for an unknown key."""
    starts, held, _, ring_t, _, _, _, _, _, _, counters = state
    watermark, gap = counters[WATERMARK], config[GAP]
    end = time + gap if gap else time // config[EVERY] * config[EVERY] + config[SIZE]
    if watermark < 0 or end + config[LATE] > watermark:
        return -1
    if gap and slot >= 0:  # a session that goes on takes in what lies within its gap
        size, start, n = ring_t.shape[1], starts[slot], held[slot]
        place = _until(ring_t[slot], start, n, time - gap + 1)
        if place < n and ring_t[slot, (start + place) % size] < time + gap:
            return -1
    return end


@njit(types.void(_I4, _I8, _STATE), cache=True, nogil=True)
def _arm(slot, deadline, state):  # type: ignore[no-untyped-def]
    """Have a key looked at when the watermark is at `deadline`."""
    _, _, _, _, armed, _, due_at, due_slots, _, _, counters = state
    armed[slot] = deadline
    counters[DUE] = push(due_at, due_slots, counters[DUE], deadline, slot, armed)


@njit(types.void(_I4, _STATE), cache=True, nogil=True)
def _to_front(slot: int, state: tuple[NDArray[Any], ...]) -> None:
    """Begin at the first place again where more has gone than is left, so that no page of the ring is touched for nothing."""
    starts, held, ring, ring_t = state[:4]
    start, n = starts[slot], held[slot]
    if start < n or start + n > ring_t.shape[1]:
        return
    ring_t[slot, :n] = ring_t[slot, start : start + n]
    for f in range(ring.shape[1]):
        ring[slot, f, :n] = ring[slot, f, start : start + n]
    starts[slot] = 0


@njit(types.void(_I4, _I8, _CONFIG, _STATE), cache=True, nogil=True)
def _drop(slot, count, config, state):  # type: ignore[no-untyped-def]
    """Forget the oldest samples of a key, whose windows have closed, and note when the next one does."""
    starts, held, _, ring_t, armed, last, _, _, idle_last, idle_slots, counters = state
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
        counters[IDLE] = push(idle_last, idle_slots, counters[IDLE], last[slot], slot, last)


@njit(types.void(_I4, _I8, _I8, _I8, _I8, _I8, _I8, _I8, _STATE, _ASK, _OUT), cache=True, nogil=True)
def _write(slot, first, n, start, end, row, op, final, state, ask, out):  # type: ignore[no-untyped-def]
    """One row of results: the n samples of a key from place `first` on."""
    starts, _, ring, ring_t, _, _, _, _, _, _, counters = state
    needs, quantiles, places = ask
    out_slot, out_start, out_end, out_row, out_op, out_final, out_n, out_span, newest, block, matrix = out
    k = counters[ROWS]
    counters[ROWS] += 1
    out_slot[k], out_start[k], out_end[k], out_row[k], out_op[k], out_final[k] = slot, start, end, row, op, final != 0
    size = ring.shape[2]
    begin = (starts[slot] + first) % size
    out_n[0, k] = n
    out_span[0, k] = ring_t[slot, (begin + n - 1) % size] - ring_t[slot, begin]
    scratch = np.empty(n)
    for f in range(ring.shape[1]):
        samples = straight(ring[slot, f], begin, n, scratch)
        newest[f, k], block[f, FIRST, k] = samples[n - 1], samples[0]
        aggregate(samples, n, needs[f], block, f, k)
        if needs[f] & NEED_MATRIX:
            unroll(samples, 0, n, matrix[places[f], k])
        if needs[f] & NEED_ORDER:
            in_order(samples, n, quantiles[f], scratch, block, f, k)


@njit(_B1(_I8, _I8, _CONFIG, _STATE, _ASK, _OUT), cache=True, nogil=True)
def _close(row, op, config, state, ask, out):  # type: ignore[no-untyped-def]
    """Close what the watermark has reached, in the order of deadlines; False when `out` is full, and again will go on."""
    starts, held, _, ring_t, armed, _, due_at, due_slots, _, _, counters = state
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
            if counters[ROWS] == out[0].shape[0]:
                return False
            _write(slot, 0, count, begin, end, row, op, 1, state, ask, out)
        counters[DUE] = pop(due_at, due_slots, counters[DUE])
        _drop(slot, gone, config, state)
    return True


@njit(_I8(_I4, _I8, _F8[:, ::1], _I8, _CONFIG, _STATE), cache=True, nogil=True)
def _insert(slot, time, values, row, config, state):  # type: ignore[no-untyped-def]
    """Put a sample where it belongs among the sorted ones, after its ties; the oldest goes when there is no room."""
    starts, held, ring, ring_t, armed, _, _, _, _, _, counters = state
    size = ring_t.shape[1]
    if held[slot] == size:
        starts[slot] = (starts[slot] + 1) % size
        held[slot] -= 1
        counters[TRUNCATED] += 1
    start, n = starts[slot], held[slot]
    place = n
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
    if deadline + config[LATE] < armed[slot]:
        _arm(slot, deadline + config[LATE], state)
    return place


@njit(types.void(_I4, _I8, _I8, _I8, _I8, _CONFIG, _STATE, _ASK, _OUT), cache=True, nogil=True)
def _write_early(slot, time, place, row, op, config, state, ask, out):  # type: ignore[no-untyped-def]
    """What the window of a sample has come to: of several, the one that closes first."""
    starts, held, _, ring_t, _, _, _, _, _, _, counters = state
    start, n, size = starts[slot], held[slot], ring_t.shape[1]
    if config[GAP]:
        first, last = _session(ring_t[slot], start, n, place, config[GAP])
        begin, end = ring_t[slot, (start + first) % size], ring_t[slot, (start + last) % size] + config[GAP]
        count = last - first + 1
    else:
        begin = first_open(time, counters[WATERMARK], config)
        end = begin + config[SIZE]
        first = _until(ring_t[slot], start, n, begin)
        count = _until(ring_t[slot], start, n, end) - first
    _write(slot, first, count, begin, end, row, op, 0, state, ask, out)


@njit(types.void(_I4, _I8, _STATE, _NOTES), cache=True, nogil=True)
def _note(slot, time, state, notes):  # type: ignore[no-untyped-def]
    """An operation that is no sample, for the changelog."""
    counters = state[10]
    op = counters[OPS]
    notes[2][op], notes[3][op], notes[4][op] = slot, time, -1
    counters[OPS] += 1


@njit(_I4(_CONFIG, _STATE), cache=True, nogil=True)
def _free_slot(config, state):  # type: ignore[no-untyped-def]
    """A slot for a new key: one never used, or that of the key seen longest ago that has no open window; -1 if none."""
    _, _, _, _, _, last, _, _, idle_last, idle_slots, counters = state
    if counters[USED] < config[MOST]:
        counters[USED] += 1
        return counters[USED] - 1
    while counters[IDLE] > 0:
        number, slot = idle_last[0], idle_slots[0]
        counters[IDLE] = pop(idle_last, idle_slots, counters[IDLE])
        if last[slot] == number:
            return slot
    return -1


@njit(types.void(_I4, _STATE), cache=True, nogil=True)
def _open(slot, state):  # type: ignore[no-untyped-def]
    """Empty a slot for another key."""
    starts, held, _, _, armed, last, _, _, _, _, _ = state
    starts[slot], held[slot], armed[slot], last[slot] = 0, 0, FAR, -1


@njit(types.UniTuple(_I8, 2)(_I4[::1], _I8[::1], _F8[:, ::1], _I8, _CONFIG, _STATE, _ASK, _OUT), cache=True, nogil=True)
def repeat(slots, times, values, begin, config, state, ask, out):  # type: ignore[no-untyped-def]
    """Carry out operations from `begin` on, as `state.delta.Delta` describes them.

    Returns:
        Where it stopped and why: DONE, or FULL (called again from there, it goes on).
    """
    last, due_at, counters = state[5], state[6], state[10]
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


@njit(types.UniTuple(_I8, 2)(_I4[::1], _I8[::1], _F8[:, ::1], _I8, _CONFIG, _STATE, _ASK, _OUT, _NOTES), cache=True, nogil=True)
def advance(slots, times, values, begin, config, state, ask, out, notes):  # type: ignore[no-untyped-def]
    """The live way: rows in the order of the log, from `begin` on. What is decided is noted as operations.

    `slots` are known ones, or -1 - u for the new key number u. `place` (new keys) and `holder` (slots) are all -1 at first.

    Returns:
        Where it stopped and why: DONE; FULL, CROWDED (called again from there, it goes on); MOVED (look the slots up again).
    """
    last, due_at, counters = state[5], state[6], state[10]
    place, holder, op_slots, op_times, op_rows = notes[0], notes[1], notes[2], notes[3], notes[4]
    for i in range(begin, slots.shape[0]):
        slot, time, new = slots[i], times[i], -1
        if slot >= 0:
            if holder[slot] >= 0:
                return i, MOVED
        else:
            new = -1 - slot
            slot = place[new]
            if slot >= 0 and holder[slot] != new:
                slot = np.int32(-1)
        if time > counters[WATERMARK] and config[OWN_TIME]:
            counters[WATERMARK] = time
        watermark = counters[WATERMARK]
        if counters[DUE] and due_at[0] <= watermark and not _close(i, counters[OPS], config, state, ask, out):
            return i, FULL
        end = -1 if time + config[LATE] >= watermark else _missed(slot, time, config, state)
        if end >= 0:
            late = counters[LATES]
            notes[5][late], notes[6][late], notes[7][late] = i, watermark, end
            counters[LATES] += 1
            continue
        if config[EACH] and counters[ROWS] == out[0].shape[0]:
            return i, FULL
        if slot < 0:
            if counters[USED] >= config[MOST] and counters[IDLE] < 0:
                return i, CROWDED
            slot = _free_slot(config, state)
            if slot < 0:
                notes[8][counters[REFUSED]] = i
                counters[REFUSED] += 1
                if config[OWN_TIME] and watermark == time:  # what it closed is closed
                    _note(-1, time, state, notes)
                continue
            place[new], holder[slot] = slot, new
            _note(-2 - slot, time, state, notes)
            _open(slot, state)
        op = counters[OPS]
        op_slots[op], op_times[op], op_rows[op] = slot, time, i
        counters[OPS] += 1
        last[slot] = counters[CLOCK] + op
        at = _insert(slot, time, values, i, config, state)
        if config[EACH]:
            _write_early(slot, time, at, i, counters[OPS], config, state, ask, out)
    return slots.shape[0], DONE
