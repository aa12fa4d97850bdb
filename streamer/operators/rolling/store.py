"""The windows of one stage and partition: keys in slots, samples in arrays. Moved and rebuilt as one thing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streamer.operators.rolling import kernels
from streamer.state.bounds import NUMBER_MAX, Damaged, check_arrays, check_lines, check_names, shape_of, size_of, within
from streamer.state.delta import TICK, Delta, merge
from streamer.state.growth import grown, grown_capacity
from streamer.state.keys import Keys
from streamer.state.names import NO_NAMES, Names
from streamer.state.watermarks import Upstreams
from streamer.topology.closing import Closing
from streamer.topology.view import Needs, Rolling

# A key costs its samples plus: name, entry in the index and counters; measured at 100,000 keys of 36 bytes, as of a UUID.
KEY_OVERHEAD_BYTES = 112
# Windows that close have three more counters, and twice the room for an entry in each of two heaps.
CLOSING_BYTES = 2 * 8 + 4 + 2 * 2 * 12
FIRST_CAPACITY = 256
# An estimate that is a little short would have everything copied near the end.
_ROOM_TO_SPARE = 1.1


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """Shape of a store: which fields are kept, in which window, and what is asked of each.

    Attributes:
        window: the window.
        fields: fields whose samples are kept, in order.
        needs: bits of `kernels.NEED_*` per column, which is a look-back and a field: look * fields + field.
        quantiles: asked of each column.
        keeps_time: whether event times are kept beside the samples.
        own_time: whether samples advance the watermark, and not ticks alone (as where several inputs meet).
    """

    window: Rolling | Closing
    fields: tuple[str, ...]
    needs: tuple[int, ...]
    quantiles: tuple[tuple[float, ...], ...]
    keeps_time: bool
    own_time: bool = True

    @classmethod
    def of(cls, window: Rolling | Closing, needs: Needs) -> Self:
        """The smallest store that answers what a feature function needs."""
        fields, looks = tuple(sorted(needs.window_fields())), (needs, *needs.further)
        columns = [(name, look) for look in looks for name in fields]
        return cls(
            window,
            fields,
            tuple(asked_bits(name, look) for name, look in columns),
            tuple(tuple(sorted(q for f, q in look.quantiles if f == name)) for name, look in columns),
            isinstance(window, Closing)
            or window.by_time
            or any(aggregate == "rate" for look in looks for _, aggregate in look.aggregates),
        )

    def open(self, keys_max: int) -> "Store":
        """A new, empty store of this shape."""
        return Store(self, keys_max)

    def column(self, look: int, name: str) -> int:
        """Where the results of a field over a look-back stand."""
        return look * len(self.fields) + self.fields.index(name)

    def quantile_row(self, column: int, q: float) -> int:
        """Where a quantile stands in its column's block of aggregates."""
        return kernels.AGGREGATE_ROWS + self.quantiles[column].index(q)

    @property
    def matrices(self) -> tuple[int, ...]:
        """Which matrix each column fills; columns whose samples nobody wants fill none and say -1."""
        places, wide = [], 0
        for bits in self.needs:
            places.append(wide if bits & kernels.NEED_MATRIX else -1)
            wide += bits & kernels.NEED_MATRIX > 0
        return tuple(places)

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key."""
        columns = len(self.fields) + self.keeps_time
        more = CLOSING_BYTES if isinstance(self.window, Closing) else 8 if self.window.ttl_us else 0
        return self.window.samples * columns * 8 + KEY_OVERHEAD_BYTES + more

    def check(self, delta: Delta) -> None:
        """Whether operations may be of a store of this shape, whatever it holds.

        Raises:
            Damaged: they may not.
        """
        check_names(delta.new_keys)

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        window = self.window
        if isinstance(window, Closing):
            widths = f"{window.size_us}/{window.every_us}/{window.gap_us}/{window.late_us}"
            return f"{window.kind}/{window.samples}/{widths}/{','.join(self.fields)}"
        spans = "+".join(map(str, window.looks)) if window.by_time else "0"
        # By count, times are kept only where somebody asks for a rate, and a snapshot without them cannot be read with.
        times = "/times" if self.keeps_time and not window.by_time else ""
        return f"rolling/{window.samples}/{spans}/{','.join(self.fields)}{times}"


def asked_bits(name: str, needs: Needs) -> int:
    """What one look-back is asked of a field."""
    wanted = {aggregate for f, aggregate in needs.aggregates if f == name}
    bits = kernels.NEED_SUM if wanted & {"sum", "mean"} else 0
    bits |= kernels.NEED_STD if "std" in wanted else 0
    bits |= kernels.NEED_RANGE if wanted & {"min", "max"} else 0
    bits |= kernels.NEED_FIRST if wanted & {"first", "delta", "rate"} else 0
    bits |= kernels.NEED_ORDER if "distinct" in wanted or any(f == name for f, _ in needs.quantiles) else 0
    return bits | (kernels.NEED_MATRIX if name in needs.matrices else 0)


@dataclass(slots=True)
class Results:
    """What the windows of one batch came to, filled partition by partition.

    Attributes:
        count: (looks, rows) samples in the window.
        span_us: (looks, rows) event time between oldest and newest sample.
        aggregates: (columns, kernels.AGGREGATE_ROWS and one more for each quantile, rows).
        matrix: (matrices, rows, samples), one for each column whose samples are wanted; see `StoreSpec.matrices`.
    """

    count: NDArray[np.int64]
    span_us: NDArray[np.int64]
    aggregates: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @staticmethod
    def empty(spec: StoreSpec, rows: int) -> "Results":
        """Room for the results of `rows` events."""
        looks, block = len(spec.window.looks), kernels.AGGREGATE_ROWS + max(map(len, spec.quantiles), default=0)
        return Results(
            np.zeros((looks, rows), np.int64),
            np.zeros((looks, rows), np.int64),
            np.zeros((len(spec.needs), block, rows)),
            np.full((max(spec.matrices, default=-1) + 1, rows, spec.window.samples), np.nan),
        )


@dataclass(frozen=True, slots=True)
class Dump:
    """Everything a store holds, copied; equal dumps mean equal states, bit for bit.

    Attributes:
        keys: by slot.
        arrays: the rest, by name, cut to the slots in use.
        deletes: whether rows of a table are deleted in it.
    """

    keys: Names
    arrays: dict[str, NDArray[Any]]
    deletes: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dump) and self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self.keys)

    def _comparable(self) -> tuple[object, ...]:
        return self.keys, {name: (array.dtype, array.shape, array.tobytes()) for name, array in self.arrays.items()}


_NO_ROWS = np.empty(0, np.int64)


@dataclass(slots=True)
class Store:
    """Windows of all keys of one partition. `apply` is the only way its state changes, live and in a restore.

    Attributes:
        spec: its shape.
        keys_max: slots there are; beyond, the key seen longest ago goes.
        keys: who holds which slot.
        upstreams: in a re-keyed flow, how far the partitions of the source have come.
        arrays: the windows, by name, one row a slot.
    """

    spec: StoreSpec
    keys_max: int
    keys: Keys = field(init=False)
    upstreams: Upstreams = field(default_factory=Upstreams)
    arrays: dict[str, NDArray[Any]] = field(init=False)
    _looks: NDArray[np.int64] = field(init=False)
    _asked: tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        self.keys = Keys(self.keys_max, spec.window.ttl_us, spec.own_time)
        self._looks = np.array(spec.window.looks, np.int64)
        quantiles = np.full((len(spec.needs), max(map(len, spec.quantiles), default=0)), np.nan)
        for column, asked in enumerate(spec.quantiles):
            quantiles[column, : len(asked)] = asked
        self._asked = np.array(spec.needs, np.uint8), quantiles, np.array(spec.matrices, np.int64)
        self.arrays = self._empty_arrays()

    def _empty_arrays(self) -> dict[str, NDArray[Any]]:
        spec, capacity = self.spec, min(FIRST_CAPACITY, self.keys_max)
        return {
            "seen": np.zeros(capacity, np.int64),
            "start": np.zeros(capacity if spec.window.by_time else 0, np.int64),
            "ring": np.zeros((capacity, len(spec.fields), spec.window.samples)),
            "ring_t": np.zeros((capacity, spec.window.samples if spec.keeps_time else 0), np.int64),
        }

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def watermark(self) -> int:
        """Largest event time admitted or ticked, microseconds; `upstreams.NEVER` at first."""
        return self.keys.watermark

    def advance(
        self, keys: list[bytes], times: NDArray[np.int64], values: NDArray[np.float64], rows: NDArray[np.int64], results: Results
    ) -> tuple[Delta, int]:
        """The live way: find slots for rows of this partition and apply what follows from them.

        Args:
            keys: (n,).
            times: (n,) event times, microseconds.
            values: (fields, n) samples.
            rows: (n,) places of the rows in `results`.
            results: where it is written what each event's window came to.

        Returns:
            What was applied, and how many windows lost samples that were still inside their span.
        """
        admission = self.keys.admit(keys, times)
        delta, done = admission.delta(times, values), len(admission.slots)
        truncated = self.apply(delta, rows[:done], results)
        if done == len(keys):
            return delta, truncated
        deltas = [delta]
        while done < len(keys):
            admission = self.keys.admit(keys[done:], times[done:])
            deltas.append(admission.delta(times[done:], values[:, done:]))
            start, done = done, done + len(admission.slots)
            truncated += self.apply(deltas[-1], rows[start:done], results)
        return merge(deltas, len(self.spec.fields)), truncated

    def tick(self, time_us: int) -> Delta:
        """The watermark advances; returns what was applied."""
        values = np.zeros((len(self.spec.fields), 1))
        delta = Delta(NO_NAMES, np.array([TICK], np.int32), np.array([time_us], np.int64), values)
        self.apply(delta)
        return delta

    def apply(self, delta: Delta, rows: NDArray[np.int64] = _NO_ROWS, results: Results | None = None) -> int:
        """Carry operations out; with `rows` and `results` also write what each event's window came to.

        Args:
            delta: what enters.
            rows: places of the delta's samples in `results`, in order.
            results: where they go.

        Returns:
            How many windows lost samples that were still inside their span.
        """
        self.upstreams.apply(delta.upstreams)
        truncated = start = written = 0
        while start < len(delta.slots):
            end, samples, emptied = self.keys.enter(delta, start)
            self._grow(len(self.keys))
            if len(emptied):
                self._empty(emptied)
            if samples == len(delta.slots):
                return self._roll(delta.slots, delta.times, delta.values, rows, results or _NOWHERE)
            part = _samples(delta, start, end)
            truncated += self._roll(*part, rows[written : written + samples], results or _NOWHERE)
            start, written = end, written + samples
        return truncated

    def _roll(
        self, slots: NDArray[np.int32], times: NDArray[np.int64], values: NDArray[np.float64], rows: NDArray[np.int64],
        room: Results,
    ) -> int:  # fmt: skip
        seen, start, ring, ring_t = (self.arrays[name] for name in ("seen", "start", "ring", "ring_t"))
        if self.spec.window.by_time:
            truncated: int = kernels.roll_by_time(
                slots, times, values, rows, self._looks, start, seen,
                ring, ring_t, *self._asked, room.count, room.span_us, room.aggregates, room.matrix,
            )  # fmt: skip
            return truncated
        kernels.roll_by_count(
            slots, times, values, rows, self._looks, seen,
            ring, ring_t, *self._asked, room.count, room.span_us, room.aggregates, room.matrix,
        )  # fmt: skip
        return 0

    def _empty(self, slots: NDArray[np.int32]) -> None:
        for array in self.arrays.values():
            if len(array):
                array[slots] = 0

    def expect(self, new_keys: Names, share: float) -> None:
        """Have room for the whole way, if its rest brings as many keys as this share of it did with these.

        Growing step by step copies, and touches, everything again and again; room that stays empty is never touched.
        """
        if len(self) + len(new_keys) <= self.keys.capacity:
            return
        keys = min(round((len(self) + len(new_keys)) / share * _ROOM_TO_SPARE), self.keys_max)
        self.keys.reserve(keys)
        self.keys.index.have_text(max(keys - len(self), 0) * len(new_keys.data) // len(new_keys))
        self._grow(keys)

    def _grow(self, keys: int) -> None:
        capacity = max(map(len, self.arrays.values()))
        if keys <= capacity:
            return
        self.arrays = _moved(self.arrays, grown_capacity(capacity, keys, self.keys_max))

    def dump(self) -> Dump:
        """Everything there is to know, copied."""
        used = len(self.keys)
        arrays = _moved({name: array[:used] for name, array in self.arrays.items()}, used)
        return Dump(self.keys.index.names(), self.keys.dump() | arrays | {"upstreams": self.upstreams.table.copy()})

    def load(self, dump: Dump) -> None:
        """Become what was dumped, by a store of the same spec; what was here is gone.

        Raises:
            Damaged: no store of this spec dumped that.
        """
        self._check(dump)
        self.upstreams = Upstreams(dump.arrays["upstreams"].copy())
        self.keys.load(dump.keys, dump.arrays, self.upstreams.latest)
        self.arrays = self._empty_arrays()
        if len(dump.keys):
            rows = max(len(dump.keys), *map(len, self.arrays.values()))
            self.arrays = _moved({name: dump.arrays[name] for name in self.arrays}, rows)

    def _check(self, dump: Dump) -> None:
        keys, lines = len(dump.keys), size_of(dump.arrays, "upstreams") // 3
        own = {name: shape_of(array, keys if len(array) else 0) for name, array in self._empty_arrays().items()}
        check_arrays(dump.arrays, own | self.keys.shapes(keys, dump.arrays) | {"upstreams": ("<i8", (lines, 3))})
        check_names(dump.keys)
        check_lines(dump.arrays["upstreams"])
        self._check_places(dump.arrays)

    def _check_places(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """What says where samples lie, and how many, must not lead out of the rings."""
        size = self.spec.window.samples
        held = size if len(arrays["start"]) else NUMBER_MAX
        if not (within(arrays["seen"], 0, held) and within(arrays["start"], 0, size - 1)):
            raise Damaged("its samples lie where there is no room for them")

    def samples(self, key: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Event times (n,) (empty where not kept) and samples (fields, n) of a key, oldest first; None if unknown."""
        slot = self.keys.index.slot(key)
        if slot is None:
            return None
        size, seen = self.spec.window.samples, int(self.arrays["seen"][slot])
        n = min(seen, size)
        start = int(self.arrays["start"][slot]) if len(self.arrays["start"]) else (seen % size if n == size else 0)
        order = (start + np.arange(n)) % size
        times = self.arrays["ring_t"][slot][order] if self.spec.keeps_time else np.empty(0, np.int64)
        return times, self.arrays["ring"][slot][:, order]


