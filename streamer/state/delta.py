"""What enters a store: a stream of operations in columns, the one thing that the changelog keeps."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.state.bytes_column import NO_BYTES, BytesColumn
from streamer.state.watermarks import NO_CHANGE, newest

# In `Delta.slots`: not a sample but the watermark moves on.
TICK = -1


def opening(slots: NDArray[np.int32]) -> NDArray[np.int32]:
    """The operations that give these slots to new keys; it is its own inverse."""
    return np.subtract(-2, slots, dtype=np.int32)


@dataclass(slots=True)
class Delta:
    """Operations on one store, row by row. Cutting or joining deltas changes nothing.

    `slots[i] >= 0`: a sample of the key in that slot. TICK: the watermark advances to `times[i]`. `slots[i] <= -2`: slot
    `-2 - slots[i]` is emptied and given to the next of `new_keys`, for the first time or in place of another key.

    Attributes:
        new_keys: one for each slot that is given, in order.
        slots: (n,) int32.
        times: (n,) int64 event times, microseconds.
        values: (fields, n) float64; zero where the row is no sample.
        upstreams: in a re-keyed flow, new lines of the table of the source's partitions; see `state.upstreams`.
    """

    new_keys: BytesColumn
    slots: NDArray[np.int32]
    times: NDArray[np.int64]
    values: NDArray[np.float64]
    upstreams: NDArray[np.int64] = field(default_factory=lambda: NO_CHANGE)

    @staticmethod
    def empty(fields: int) -> "Delta":
        """No operation."""
        return Delta(NO_BYTES, np.empty(0, np.int32), np.empty(0, np.int64), np.empty((fields, 0)))

    @property
    def nbytes(self) -> int:
        """Bytes of its columns."""
        return self.new_keys.data.nbytes + self.new_keys.ends.nbytes + (12 + 8 * len(self.values)) * len(self.slots)

    @property
    def samples(self) -> int:
        """Rows that are samples."""
        return int(np.count_nonzero(self.slots >= 0))


def merge(deltas: Iterable[Delta], fields: int) -> Delta:
    """Join deltas of one store in order."""
    parts = list(deltas)
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Delta.empty(fields)
    return Delta(
        BytesColumn.joined(part.new_keys for part in parts),
        np.concatenate([part.slots for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts], axis=1),
        newest([part.upstreams for part in parts]),
    )
