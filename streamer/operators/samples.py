"""Stores that keep the samples of each key in a ring: their shape, what they have in common, and what windows come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from streamer.operators.aggregates import AGGREGATE_ROWS, GAP_ROWS, NEED_GAPS, NEED_MATRIX, Ask, request_bits
from streamer.operators.explained import listed
from streamer.operators.rings import straighten
from streamer.state.bounds import NUMBER_MAX, Damaged, check_names, within
from streamer.state.bytes_column import NO_BYTES
from streamer.state.delta import TICK, Delta
from streamer.state.growth import grown
from streamer.state.keyed_store import FIRST_CAPACITY, KEY_OVERHEAD_BYTES, KeyedStore
from streamer.state.keys import Keys
from streamer.topology.closing import Closing
from streamer.topology.rolling import Rolling
from streamer.topology.view import Requested


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """Shape of a store: which fields are kept, in which window, and what is asked of each.

    Attributes:
        window: the window.
        fields: fields whose samples are kept, in order.
        needs: bits of `aggregates.NEED_*` per column, which is a look-back and a field: look * fields + field.
        quantiles: asked of each column.
        keeps_time: whether event times are kept beside the samples.
        own_time: whether samples advance the watermark, and not ticks alone (as where several inputs meet).
    """

    window: Rolling | Closing
    fields: tuple[str, ...]
    needs: tuple[int, ...]
    quantiles: tuple[tuple[float, ...], ...]
    keeps_time: bool
    advances_watermark: bool = True
    bounded_by: ClassVar[str] = "keys_max"

    @classmethod
    def of(cls, window: Any, needs: Requested) -> Self:
        """The smallest store that answers what a feature function needs of a window of this kind."""
        fields, looks = tuple(sorted(needs.window_fields())), (needs, *needs.further)
        columns = [(name, look) for look in looks for name in fields]
        asked = tuple(request_bits(name, look) for name, look in columns)
        quantiles = tuple(tuple(sorted(q for f, q in look.quantiles if f == name)) for name, look in columns)
        rates = any(aggregate == "rate" for look in looks for _, aggregate in look.aggregates)
        keeps_time = rates or cls._sorted_by_time(window)
        return cls(window=window, fields=fields, needs=asked, quantiles=quantiles, keeps_time=keeps_time)

    @classmethod
    def _sorted_by_time(cls, window: Any) -> bool:  # noqa: ARG003 - other kinds ask it
        """Whether samples lie by event time."""
        return True

    @property
    def closes(self) -> bool:
        """Whether windows are slices of time that close."""
        return False

    @property
    def closes_in_silence(self) -> bool:
        """Whether windows close when an input has nothing more to read."""
        return False

    @property
    def gaps(self) -> bool:
        """Whether samples may be without a value."""
        return any(bits & NEED_GAPS for bits in self.needs)

    @property
    def marked(self) -> str:
        """The fields, with a question mark behind those that samples may be without: NaN in a store of others is damage."""
        return ",".join(name + ("?" if bits & NEED_GAPS else "") for name, bits in zip(self.fields, self.needs, strict=False))

    @property
    def told(self) -> str:
        """What is kept of a key, in words."""
        return f"up to {self.window.samples:,} samples of {listed(self.fields)}"

    def column(self, look: int, name: str) -> int:
        """Where the results of a field over a look-back stand."""
        return look * len(self.fields) + self.fields.index(name)

    def quantile_row(self, column: int, q: float) -> int:
        """Where a quantile stands in its column's block of aggregates."""
        return AGGREGATE_ROWS + self.quantiles[column].index(q)

    @property
    def matrices(self) -> tuple[int, ...]:
        """Which matrix each column fills; columns whose samples nobody wants fill none and say -1."""
        places, wide = [], 0
        for bits in self.needs:
            places.append(wide if bits & NEED_MATRIX else -1)
            wide += bits & NEED_MATRIX > 0
        return tuple(places)

    @property
    def ring_bytes(self) -> int:
        """Memory of the samples of a key, and of what every key costs."""
        columns = len(self.fields) + self.keeps_time
        return self.window.samples * columns * 8 + KEY_OVERHEAD_BYTES

    def check(self, delta: Delta) -> None:
        """Whether operations may be of a store of this shape, whatever it holds.

        Raises:
            Damaged: they may not.
        """
        check_names(delta.new_keys)


