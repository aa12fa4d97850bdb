"""What the kernels of windows that close work on: arrays that belong together, by name."""

from typing import NamedTuple

from streamer.operators.aggregates import Answers
from streamer.state.compiled import Bools, Float64Cube, Float64Matrix, Int32s, Int64Matrix, Int64s


class State(NamedTuple):
    """What is known of all keys.

    Attributes:
        starts, held: (keys,) place of a key's oldest sample in its ring, and how many there are.
        ring, ring_t: (keys, fields, samples), (keys, samples) sorted by event time.
        armed: (keys,) the watermark at which a key is looked at, FAR for never.
        last: (keys,) number of the operation that saw it last.
        due_at, due_slots: heap of deadlines.
        idle_last, idle_slots: heap of keys that may go.
        counters: (COUNTERS,).
    """

    starts: Int64s
    held: Int64s
    ring: Float64Cube
    ring_t: Int64Matrix
    armed: Int64s
    last: Int64s
    due_at: Int64s
    due_slots: Int32s
    idle_last: Int64s
    idle_slots: Int32s
    counters: Int64s


class Out(NamedTuple):
    """Room for results, each of a window.

    Attributes:
        slot, start, end: (rows,) whose it is, and from when to when.
        row, op: (rows,) the row of the input that led to it, or -1, and how many operations came before it.
        final: (rows,) whether it has closed.
        newest: (fields, rows) its newest sample.
        answers: the rest.
    """

    slot: Int32s
    start: Int64s
    end: Int64s
    row: Int64s
    op: Int64s
    final: Bools
    newest: Float64Matrix
    answers: Answers


class Notes(NamedTuple):
    """What `advance` decides.

    Attributes:
        place: (new keys,) the slot that each was given, or -1.
        holder: (keys,) the new key that a slot was given to, or -1.
        slots, times, rows: (operations,) the delta, and the row of each sample in it, or -1.
        late, watermarks, ends: (rows,) late rows, the watermark that they met, and the end of the last of their windows.
        refused: (rows,) rows of keys that there is no slot for.
    """

    place: Int32s
    holder: Int32s
    slots: Int32s
    times: Int64s
    rows: Int64s
    late: Int64s
    watermarks: Int64s
    ends: Int64s
    refused: Int64s


class Span(NamedTuple):
    """Samples of a key: the place of the first, how many, and from when to when they are counted."""

    first: int
    samples: int
    start: int
    end: int


class Cause(NamedTuple):
    """Why there is a result: as in `Out`."""

    row: int
    op: int
    final: bool
