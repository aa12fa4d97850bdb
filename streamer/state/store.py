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
        needs: (fields,) bits of `kernels.NEED_*`.
        keeps_time: whether event times are kept beside the samples.
    """

    window: Rolling
    fields: tuple[str, ...]
    needs: tuple[int, ...]
    keeps_time: bool

    @staticmethod
    def of(window: Rolling, needs: Needs) -> "StoreSpec":
        """The smallest store that answers what a feature function needs."""
        fields = tuple(sorted(needs.window_fields()))
        return StoreSpec(
            window,
            fields,
            tuple(_bits(name, needs) for name in fields),
            window.by_time or any(aggregate == "rate" for _, aggregate in needs.aggregates),
        )

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key."""
        columns = len(self.fields) + self.keeps_time
        return self.window.samples * columns * 8 + KEY_OVERHEAD_BYTES

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        window = self.window
        return f"rolling/{window.samples}/{window.span_us}/{','.join(self.fields)}"


def _bits(name: str, needs: Needs) -> int:
    wanted = {aggregate for f, aggregate in needs.aggregates if f == name}
    bits = kernels.NEED_SUM if wanted & {"sum", "mean"} else 0
    bits |= kernels.NEED_STD if "std" in wanted else 0
    bits |= kernels.NEED_RANGE if wanted & {"min", "max"} else 0
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
        count: (rows,) samples in the window.
        span_us: (rows,) event time between oldest and newest sample.
        aggregates: (fields, kernels.AGGREGATE_ROWS, rows).
        matrix: (fields, rows, samples), or empty when nobody asked.
    """

    count: NDArray[np.int64]
    span_us: NDArray[np.int64]
    aggregates: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @staticmethod
    def empty(spec: StoreSpec, rows: int) -> "Results":
        """Room for the results of `rows` events."""
        fields = len(spec.fields)
        wide = any(bits & kernels.NEED_MATRIX for bits in spec.needs)
        shape = (fields, rows, spec.window.samples) if wide else (0, 0, 0)
        return Results(
            np.zeros(rows, np.int64),
            np.zeros(rows, np.int64),
            np.zeros((fields, kernels.AGGREGATE_ROWS, rows)),
            np.full(shape, np.nan),
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
    _needs: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        spec, capacity = self.spec, min(_FIRST_CAPACITY, self.keys_max)
        self._needs = np.array(spec.needs, np.uint8)
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
                delta.slots, delta.times, delta.values, rows, self.spec.window.span_us, self._start, self._seen,
                self._ring, self._ring_t, self._needs, room.count, room.span_us, room.aggregates, room.matrix,
            )  # fmt: skip
            return truncated
        kernels.roll_by_count(
            delta.slots, delta.times, delta.values, rows, self._seen,
            self._ring, self._ring_t, self._needs, room.count, room.span_us, room.aggregates, room.matrix,
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


_NOWHERE = Results(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 0, 0)), np.empty((0, 0, 0)))
