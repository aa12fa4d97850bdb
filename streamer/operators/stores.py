"""One store per assigned partition: what all stages that keep state by partition have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.rows.partitions import partition_rows

StoreT = TypeVar("StoreT", bound=Sized)


def without_place(partitions: NDArray[np.int32], room: Callable[[int], int]) -> NDArray[np.bool_]:
    """Rows for which a partition has no place: those behind the first so many of it.

    Args:
        partitions: (rows,) of each.
        room: how many more a partition can take; less than none is none.
    """
    found = np.zeros(len(partitions), np.bool_)
    for partition, rows in partition_rows(partitions):
        found[rows[max(0, room(partition)) :]] = True
    return found


@dataclass(slots=True, kw_only=True)
class PerPartition(ABC, Generic[StoreT]):
    """Base of a stage; what it does to the stores is its own.

    Attributes:
        stores: partition -> store.
        truncated: what stores have lost so far of what a row could still have seen, for want of room in a key's ring.
        evicted: keys forgotten for want of room so far.
    """

    stores: dict[int, StoreT] = field(default_factory=dict)
    truncated: int = 0
    evicted: int = 0

    @abstractmethod
    def _new(self) -> StoreT | None:
        """An empty store; None where nothing is kept."""

    def _forget(self, partition: int) -> None:
        """What else is known of a partition goes with its store."""

    def open(self, partition: int) -> StoreT | None:
        """A new, empty store for a partition; replaces the one there was."""
        self.close(partition)
        if (store := self._new()) is not None:
            self.stores[partition] = store
        return store

    def close(self, partition: int) -> None:
        """Forget a partition."""
        self.stores.pop(partition, None)
        self._forget(partition)

    @property
    def keys(self) -> int:
        """Live keys of all partitions."""
        return sum(map(len, self.stores.values()))
