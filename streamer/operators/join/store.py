"""The state of a join in one partition: rows that wait for other inputs, and the samples that rows look at."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.operators.aggregates import AGGREGATE_ROWS, GAP_ROWS, Answers, Ask
from streamer.operators.join import kernels as joining
from streamer.operators.join.rows import HIDDEN, OFFSET
from streamer.operators.join.spec import JoinSpec, Lookbacks
from streamer.operators.rings import Operations
from streamer.state.bounds import Damaged, check_arrays, check_names, shape_of, size_of, within
from streamer.state.bytes_column import NO_BYTES, BytesColumn
from streamer.state.delta import TICK, Delta, merge
from streamer.state.growth import grown, grown_capacity
from streamer.state.keyed_store import Dump
from streamer.state.keys import Keys
from streamer.state.watermarks import NO_TIME

_FIRST_CAPACITY = 256
_NO_ROWS = np.empty(0, np.int64)


@dataclass(slots=True, kw_only=True)
class Released:
    """Rows of the source whose time has come, and what they saw.

    Attributes:
        times, slots, values: (rows,), (rows,) and (rows, offset, timestamp and columns).
        count, span_us: (looks, rows).
        aggregates: (columns, AGGREGATE_ROWS + q + 1, rows), GAP_ROWS in place of 1 where there are gaps; the newest sample last.
        matrix: (matrices, rows, samples).
    """

    times: NDArray[np.int64]
    slots: NDArray[np.int32]
    values: NDArray[np.float64]
    count: NDArray[np.int64]
    span_us: NDArray[np.int64]
    aggregates: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @staticmethod
    def room(spec: JoinSpec, looks: Lookbacks, rows: int) -> "Released":
        """Room for so many rows."""
        samples = max(stream.samples for stream in spec.streams) if looks.matrices else 0
        last = GAP_ROWS if looks.gaps else 1
        return Released(
            times=np.zeros(rows, np.int64),
            slots=np.zeros(rows, np.int32),
            values=np.zeros((rows, HIDDEN - OFFSET + len(spec.columns))),
            count=np.zeros((len(looks.table), rows), np.int64),
            span_us=np.zeros((len(looks.table), rows), np.int64),
            aggregates=np.zeros((len(looks.needs), AGGREGATE_ROWS + looks.quantiles.shape[1] + last, rows)),
            matrix=np.full((looks.matrices, rows, samples), np.nan),
        )

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: NDArray[np.int64]) -> "Released":
        """These rows, in this order."""
        return Released(
            times=self.times[rows], slots=self.slots[rows], values=self.values[rows], count=self.count[:, rows],
            span_us=self.span_us[:, rows], aggregates=self.aggregates[:, :, rows], matrix=self.matrix[:, rows],
        )  # fmt: skip


@dataclass(slots=True)
class JoinStore:
    """Rings and queues of all keys of one partition. `apply` is the only way its state changes, live and in a restore.

    Attributes:
        spec: its shape.
        keys_max: keys there is room for.
        keys: who holds which slot; its watermark is in the time of the source.
        newest: (streams,) largest event time of each, microseconds.
        arrays: (keys, ...) samples.
        ends, queues: the rows that wait, by stream.
    """

    spec: JoinSpec
    keys_max: int
    keys: Keys = field(init=False)
    newest: NDArray[np.int64] = field(init=False)
    arrays: dict[str, NDArray[Any]] = field(init=False)
    ends: NDArray[np.int64] = field(init=False)
    queues: dict[str, NDArray[Any]] = field(init=False)
    _looks: Lookbacks = field(init=False)
    _streams: joining.Streams = field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        self.keys = Keys(most=self.keys_max, ttl_us=0, advances_watermark=spec.advances_watermark)
        self._looks, self._streams = spec.looks(), _streams(spec)
        self._empty()

    def _empty(self) -> None:
        streams, capacity = len(self.spec.streams), min(_FIRST_CAPACITY, self.keys_max)
        samples, fields = self._streams.layout[:, 0], self._streams.layout[:, 1]
        self.newest = np.full(streams, NO_TIME)
        self.arrays = {
            "waiting": np.zeros(capacity, np.int64),
            "start": np.zeros((capacity, streams), np.int64),
            "held": np.zeros((capacity, streams), np.int64),
            "ring_t": np.zeros((capacity, int(samples.sum())), np.int64),
            "ring": np.zeros((capacity, int((samples * fields).sum()))),
        }
        self.ends = np.zeros((streams, 2), np.int64)
        self.queues = {
            "time": np.zeros((streams, _FIRST_CAPACITY), np.int64),
            "slot": np.zeros((streams, _FIRST_CAPACITY), np.int32),
            "values": np.zeros((streams, _FIRST_CAPACITY, int(self._streams.widths.max()))),
        }

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def watermark(self) -> int:
        """Until here, in the source's time, nothing is waited for any more; `upstreams.NO_TIME` at first."""
        return self.keys.watermark

    @property
    def waiting(self) -> int:
        """Rows in all queues."""
        return int((self.ends[:, 1] - self.ends[:, 0]).sum())

    @property
    def waiting_source(self) -> int:
        """Rows of the source that wait."""
        return int(self.ends[0, 1] - self.ends[0, 0])

    def waiting_until(self, limit: int) -> NDArray[np.int64]:
        """Rows of each stream that come out before `limit`, in the source's time: (streams,)."""
        return np.array(
            [
                np.searchsorted(self.queues["time"][number, start:end], limit + stream.lead_us, "left")
                for number, (stream, (start, end)) in enumerate(zip(self.spec.streams, self.ends.tolist(), strict=True))
            ],
            np.int64,
        )

    def newest_source_until(self, time: int) -> int | None:
        """Event time of the last row of the source that waits and lies at or before `time`; None if there is none."""
        start, end = self.ends[0].tolist()
        place = int(np.searchsorted(self.queues["time"][0, start:end], time, "right"))
        return int(self.queues["time"][0, start + place - 1]) if place else None

    def source_time(self, place: int) -> int:
        """Event time of the row of the source that is so manieth in line."""
        return int(self.queues["time"][0, int(self.ends[0, 0]) + place])

    # ------------------------------------------------------------------ the live way
    def advance(
        self, keys: list[bytes], times: NDArray[np.int64], values: NDArray[np.float64]
    ) -> tuple[Delta, NDArray[np.int64]]:
        """Find slots for rows of one stream and take them in.

        Args:
            keys: (n,).
            times: (n,) event times, microseconds.
            values: (`spec.fields`, n).

        Returns:
            What was applied, and the rows for whose keys there is no slot, as all others have rows that wait.
        """
        deltas, refused, done = [], _NO_ROWS, 0
        while done < len(keys):
            admission = self.keys.plan_slots(keys[done:] if done else keys, times[done:], self.arrays["waiting"])
            if not len(admission.slots):
                # Nobody else's slot will be free before the next tick.
                known = done + np.flatnonzero(self.keys.find(keys[done:])[0] >= 0)
                refused = np.setdiff1d(np.arange(done, len(keys)), known)
                keys, times, values, done = [keys[row] for row in known.tolist()], times[known], values[:, known], 0
                continue
            deltas.append(admission.delta(times[done:], np.ascontiguousarray(values[:, done:])))
            done += len(admission.slots)
            self.apply(deltas[-1])
        return merge(deltas, len(self.spec.fields)), refused

    def tick(self, watermark: int) -> tuple[Delta, Released, int]:
        """Move the watermark.

        Returns:
            What was applied, the rows that came out, and how many samples went although a row could still have seen them.
        """
        rows = int(self.waiting_until(watermark - self.spec.out_of_order_us)[0])
        released = Released.room(self.spec, self._looks, rows)
        delta = Delta(NO_BYTES, np.array([TICK], np.int32), np.array([watermark], np.int64), np.zeros((len(self.spec.fields), 1)))
        return delta, released, self.apply(delta, released)

    # ------------------------------------------------------------------ what changes it
    def apply(self, delta: Delta, released: Released | None = None) -> int:
        """Carry operations out; with `released` also write what the rows that come out saw.

        Returns:
            How many samples went although a row could still have seen them.
        """
        start = truncated = 0
        # A slot that a tick sets free may be given away behind it: operations are taken in up to each tick.
        for end in (*(np.flatnonzero(delta.slots == TICK) + 1).tolist(), len(delta.slots)):
            if end > start:
                self._take_in(_part(delta, start, end))
                if delta.slots[end - 1] == TICK:
                    truncated += self._release(released)
            start = end
        return truncated

    def _take_in(self, delta: Delta) -> None:
        start = 0
        while start < len(delta.slots):
            end, _, emptied = self.keys.apply_slots(delta, start)
            self._grow(len(self.keys))
            for array in self.arrays.values() if len(emptied) else ():
                array[emptied] = 0
            self._make_room(end - start)
            whole = end - start == len(delta.slots)
            values = delta.values if whole else np.ascontiguousarray(delta.values[:, start:end])
            operations = Operations(delta.slots[start:end], delta.times[start:end], values)
            joining.arrive(operations, self._streams, self._queued())
            start = end

    def _release(self, released: Released | None) -> int:
        looks, arrays, room = self._looks, self.arrays, released or _NOWHERE
        rings = joining.Rings(arrays["ring_t"], arrays["ring"], arrays["start"], arrays["held"])
        answers = Answers(room.count, room.span_us, room.aggregates, room.matrix)
        ask, out = Ask(looks.needs, looks.quantiles, looks.places), joining.Out(room.times, room.slots, room.values, answers)
        limit = self.watermark - self.spec.out_of_order_us
        _, truncated = joining.release(limit, self._streams, self._queued(), rings, looks.table, ask, out)
        return truncated

    def _queued(self) -> joining.Queues:
        """Rows that wait, as the kernels take them."""
        queues = self.queues
        return joining.Queues(self.ends, queues["time"], queues["slot"], queues["values"], self.newest, self.arrays["waiting"])

    def _make_room(self, rows: int) -> None:
        """Have place behind every queue for so many more rows."""
        capacity = self.queues["time"].shape[1]
        if int(self.ends[:, 1].max()) + rows <= capacity:
            return
        longest = int((self.ends[:, 1] - self.ends[:, 0]).max()) + rows
        # Moved to the front when that frees half of it, so that moving costs little per row.
        wanted = max(capacity, 2 * longest)
        for name, queue in self.queues.items():
            moved = np.zeros((queue.shape[0], wanted, *queue.shape[2:]), queue.dtype)
            for stream, (start, end) in enumerate(self.ends.tolist()):
                moved[stream, : end - start] = queue[stream, start:end]
            self.queues[name] = moved
        self.ends[:, 1] -= self.ends[:, 0]
        self.ends[:, 0] = 0

    def _grow(self, keys: int) -> None:
        capacity = len(self.arrays["waiting"])
        if keys > capacity:
            capacity = grown_capacity(capacity, keys, self.keys_max)
            self.arrays = {name: grown(array, capacity) for name, array in self.arrays.items()}

    # ------------------------------------------------------------------ as a whole
    def expect(self, new_keys: BytesColumn, share: float) -> None:
        """Nothing: what waits takes the room, and that has its own bound."""

    def dump(self) -> Dump:
        """Everything there is to know, copied."""
        used, waiting = len(self.keys), self.ends[:, 1] - self.ends[:, 0]
        queued = {
            f"queue_{name}": np.concatenate([queue[s, start:end] for s, (start, end) in enumerate(self.ends.tolist())])
            for name, queue in self.queues.items()
        }
        arrays = {name: array[:used].copy() for name, array in self.arrays.items()}
        own = {"stream_newest": self.newest.copy(), "queue_rows": waiting}
        # The smallest of numbers is NaN when one of them is.
        deletes = any(bool(np.isnan(np.min(values, initial=0.0))) for values in (arrays["ring"], queued["queue_values"]))
        return Dump(self.keys.index.names(), self.keys.dump() | arrays | own | queued, deletes)

    def load(self, dump: Dump) -> None:
        """Become what was dumped, by a store of the same spec; what was here is gone.

        Raises:
            Damaged: no store of this spec dumped that.
        """
        self._check(dump)
        self.keys.load(dump.keys, dump.arrays)
        self._empty()
        self._grow(len(dump.keys))
        for name, array in self.arrays.items():
            array[: len(dump.keys)] = dump.arrays[name]
        self.newest[:] = dump.arrays["stream_newest"]
        rows = dump.arrays["queue_rows"]
        self._make_room(int(rows.max(initial=0)))
        start = 0
        for stream, count in enumerate(rows.tolist()):
            for name, queue in self.queues.items():
                queue[stream, :count] = dump.arrays[f"queue_{name}"][start : start + count]
            start += count
        self.ends[:, 1] = rows

    def _check(self, dump: Dump) -> None:
        keys, arrays, streams = len(dump.keys), dump.arrays, len(self.spec.streams)
        rows = size_of(arrays, "queue_time")
        own = {name: shape_of(array, keys) for name, array in self.arrays.items()}
        queues = {f"queue_{name}": shape_of(queue[0], rows) for name, queue in self.queues.items()}
        counts = {"stream_newest": ("<i8", (streams,)), "queue_rows": ("<i8", (streams,))}
        check_arrays(arrays, own | queues | counts | self.keys.shapes(keys, arrays))
        check_names(dump.keys)
        sizes, counted = self._streams.layout[:, 0], arrays["queue_rows"]
        fits = within(arrays["start"], 0, np.maximum(sizes - 1, 0)) and within(arrays["held"], 0, sizes)
        if not (fits and within(counted, 0, rows) and int(counted.sum()) == rows and within(arrays["queue_slot"], 0, keys - 1)):
            raise Damaged("its rows lie where there is no room for them")


def _streams(spec: JoinSpec) -> joining.Streams:
    """The streams as the kernels take them."""
    shifts = np.array([stream.lead_us for stream in spec.streams], np.int64)
    reach = np.array([stream.lookback_us for stream in spec.streams], np.int64)
    return joining.Streams(shifts, reach, spec.widths(), spec.layout(), spec.own())


def _part(delta: Delta, start: int, end: int) -> Delta:
    """Some of the operations of a delta."""
    if end - start == len(delta.slots):
        return delta
    before, given = (int(np.count_nonzero(delta.slots[some] < TICK)) for some in (slice(start), slice(start, end)))
    return Delta(
        delta.new_keys.part(before, before + given), delta.slots[start:end], delta.times[start:end],
        np.ascontiguousarray(delta.values[:, start:end]),
    )  # fmt: skip


_NOWHERE = Released(
    times=np.empty(0, np.int64),
    slots=np.empty(0, np.int32),
    values=np.empty((0, 0)),
    count=np.empty((0, 0), np.int64),
    span_us=np.empty((0, 0), np.int64),
    aggregates=np.empty((0, 0, 0)),
    matrix=np.empty((0, 0, 0)),
)
