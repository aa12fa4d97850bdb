"""The windows that rows stand for, where windows close."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.rows.per_row import PerRow


@dataclass(slots=True)
class Spans(PerRow):
    """The windows that the rows of a batch stand for; arrays (rows,), or empty where rows are no windows.

    Attributes:
        start_us, end_us: the window [start, end), microseconds.
        final: whether it has closed; else the row is an event, and its window as it was then.
    """

    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    final: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.final)

    def name(self, row: int) -> str:
        """What a row is, in words."""
        return f"{'the' if self.final[row] else 'an event in the'} window from {self.start_us[row]} to {self.end_us[row]} us"


NO_SPANS = Spans(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_))
