"""Shape of the state of a join: streams, what is kept of each, and which looks answer what a feature function asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from streamer.operators.aggregates import NEED_GAPS, NEED_MATRIX, request_bits
from streamer.operators.explained import listed
from streamer.operators.join.rows import HIDDEN, OFFSET
from streamer.state.bounds import Damaged, check_names, within
from streamer.state.delta import Delta
from streamer.state.keyed_store import KEY_OVERHEAD_BYTES
from streamer.topology.joins import FAR, UNREAD, Join, JoinWindow
from streamer.topology.rolling import Rolling
from streamer.topology.view import Requested


def marked(fields: Sequence[str], nullable: frozenset[str]) -> str:
    """Fields, with a question mark behind those that samples may be without: to who knows no such ones, NaN is a deleted row."""
    return ",".join(name + ("?" if name in nullable else "") for name in fields)


@dataclass(frozen=True, slots=True)
class Stream:
    """One input: the source (the first of them) or another.

    Attributes:
        topic: where it comes from.
        fields: kept in its ring.
        nullable: fields of its events that may be null, kept or not.
        samples: most of them kept for a key; 0 for a source without a window.
        sights: the looks at it.
        needs: what each of them is asked, in the same order.
    """

    topic: str
    fields: tuple[str, ...]
    samples: int
    sights: tuple[JoinWindow, ...]
    needs: tuple[Requested, ...]
    nullable: frozenset[str] = field(default=frozenset(), kw_only=True)

    @staticmethod
    def source(topic: str, window: Rolling | None, needs: Requested) -> "Stream":
        """The source with its own window."""
        if window is None:
            return Stream(topic, (), 0, (), (), nullable=needs.nullable)
        sights = tuple(
            JoinWindow(name, 1 - look, 0) if window.by_time else JoinWindow(name, -FAR, 0, newest_only=look)
            for name, look in zip(window.names, window.looks, strict=True)
        )
        fields = tuple(sorted(needs.window_fields()))
        return Stream(topic, fields, window.samples, sights, (needs, *needs.further), nullable=needs.nullable)

    @staticmethod
    def joined(topic: str, join: Join, needs: Requested) -> "Stream":
        """Another stream."""
        fields = tuple(sorted(needs.window_fields()))
        # The first field of a table tells whether there is a row: one that is always there, even where nothing else is read.
        if join.table and (not fields or not needs.nullable.isdisjoint(fields)):
            fields = (UNREAD, *fields)
        return Stream(topic, fields, join.samples, join.sights, (needs, *needs.further), nullable=needs.nullable)

    @property
    def read(self) -> tuple[str, ...]:
        """The fields that events have."""
        return tuple(name for name in self.fields if name != UNREAD)

    @property
    def marked(self) -> str:
        """The fields, as a fingerprint says them."""
        return marked(self.fields, self.nullable)

    @property
    def lead_us(self) -> int:
        """How much earlier than its own time a sample may be seen."""
        return max((sight.end_us for sight in self.sights), default=0)

    @property
    def lookback_us(self) -> int:
        """Where the earliest look begins, relative to a row; FAR where only counts are looked at."""
        return min((sight.begin_us for sight in self.sights if sight.newest_only == 0), default=FAR)


@dataclass(frozen=True, slots=True)
class JoinSpec:
    """What the store of a join is made from.

    Attributes:
        streams: the source first.
        columns: fields of the source's rows that wait with them; numbers, NaN where one that may be null has no value.
        out_of_order_us: how far out of order rows may be.
    """

    streams: tuple[Stream, ...]
    columns: tuple[str, ...]
    out_of_order_us: int
    kind: ClassVar[str] = "join"
    bounded_by: ClassVar[str] = "keys_max"
    advances_watermark: ClassVar[bool] = False
    closes: ClassVar[bool] = False
    closes_in_silence: ClassVar[bool] = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Rows of a delta's values: what is hidden, and the widest stream's fields."""
        width = max(len(self.columns), *(len(stream.fields) for stream in self.streams))
        return ("stream", "offset", "timestamp_ms", *(f"field {n}" for n in range(width)))

    @property
    def told(self) -> str:
        """What is kept of a key, in words."""
        return "; ".join(f"up to {s.samples:,} of {s.topic} with {listed(s.read or s.fields)}" for s in self.streams if s.samples)

    @property
    def ahead_us(self) -> int:
        """How long after its own time the last sample may come that a row sees."""
        return max(0, *(stream.lead_us for stream in self.streams)) + self.out_of_order_us

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        streams = "; ".join(f"{s.topic}/{s.samples}/{s.lead_us}/{s.lookback_us}/{s.marked}" for s in self.streams)
        return f"join/{self.out_of_order_us}/{marked(self.columns, self.streams[0].nullable)}: {streams}"

    def check(self, delta: Delta) -> None:
        """Whether operations may be of a store of this shape, whatever it holds.

        Raises:
            Damaged: they may not.
        """
        check_names(delta.new_keys)
        streams = delta.values[0]
        if not within(streams, 0, len(self.streams) - 1) or (streams != np.floor(streams)).any():
            raise Damaged("a row is of a stream that there is not")

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key, without rows that wait."""
        return KEY_OVERHEAD_BYTES + sum(8 * s.samples * (1 + len(s.fields)) + 24 for s in self.streams)

    def widths(self) -> NDArray[np.int64]:
        """Values of a row in the queue of each stream."""
        return np.array([HIDDEN - OFFSET + len(self.columns), *(len(s.fields) for s in self.streams[1:])], np.int64)

    def layout(self) -> NDArray[np.int64]:
        """Samples, fields, first place in ring_t and in ring, of each stream."""
        rows, t_base, base = [], 0, 0
        for stream in self.streams:
            rows.append((stream.samples, len(stream.fields), t_base, base))
            t_base += stream.samples
            base += stream.samples * len(stream.fields)
        return np.array(rows, np.int64)

    def own(self) -> NDArray[np.int64]:
        """Where the fields of the source's window stand among the values of its rows."""
        return np.array([HIDDEN - OFFSET + self.columns.index(name) for name in self.streams[0].fields], np.int64)

    def looks(self) -> "Lookbacks":
        """The looks as the kernels take them."""
        return Lookbacks.of(self.streams)