def _moved(arrays: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
    """The windows in new arrays of so many rows; samples that lie anywhere in a ring come to lie at its beginning.

    A ring has room for as many samples as a key may have. Most keys have few: copied whole, it would cost its full size.
    """
    if not len(arrays.get("start", ())):
        return {name: grown(array, rows) if len(array) else array for name, array in arrays.items()}
    ring, ring_t = arrays["ring"], arrays["ring_t"]
    moved = {"seen": grown(arrays["seen"], rows), "start": np.zeros(rows, np.int64)}
    moved |= {"ring": np.zeros((rows, *ring.shape[1:])), "ring_t": np.zeros((rows, ring_t.shape[1]), np.int64)}
    kernels.straighten(arrays["start"], arrays["seen"], ring, ring_t, moved["ring"], moved["ring_t"])
    return moved


def _samples(delta: Delta, start: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]:
    """Slots, times and values of the samples among rows `start` to `end`."""
    kept = start + np.flatnonzero(delta.slots[start:end] >= 0)
    # Columns picked from a matrix come back column by column; the kernels take them row by row.
    return delta.slots[kept], delta.times[kept], np.ascontiguousarray(delta.values[:, kept])


_NOWHERE = Results(np.empty((0, 0), np.int64), np.empty((0, 0), np.int64), np.empty((0, 0, 0)), np.empty((0, 0, 0)))
