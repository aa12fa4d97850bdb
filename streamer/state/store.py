"""The windows of one stage and partition: keys in slots, samples in arrays. Moved and rebuilt as one thing."""

from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.state import kernels
from streamer.windows import Needs, Rolling

# A key costs its samples plus: dict entry, key bytes and counters, measured at 100,000 keys of 12 bytes.
KEY_OVERHEAD_BYTES = 220
_FIRST_CAPACITY = 256


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """Shape of a store: which fields are kept, in which window, and what is asked of each.

    Attributes:
        window: the window.
        fields: fields whose samples are kept, in order.
        needs: bits of `kernels.NEED_*` per column, which is a look-back and a field: look * fields + field.
        quantiles: asked of each column.
        keeps_time: whether event times are kept beside the samples.
    """

    window: Rolling
    fields: tuple[str, ...]
    needs: tuple[int, ...]
    quantiles: tuple[tuple[float, ...], ...]
    keeps_time: bool

    @staticmethod
    def of(window: Rolling, needs: Needs) -> "StoreSpec":
        """The smallest store that answers what a feature function needs."""
        fields, looks = tuple(sorted(needs.window_fields())), (needs, *needs.further)
        columns = [(name, look) for look in looks for name in fields]
        return StoreSpec(
            window,
            fields,
            tuple(_bits(name, look) for name, look in columns),
            tuple(tuple(sorted(q for f, q in look.quantiles if f == name)) for name, look in columns),
            window.by_time or any(aggregate == "rate" for look in looks for _, aggregate in look.aggregates),
        )

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
        return self.window.samples * columns * 8 + KEY_OVERHEAD_BYTES

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        window = self.window
        spans = "+".join(map(str, window.looks)) if window.by_time else "0"
        return f"rolling/{window.samples}/{spans}/{','.join(self.fields)}"


def _bits(name: str, needs: Needs) -> int:
    """What one look-back is asked of a field."""
    wanted = {aggregate for f, aggregate in needs.aggregates if f == name}
    bits = kernels.NEED_SUM if wanted & {"sum", "mean"} else 0
    bits |= kernels.NEED_STD if "std" in wanted else 0
    bits |= kernels.NEED_RANGE if wanted & {"min", "max"} else 0
    bits |= kernels.NEED_FIRST if wanted & {"first", "delta", "rate"} else 0
    bits |= kernels.NEED_ORDER if "distinct" in wanted or any(f == name for f, _ in needs.quantiles) else 0
    return bits | (kernels.NEED_MATRIX if name in needs.matrices else 0)


@dataclass(slots=True)
class Delta:
    """What entered a store: the columns the changelog keeps, and all that is needed to advance it.

    Attributes:
        new_keys: keys seen for the first time; they take the next slots in this order.
        slots: (n,) int32.
        times: (n,) int64 event times, microseconds.
        values: (fields, n) float64.
    """

    new_keys: list[bytes]
    slots: NDArray[np.int32]
    times: NDArray[np.int64]
    values: NDArray[np.float64]


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


_NO_ROWS = np.empty(0, np.int64)


@dataclass(slots=True)
class Store:
    """Windows of all keys of one partition. `apply` is the only way its state changes, live and in a restore."""

    spec: StoreSpec
    keys_max: int
    _slots: dict[bytes, int] = field(default_factory=dict)
    _seen: NDArray[np.int64] = field(init=False)
    _start: NDArray[np.int64] = field(init=False)
    _ring: NDArray[np.float64] = field(init=False)
    _ring_t: NDArray[np.int64] = field(init=False)
    _looks: NDArray[np.int64] = field(init=False)
    _asked: tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        spec, capacity = self.spec, min(_FIRST_CAPACITY, self.keys_max)
        self._looks = np.array(spec.window.looks, np.int64)
        quantiles = np.full((len(spec.needs), max(map(len, spec.quantiles), default=0)), np.nan)
        for column, asked in enumerate(spec.quantiles):
            quantiles[column, : len(asked)] = asked
        self._asked = np.array(spec.needs, np.uint8), quantiles, np.array(spec.matrices, np.int64)
        self._seen = np.zeros(capacity, np.int64)
        self._start = np.zeros(capacity if spec.window.by_time else 0, np.int64)
        self._ring = np.zeros((capacity, len(spec.fields), spec.window.samples))
        self._ring_t = np.zeros((capacity, spec.window.samples if spec.keeps_time else 0), np.int64)

    def __len__(self) -> int:
        return len(self._slots)

    def address(self, keys: list[bytes], room: int) -> tuple[NDArray[np.int32], list[bytes]]:
        """Slots of these keys, and the keys that are new, in the order of their slots; changes nothing.

        At most `room` keys may be new: a further one gets slot -1, and its rows must be refused.
        """
        slots = np.fromiter(map(self._slots.get, keys, repeat(-1)), np.int32, len(keys))
        fresh: dict[bytes, int] = {}
        for row in np.flatnonzero(slots < 0).tolist():
            slot = fresh.get(keys[row], -1)
            if slot < 0 and len(fresh) < room:
                slot = fresh[keys[row]] = len(self._slots) + len(fresh)
            slots[row] = slot
        return slots, list(fresh)

    def apply(self, delta: Delta, rows: NDArray[np.int64] = _NO_ROWS, results: Results | None = None) -> int:
        """Advance the windows; with `rows` and `results` also write what each event's window came to.

        Args:
            delta: what enters.
            rows: (n,) places of the delta's rows in `results`.
            results: where they go.

        Returns:
            How many windows lost samples that were still inside their span.
        """
        for key in delta.new_keys:
            self._slots[key] = len(self._slots)
        self._grow(len(self._slots))
        room = results or _NOWHERE
        if self.spec.window.by_time:
            truncated: int = kernels.roll_by_time(
                delta.slots, delta.times, delta.values, rows, self._looks, self._start, self._seen,
                self._ring, self._ring_t, *self._asked, room.count, room.span_us, room.aggregates, room.matrix,
            )  # fmt: skip
            return truncated
        kernels.roll_by_count(
            delta.slots, delta.times, delta.values, rows, self._looks, self._seen,
            self._ring, self._ring_t, *self._asked, room.count, room.span_us, room.aggregates, room.matrix,
        )  # fmt: skip
        return 0

    def _grow(self, keys: int) -> None:
        capacity = self._seen.shape[0]
        if keys <= capacity:
            return
        capacity = min(max(2 * capacity, keys), max(self.keys_max, keys))
        self._seen = _grown(self._seen, capacity)
        self._ring = _grown(self._ring, capacity)
        self._ring_t = _grown(self._ring_t, capacity)
        if self.spec.window.by_time:
            self._start = _grown(self._start, capacity)

    def samples(self, key: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Event times (n,) (empty where not kept) and samples (fields, n) of a key, oldest first; None if unknown."""
        slot = self._slots.get(key)
        if slot is None:
            return None
        size, seen = self.spec.window.samples, int(self._seen[slot])
        n = min(seen, size)
        start = int(self._start[slot]) if self.spec.window.by_time else (seen % size if n == size else 0)
        order = (start + np.arange(n)) % size
        times = self._ring_t[slot][order] if self.spec.keeps_time else np.empty(0, np.int64)
        return times, self._ring[slot][:, order]


def _grown(array: NDArray[Any], rows: int) -> NDArray[Any]:
    grown = np.zeros((rows, *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return grown


_NOWHERE = Results(np.empty((0, 0), np.int64), np.empty((0, 0), np.int64), np.empty((0, 0, 0)), np.empty((0, 0, 0)))