@dataclass(slots=True)
class Results:
    """What the windows of one batch came to, filled partition by partition.

    Attributes:
        count: (looks, rows) samples in the window.
        span_us: (looks, rows) event time between oldest and newest sample.
        aggregates: (columns, AGGREGATE_ROWS and one more for each quantile, and GAP_ROWS where there are gaps, rows).
        matrix: (matrices, rows, samples), one for each column whose samples are wanted; see `SampleSpec.matrices`.
    """

    count: NDArray[np.int64]
    span_us: NDArray[np.int64]
    aggregates: NDArray[np.float64]
    matrix: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> "Results":
        """Of these rows, in this order."""
        return Results(self.count[:, rows], self.span_us[:, rows], self.aggregates[:, :, rows], self.matrix[:, rows])

    @staticmethod
    def empty(spec: SampleSpec, rows: int) -> "Results":
        """Room for the results of `rows` events."""
        looks, block = len(spec.window.looks), AGGREGATE_ROWS + max(map(len, spec.quantiles), default=0)
        block += GAP_ROWS if spec.gaps else 0
        return Results(
            np.zeros((looks, rows), np.int64),
            np.zeros((looks, rows), np.int64),
            np.zeros((len(spec.needs), block, rows)),
            np.full((max(spec.matrices, default=-1) + 1, rows, spec.window.samples), np.nan),
        )


class SampleStore(KeyedStore):
    """Rings of all keys of one partition: `seen` samples, of which the first lies at `start` where that is kept.

    Args:
        spec: its shape.
        keys_max: slots there are; beyond, the key seen longest ago goes.
        ttl_us: a key that is not seen for so long goes too; 0 for never.

    Attributes:
        asked: of each column, as the kernels take it.
    """

    def __init__(self, spec: SampleSpec, keys_max: int, ttl_us: int = 0) -> None:
        self.spec: Any = spec
        self.keys_max = keys_max
        quantiles = np.full((len(spec.needs), max(map(len, spec.quantiles), default=0)), np.nan)
        for column, wanted in enumerate(spec.quantiles):
            quantiles[column, : len(wanted)] = wanted
        self.asked = Ask(np.array(spec.needs, np.uint8), quantiles, np.array(spec.matrices, np.int64))
        super().__init__(Keys(most=keys_max, ttl_us=ttl_us, advances_watermark=spec.advances_watermark))

    def _empty_arrays(self) -> dict[str, NDArray[Any]]:
        spec, capacity = self.spec, min(FIRST_CAPACITY, self.keys_max)
        return {
            "seen": np.zeros(capacity, np.int64),
            "start": np.zeros(capacity if self._wraps else 0, np.int64),
            "ring": self._room((capacity, len(spec.fields), spec.window.samples)),
            "ring_t": self._room((capacity, spec.window.samples if spec.keeps_time else 0), np.int64),
        }

    def _room(self, shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
        """Zeros for samples."""
        return np.zeros(shape, dtype)

    @property
    def _wraps(self) -> bool:
        """Whether the oldest sample may lie anywhere, and not only where the next one will."""
        return True

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that `samples` gives."""
        fields: tuple[str, ...] = self.spec.fields
        return fields

    def _moved(self, arrays: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
        """In new arrays; samples that lie anywhere in a ring come to lie at its beginning.

        A ring has room for as many samples as a key may have. Most keys have few: copied whole, it would cost its full size.
        """
        if not len(arrays.get("start", ())):
            return super()._moved(arrays, rows)
        ring, ring_t = arrays["ring"], arrays["ring_t"]
        moved = {"seen": grown(arrays["seen"], rows), "start": np.zeros(rows, np.int64)}
        moved |= {"ring": self._room((rows, *ring.shape[1:])), "ring_t": self._room((rows, ring_t.shape[1]), np.int64)}
        straighten(arrays["start"], arrays["seen"], ring, ring_t, moved["ring"], moved["ring_t"])
        return moved

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


def tick_of(spec: SampleSpec, time_us: int) -> Delta:
    """A delta in which nothing but time moves."""
    return Delta(NO_BYTES, np.array([TICK], np.int32), np.array([time_us], np.int64), np.zeros((len(spec.fields), 1)))
