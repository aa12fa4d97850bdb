"""The windows of one partition that close: the same keys, operations and dumps as any store, and rows of closed windows."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.operators.aggregates import Answers
from streamer.operators.closing import kernels as closing
from streamer.operators.closing.columns import Notes, Out, State
from streamer.operators.closing.kernels import CLOCK, COUNTERS, DUE, IDLE, LATES, OPS, REFUSED, ROWS, TRUNCATED, USED, WATERMARK
from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.rings import Operations
from streamer.operators.samples import Results, SampleStore, tick_of
from streamer.operators.ticks import order_of
from streamer.state.bytes_column import BytesColumn
from streamer.state.delta import TICK, Delta, opening
from streamer.state.growth import grown, sparse
from streamer.state.timers import room

_ROWS_MIN = 64
_NO_NUMBERS = np.empty(0, np.int64)


@dataclass(slots=True, kw_only=True)
class Rows:
    """Results of windows: one row for each that closed and, where asked for, for each event; in the order of the log.

    Attributes:
        keys: (n,).
        rows: (n,) the row of the input that led to it; -1 after a tick.
        start_us, end_us: (n,) the window.
        final: (n,) whether it has closed.
        newest: (fields, n) its newest sample.
        results: the rest.
    """

    keys: list[bytes]
    rows: NDArray[np.int64]
    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    final: NDArray[np.bool_]
    newest: NDArray[np.float64]
    results: Results

    def __len__(self) -> int:
        return len(self.keys)

    def in_order(self) -> "Rows":
        """As the rows of a tick leave."""
        order = order_of(self.end_us, self.keys)
        if order is None:
            return self
        return Rows(
            keys=[self.keys[row] for row in order.tolist()], rows=self.rows[order], start_us=self.start_us[order],
            end_us=self.end_us[order], final=self.final[order], newest=self.newest[:, order], results=self.results.take(order),
        )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Advanced:
    """What rows or a tick came to.

    Attributes:
        delta: what was applied.
        out: results.
        late: (n,) rows that all windows had closed for.
        late_watermark, late_end: (n,) the watermark they met, and the end of the last of their windows, microseconds.
        refused: (n,) rows of keys for which there is no slot.
        truncated: samples dropped for want of room.
    """

    delta: Delta
    out: Rows
    late: NDArray[np.int64] = field(default_factory=lambda: _NO_NUMBERS)
    late_watermark: NDArray[np.int64] = field(default_factory=lambda: _NO_NUMBERS)
    late_end: NDArray[np.int64] = field(default_factory=lambda: _NO_NUMBERS)
    refused: NDArray[np.int64] = field(default_factory=lambda: _NO_NUMBERS)
    truncated: int = 0


class _Output:
    """Columns that grow with the rows written to them."""

    def __init__(self, store: "ClosingStore", rows: int) -> None:
        fields, spec = len(store.spec.fields), store.spec
        self.results = Results.empty(spec, rows)
        answers = Answers(self.results.count, self.results.span_us, self.results.aggregates, self.results.matrix)
        start, end, row, op = (np.empty(rows, np.int64) for _ in range(4))
        self.columns = Out(
            np.empty(rows, np.int32), start, end, row, op, np.empty(rows, np.bool_), np.empty((fields, rows)), answers
        )

    def grow(self, store: "ClosingStore") -> None:
        """Twice the room, with what is there."""
        rows = len(self.columns.slot)
        longer = _Output(store, 2 * rows)
        for old, new in zip(_row_by_row(self.columns), _row_by_row(longer.columns), strict=True):
            new[..., :rows] = old
        longer.columns.answers.matrix[:, :rows] = self.columns.answers.matrix
        self.results, self.columns = longer.results, longer.columns

    def rows(self, keys: list[bytes]) -> Rows:
        """What was written, under these keys."""
        n, columns = len(keys), self.columns
        counts, span_us, block, matrix = columns.answers
        results = Results(counts[:, :n], span_us[:, :n], block[:, :, :n], matrix[:, :n])
        return Rows(
            keys=keys, rows=columns.row[:n], start_us=columns.start[:n], end_us=columns.end[:n], final=columns.final[:n],
            newest=columns.newest[:, :n], results=results,
        )  # fmt: skip


class ClosingStore(SampleStore):
    """A store of windows that close."""

    spec: ClosingSpec
    _armed: NDArray[np.int64]
    _due: tuple[NDArray[np.int64], NDArray[np.int32]]
    _idle: tuple[NDArray[np.int64], NDArray[np.int32]]
    _counters: NDArray[np.int64]
    _holder: NDArray[np.int32]

    def __init__(self, spec: ClosingSpec, keys_max: int) -> None:
        super().__init__(spec, keys_max)
        self.window = spec.window
        self._armed = _NO_NUMBERS
        self._rebuild()

    def _room(self, shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
        """Samples of a key lie at the front of its ring, which is as long as its longest windows may need."""
        return sparse(shape, dtype)

    def _config(self, *, final: bool, each: bool) -> NDArray[np.int64]:
        window = self.window
        return np.array(
            [
                window.size_us,
                window.hop_us,
                window.gap_us,
                window.grace_us,
                final,
                each,
                self.spec.advances_watermark,
                self.keys_max,
            ],
            np.int64,
        )

    # ------------------------------------------------------------------ what only speeds things up
    def _rebuild(self) -> None:
        """Deadlines from the samples; the heap of idle keys waits until somebody needs it."""
        capacity, used = len(self.arrays["seen"]), len(self.keys)
        self._counters = np.zeros(COUNTERS, np.int64)
        self._counters[IDLE] = -1
        self._armed = np.full(capacity, closing.FAR)
        self._holder = np.full(capacity, -1, np.int32)
        held, starts, ring_t = self.arrays["seen"][:used], self.arrays["start"], self.arrays["ring_t"]
        config = self._config(final=False, each=False)
        slots = np.flatnonzero(held)
        window = self.window
        for slot in slots.tolist():
            oldest = int(ring_t[slot, starts[slot]])
            end = oldest + window.gap_us
            if not window.gap_us:
                end = closing.first_open(oldest, self.keys.watermark, config) + window.size_us
            self._armed[slot] = end + window.grace_us
        order = slots[np.lexsort((slots, self._armed[slots]))]
        self._due = _sorted_heap(self._armed[order], order, capacity)
        self._idle = _sorted_heap(_NO_NUMBERS, _NO_NUMBERS, capacity)
        self._counters[DUE] = len(order)

    def _line_up(self) -> None:
        """Keys without an open window, the one seen longest ago first."""
        used = int(self._counters[USED])
        last = self.keys.last[:used]
        idle = np.flatnonzero((self.arrays["seen"][:used] == 0) & (last >= 0))
        idle = idle[np.argsort(last[idle])]
        self._idle = _sorted_heap(last[idle], idle, len(self.arrays["seen"]))
        self._counters[IDLE] = len(idle)

    def _grow(self, keys: int) -> None:
        super()._grow(keys)
        capacity = len(self.arrays["seen"])
        if capacity > len(self._armed):
            self._armed = grown(self._armed, capacity, closing.FAR)
            self._holder = grown(self._holder, capacity, -1)
            self._due = grown(self._due[0], room(capacity)), grown(self._due[1], room(capacity))
            self._idle = grown(self._idle[0], room(capacity)), grown(self._idle[1], room(capacity))

    # ------------------------------------------------------------------ kernels
    def _begin(self) -> None:
        self._counters[[WATERMARK, CLOCK, USED]] = self.keys.watermark, self.keys.clock, len(self.keys)
        self._counters[[TRUNCATED, ROWS, OPS, LATES, REFUSED]] = 0

    def _state(self) -> State:
        a = self.arrays
        return State(
            a["start"], a["seen"], a["ring"], a["ring_t"], self._armed, self.keys.last, *self._due, *self._idle, self._counters
        )

    def apply(self, delta: Delta, *_: object) -> int:
        """Carry operations out, without results: a restore. Returns how many samples were dropped for want of room."""
        self.upstreams.apply(delta.upstreams)
        self._repeat(delta, final=False)
        return int(self._counters[TRUNCATED])

    def close_until(self, time_us: int, *, final: bool) -> Advanced:
        """The watermark advances to `time_us`; with `final` there is a row for each window that closes."""
        delta = tick_of(self.spec, time_us)
        output = self._repeat(delta, final=final)
        slots = output.columns.slot[: self._counters[ROWS]]
        return Advanced(delta=delta, out=output.rows(list(self.keys.index.names(slots))).in_order())

    def latest_deadline(self) -> int | None:
        """The watermark at which all windows that are open now will have closed; None when none is."""
        if not self._counters[DUE]:  # asked each turn of a silent partition: where nothing is due, no key is looked at
            return None
        held, starts, ring_t = (self.arrays[name][: len(self.keys)] for name in ("seen", "start", "ring_t"))
        slots = np.flatnonzero(held)
        if not len(slots):
            return None
        newest = int(ring_t[slots, (starts[slots] + held[slots] - 1) % ring_t.shape[1]].max())
        window = self.window
        end = newest + window.gap_us if window.gap_us else newest // window.hop_us * window.hop_us + window.size_us
        return end + window.grace_us

    def _repeat(self, delta: Delta, *, final: bool) -> _Output:
        self.upstreams.apply(delta.upstreams)
        if len(delta.new_keys):
            self._make_room(-1 - int(delta.slots.min()))
        output, config = _Output(self, _ROWS_MIN), self._config(final=final, each=False)
        self._begin()
        operations, at = Operations(delta.slots, delta.times, delta.values), 0
        while at < len(delta.slots):
            at, _ = closing.repeat(operations, at, config, self._state(), self.asked, output.columns)
            if at < len(delta.slots):
                output.grow(self)
        opened = delta.slots[delta.slots < TICK]
        self.keys.assign(opening(opened), delta.new_keys)
        self._end(len(delta.slots))
        return output

    def _end(self, operations: int) -> None:
        self.keys.watermark = int(self._counters[WATERMARK])
        self.keys.clock += operations

    def _make_room(self, keys: int) -> None:
        self.keys.reserve(keys)
        self._grow(keys)

    def pass_on(
        self, keys: list[bytes], times: NDArray[np.int64], values: NDArray[np.float64], *, final: bool, each: bool
    ) -> Advanced:
        """The live way: rows of this partition in the order of the log.

        Args:
            keys: (n,).
            times: (n,) event times, microseconds.
            values: (fields, n) samples.
            final: a row for each window that closes.
            each: a row for each event.
        """
        output, config = _Output(self, max(_ROWS_MIN, len(keys) if each else 0)), self._config(final=final, each=each)
        n = len(keys)
        notes = _Notes(n)
        self._begin()
        written, names = 0, list[bytes]()
        at = 0
        while at < n:
            slots, new = self.keys.find(keys[at:])
            slots = np.concatenate([np.full(at, -1, np.int32), slots])
            self._make_room(min(len(self.keys) + new, max(self.keys_max, len(self.keys))))
            rows, columns = Operations(slots, times, values), notes.columns(np.full(new, -1, np.int32), self._holder)
            why = closing.FULL
            while at < n and why != closing.MOVED:
                at, why = closing.advance(rows, at, config, self._state(), self.asked, output.columns, columns)
                if why == closing.FULL:
                    output.grow(self)
                elif why == closing.CROWDED:
                    self._line_up()
            names += self._names(keys, notes, output, written, len(names))
            written = int(self._counters[OPS])
        delta = notes.delta(keys, values, self._counters[OPS])
        self._end(int(self._counters[OPS]))
        lates, refused = self._counters[LATES], self._counters[REFUSED]
        return Advanced(
            delta=delta,
            out=output.rows(names),
            late=notes.late[:lates],
            late_watermark=notes.watermarks[:lates],
            late_end=notes.ends[:lates],
            refused=notes.refused[:refused],
            truncated=int(self._counters[TRUNCATED]),
        )

    def _names(self, keys: list[bytes], notes: "_Notes", output: _Output, written: int, named: int) -> list[bytes]:
        """Keys of the results from number `named` on; a slot changes hands where the operations from `written` on say so."""
        ops, rows = int(self._counters[OPS]), int(self._counters[ROWS])
        slots, moments = output.columns.slot[named:rows], output.columns.op[named:rows]
        opened = written + np.flatnonzero(notes.slots[written:ops] < TICK)
        given = opening(notes.slots[opened])
        self._holder[given] = -1
        # Results with no hand-over between them are named at once, and so are hand-overs with no result between them.
        before, found, done = np.searchsorted(moments, opened, "right"), list[bytes](), 0
        for until in np.unique(before).tolist():
            found += self.keys.index.names(slots[len(found) : until])
            stop = int(np.searchsorted(before, until, "right"))
            self.keys.assign(given[done:stop], BytesColumn.of([keys[row] for row in notes.rows[opened[done:stop] + 1].tolist()]))
            done = stop
        return found + list(self.keys.index.names(slots[len(found) :]))

    def load(self, dump: Any) -> None:
        """Become what was dumped, by a store of the same spec; what was here is gone."""
        super().load(dump)
        self._rebuild()


def _row_by_row(out: Out) -> list[NDArray[Any]]:
    """Columns whose last axis is that of the rows: all but the matrix."""
    return [*out[:-1], *out.answers[:-1]]


class _Notes:
    """Room for what rows lead to: at most two operations each, the slot and the sample."""

    def __init__(self, rows: int) -> None:
        self.slots = np.empty(2 * rows, np.int32)
        self.times, self.rows = np.empty(2 * rows, np.int64), np.empty(2 * rows, np.int64)
        self.late, self.watermarks, self.ends, self.refused = (np.empty(rows, np.int64) for _ in range(4))

    def columns(self, place: NDArray[np.int32], holder: NDArray[np.int32]) -> Notes:
        """As the kernel takes them, with who holds which slot."""
        return Notes(place, holder, self.slots, self.times, self.rows, self.late, self.watermarks, self.ends, self.refused)

    def delta(self, keys: list[bytes], values: NDArray[np.float64], operations: int) -> Delta:
        """The first operations as a delta."""
        slots, rows = self.slots[:operations].copy(), self.rows[:operations]
        picked = np.ascontiguousarray(values[:, rows]) if operations else np.empty((len(values), 0))
        picked[:, rows < 0] = 0.0
        opened = np.flatnonzero(slots < TICK) + 1
        names = BytesColumn.of([keys[row] for row in rows[opened].tolist()])
        return Delta(names, slots, self.times[:operations].copy(), picked)


def _sorted_heap(
    numbers: NDArray[np.int64], slots: NDArray[np.int64], capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Sorted entries are a heap as they stand."""
    heap = np.empty(room(capacity), np.int64), np.empty(room(capacity), np.int32)
    heap[0][: len(numbers)], heap[1][: len(slots)] = numbers, slots
    return heap
