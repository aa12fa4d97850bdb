"""Many names as one piece of memory: nobody makes an object of a key that is only stored, sent or read back."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class BytesColumn:
    """Names in an order, each any bytes.

    Attributes:
        data: (bytes,) uint8, one name after the other.
        ends: (names,) int64, where each of them ends.
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, names: Sequence[bytes]) -> Self:
        """These names."""
        # The compiled kernels take writable arrays only.
        data = np.frombuffer(bytearray().join(names), np.uint8)
        return cls(data, np.cumsum(np.fromiter(map(len, names), np.int64, len(names))))

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """All names of the parts, in order."""
        parts = [part for part in parts if len(part)]
        if len(parts) <= 1:
            return parts[0] if parts else cls.of([])
        before = accumulate((len(part.data) for part in parts), initial=0)
        ends = [part.ends + start for part, start in zip(parts, before, strict=False)]
        return cls(np.concatenate([part.data for part in parts]), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BytesColumn) and self._comparable() == other._comparable()

    def __hash__(self) -> int:
        return hash(self._comparable())

    def _comparable(self) -> tuple[bytes, bytes]:
        return self.data.tobytes(), self.ends.tobytes()

    def __iter__(self) -> Iterator[bytes]:
        data = self.data.tobytes()
        return (data[start:end] for start, end in pairwise([0, *self.ends.tolist()]))

    def part(self, start: int, end: int) -> Self:
        """Names number `start` to `end`."""
        if start == 0 and end == len(self.ends):
            return self
        low, high = self._begin(start), self._begin(end)
        return type(self)(self.data[low:high], self.ends[start:end] - low)

    def _begin(self, number: int) -> int:
        return int(self.ends[number - 1]) if number else 0


NO_BYTES = BytesColumn.of([])
