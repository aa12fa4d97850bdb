"""Windows that keep summaries of slices of event time, panes, in place of samples: long look-backs in little memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.operators import aggregates
from streamer.operators.explained import listed
from streamer.operators.rings import Operations
from streamer.operators.rolling import pane_kernels
from streamer.operators.rolling.store import RollingSpec, RollingStore
from streamer.state.bounds import TIME_US_MAX, Damaged, within
from streamer.state.keyed_store import FIRST_CAPACITY, KEY_OVERHEAD_BYTES

_PARTS_OF = {
    aggregates.NEED_SUM: (pane_kernels.BASE, pane_kernels.EXCESS, pane_kernels.LOST),
    aggregates.NEED_STD: (pane_kernels.BASE, pane_kernels.EXCESS, pane_kernels.LOST, pane_kernels.SQUARES, pane_kernels.MIDDLE),
    aggregates.NEED_RANGE: (pane_kernels.LOW, pane_kernels.HIGH),
    aggregates.NEED_FIRST: (pane_kernels.OLDEST,),
    aggregates.NEED_GAPS: (pane_kernels.GIVEN,),
    aggregates.NEED_LAST: (pane_kernels.NEWEST, pane_kernels.NEWEST_AT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaneSpec(RollingSpec):
    """Shape of a store of panes; only those parts of a field are kept that one of the look-backs asks for."""

    def __post_init__(self) -> None:
        _kernel_of(self)  # compiled now, and not as the first partition comes

    @property
    def bits(self) -> tuple[int, ...]:
        """What the look-backs together ask of each field."""
        fields = len(self.fields)
        return tuple(int(np.bitwise_or.reduce(self.needs[f::fields])) for f in range(fields))

    @property
    def keeps_first(self) -> bool:
        """Whether somebody asks for the oldest sample of a window; where samples may be without a value, a field has its own."""
        return any(bits & aggregates.NEED_FIRST and not bits & aggregates.NEED_GAPS for bits in self.bits)

    def places(self) -> NDArray[np.int64]:
        """Where the parts of each field stand: (fields, PARTS), -1 for those that nobody asks for."""
        at = np.full((len(self.fields), pane_kernels.PARTS), -1)
        for f, bits in enumerate(self.bits):
            for need, parts in _PARTS_OF.items():
                at[f, parts if bits & need else ()] = 0
            if bits & aggregates.NEED_GAPS:
                at[f, pane_kernels.OLDEST_AT] = at[f, pane_kernels.OLDEST]
        kept = at == 0
        at[kept] = np.arange(np.count_nonzero(kept))
        return at

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key."""
        columns = 1 + self.keeps_first + int(self.places().max(initial=-1)) + 1
        return self.window.samples * columns * 8 + 8 + KEY_OVERHEAD_BYTES + (8 if self.window.ttl_us else 0)

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        asked = ",".join(f"{name}:{bits}" for name, bits in zip(self.fields, self.bits, strict=True))
        return f"panes/{self.window.samples}/{self.window.resolution_us}/{asked}"

    @property
    def told(self) -> str:
        """What is kept of a key, in words."""
        return f"{self.window.samples:,} panes of {listed(self.fields)}"

    def open(self, keys_max: int) -> "PaneStore":
        """A new, empty store of this shape."""
        return PaneStore(self, keys_max)


class PaneStore(RollingStore):
    """Panes of all keys of one partition; all else is as in a store of samples."""

    spec: PaneSpec

    def __init__(self, spec: PaneSpec, keys_max: int) -> None:
        super().__init__(spec, keys_max)
        self._panes = self._looks // spec.window.resolution_us
        self._places = spec.places()
        self._kernel = _kernel_of(spec)

    def _empty_arrays(self) -> dict[str, NDArray[Any]]:
        spec, capacity, panes = self.spec, min(FIRST_CAPACITY, self.keys_max), self.spec.window.samples
        return {
            "end": np.zeros(capacity, np.int64),
            "n": np.zeros((capacity, panes)),
            "first_t": np.zeros((capacity, panes if spec.keeps_first else 0), np.int64),
            "parts": np.zeros((capacity, int(spec.places().max(initial=-1)) + 1, panes)),
        }

    def _check_places(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Cells are found by their pane, which leads nowhere else."""
        if not within(arrays["end"], -TIME_US_MAX, TIME_US_MAX):
            raise Damaged("its panes are of no time there is")

    def _roll(self, operations: Operations, rows: NDArray[np.int64], answers: aggregates.Answers) -> int:
        end, n, first_t, parts = (self.arrays[name] for name in ("end", "n", "first_t", "parts"))
        kept = pane_kernels.Panes(self.spec.window.resolution_us, end, n, first_t, parts)
        self._kernel(operations, rows, self._panes, kept, self._places, self.asked, answers)
        return 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that `samples` gives."""
        return ("count",)

    def samples(self, key: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Starts of the panes of a key (n,) and samples in each of them (1, n), oldest first; None if unknown."""
        slot = self.keys.index.slot(key)
        if slot is None:
            return None
        panes = int(self.arrays["end"][slot]) + np.arange(-self.spec.window.samples, 0)
        counts = self.arrays["n"][slot][panes % len(panes)]
        held = counts > 0
        return panes[held] * self.spec.window.resolution_us, counts[held][None]


def _kernel_of(spec: PaneSpec) -> Callable[..., None]:
    """The compiled kernel for panes of this shape."""
    if not spec.gaps:
        return pane_kernels.roll_panes
    from streamer.operators.rolling.pane_gap_kernels import roll_panes_with_gaps  # noqa: PLC0415 - compiled where it is needed

    return roll_panes_with_gaps
