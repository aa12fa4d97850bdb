"""Arrays that grow by the row, seldom and by a lot."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def grown_capacity(capacity: int, keys: int, most: int) -> int:
    """Room for `keys`: doubled each time, but not beyond `most` unless that many there are."""
    return min(max(2 * capacity, keys), max(most, keys))


def grown(array: NDArray[Any], rows: int, filler: int = 0) -> NDArray[Any]:
    """The array with more rows."""
    longer = np.zeros((rows, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    if filler:
        longer[len(array) :] = filler
    return longer