@dataclass(frozen=True, slots=True)
class Lookbacks:
    """The looks of all streams, one column per look and field.

    Attributes:
        table: (looks, 5) stream, begin, end, most, first column.
        needs: (columns,) NEED_ bits.
        quantiles: (columns, q), NaN where a column has fewer.
        places: (columns,) which matrix a column fills, or -1.
        first: (topic, place of the sight) -> look.
    """

    table: NDArray[np.int64]
    needs: NDArray[np.uint8]
    quantiles: NDArray[np.float64]
    places: NDArray[np.int64]
    first: Mapping[tuple[str, int], int]

    @staticmethod
    def of(streams: Sequence[Stream]) -> "Lookbacks":
        """Lay them out."""
        rows: list[tuple[int, ...]] = []
        bits: list[int] = []
        asked: list[list[float]] = []
        first = {}
        for number, stream in enumerate(streams):
            for place, (sight, needs) in enumerate(zip(stream.sights, stream.needs, strict=True)):
                first[stream.topic, place] = len(rows)
                rows.append((number, sight.begin_us, sight.end_us, sight.newest_only, len(bits)))
                bits += [request_bits(name, needs) for name in stream.fields]
                asked += [sorted(q for f, q in needs.quantiles if f == name) for name in stream.fields]
        quantiles = np.full((len(asked), max(map(len, asked), default=0)), np.nan)
        for column, wanted in enumerate(asked):
            quantiles[column, : len(wanted)] = wanted
        wide = np.array([bool(b & NEED_MATRIX) for b in bits], np.bool_)
        places = np.where(wide, np.cumsum(wide) - 1, -1).astype(np.int64)
        table = np.array(rows, np.int64).reshape(len(rows), 5)
        return Lookbacks(table, np.array(bits, np.uint8), quantiles, places, first)

    @property
    def gaps(self) -> bool:
        """Whether samples may be without a value."""
        return bool((self.needs & NEED_GAPS).any())

    @property
    def matrices(self) -> int:
        """How many columns are wanted sample by sample."""
        return int(self.places.max(initial=-1)) + 1
