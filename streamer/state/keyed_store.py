"""State by key: what changelog, snapshots and restore ask of a store whatever it keeps, and what most stores have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from streamer.state.bounds import check_arrays, check_lines, check_names, shape_of, size_of
from streamer.state.bytes_column import BytesColumn
from streamer.state.delta import Delta
from streamer.state.growth import grown, grown_capacity
from streamer.state.keys import Keys
from streamer.state.watermarks import SourceWatermarks

# A key costs its samples plus: name, entry in the index and counters; measured at 100,000 keys of 36 bytes, as of a UUID.
KEY_OVERHEAD_BYTES = 112
FIRST_CAPACITY = 256
# An estimate that is a little short would have everything copied near the end.
_ROOM_TO_SPARE = 1.1


class Shape(Protocol):
    """What a store keeps, before there is one."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns of a row of the changelog."""

    @property
    def fingerprint(self) -> str:
        """Changes when what is kept would be read as something else."""

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key."""

    @property
    def bounded_by(self) -> str:
        """The setting that says how many there are of a partition at most."""

    def check(self, delta: Delta) -> None:
        """Refuse what cannot be of this shape."""


@dataclass(frozen=True, slots=True)
class Dump:
    """Everything a store holds, copied; equal dumps mean equal states, bit for bit.

    Attributes:
        keys: by slot.
        arrays: the rest, by name, cut to the slots in use.
        deletes: whether rows of a table are deleted in it.
    """

    keys: BytesColumn
    arrays: dict[str, NDArray[Any]]
    deletes: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dump) and self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self.keys)

    def _comparable(self) -> tuple[object, ...]:
        return self.keys, {name: (array.dtype, array.shape, array.tobytes()) for name, array in self.arrays.items()}


class StateStore(Protocol):
    """The state of one partition. `apply` is the only way it changes; `dump` and `load` are all of it."""

    @property
    def spec(self) -> Shape:
        """Its shape."""

    def __len__(self) -> int:
        """Live keys."""

    def expect(self, new_keys: BytesColumn, share: float) -> None:
        """Make room for the keys of a whole restore, of which these are that share."""

    def apply(self, delta: Delta) -> object:
        """Change as the rows and ticks of a commit say."""

    def dump(self) -> Dump:
        """All of it, as arrays."""

    def load(self, dump: Dump) -> None:
        """Become what was dumped."""


class KeyedStore(ABC):
    """Keys in slots, and arrays with a row for each slot. What rows do to them is up to the store that has them.

    Args:
        keys: who holds which slot.

    Attributes:
        keys: who holds which slot.
        upstreams: in a re-keyed flow, how far the partitions of the source have come.
        arrays: by name, one row a slot.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.upstreams = SourceWatermarks()
        self.arrays = self._empty_arrays()

    @abstractmethod
    def _empty_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays of a store that holds nothing yet; one without a row is not used."""

    def _moved(self, arrays: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
        """The same in new arrays of so many rows."""
        return {name: grown(array, rows) if len(array) else array for name, array in arrays.items()}

    @abstractmethod
    def _check_places(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Refuse dumped arrays whose numbers would lead out of other arrays."""

    @abstractmethod
    def apply(self, delta: Delta) -> object:
        """The only way the state changes, live and in a restore."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def watermark(self) -> int:
        """Largest event time admitted or ticked, microseconds; `watermarks.NO_TIME` at first."""
        return self.keys.watermark

    def expect(self, new_keys: BytesColumn, share: float) -> None:
        """Have room for the whole way, if its rest brings as many keys as this share of it did with these.

        Growing step by step copies, and touches, everything again and again; room that stays empty is never touched.
        """
        if len(self) + len(new_keys) <= self.keys.capacity:
            return
        keys = min(round((len(self) + len(new_keys)) / share * _ROOM_TO_SPARE), self.keys.most)
        self.keys.reserve(keys)
        self.keys.index.have_text(max(keys - len(self), 0) * len(new_keys.data) // len(new_keys))
        self._grow(keys)

    def _grow(self, keys: int) -> None:
        capacity = max(map(len, self.arrays.values()))
        if keys > capacity:
            self.arrays = self._moved(self.arrays, grown_capacity(capacity, keys, self.keys.most))

    def dump(self) -> Dump:
        """Everything there is to know, copied."""
        used = len(self.keys)
        arrays = self._moved({name: array[:used] for name, array in self.arrays.items()}, used)
        return Dump(self.keys.index.names(), self.keys.dump() | arrays | {"upstreams": self.upstreams.table.copy()})

    def load(self, dump: Dump) -> None:
        """Become what was dumped, by a store of the same spec; what was here is gone.

        Raises:
            Damaged: no store of this spec dumped that.
        """
        self._check(dump)
        self.upstreams = SourceWatermarks(dump.arrays["upstreams"].copy())
        self.keys.load(dump.keys, dump.arrays, self.upstreams.latest)
        self.arrays = self._empty_arrays()
        if len(dump.keys):
            rows = max(len(dump.keys), *map(len, self.arrays.values()))
            self.arrays = self._moved({name: dump.arrays[name] for name in self.arrays}, rows)

    def _check(self, dump: Dump) -> None:
        keys, lines = len(dump.keys), size_of(dump.arrays, "upstreams") // 3
        own = {name: shape_of(array, keys if len(array) else 0) for name, array in self._empty_arrays().items()}
        check_arrays(dump.arrays, own | self.keys.shapes(keys, dump.arrays) | {"upstreams": ("<i8", (lines, 3))})
        check_names(dump.keys)
        check_lines(dump.arrays["upstreams"])
        self._check_places(dump.arrays)
