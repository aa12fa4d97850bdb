"""`w.count`: a column of how many samples there are, which called with a field says how many of them have a value."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Count(np.ndarray[Any, np.dtype[np.float64]]):
    """Samples in each window, float64 of shape (rows,); what is computed from it is an ordinary column."""

    _values: Callable[[str], NDArray[np.float64]]

    @staticmethod
    def of(samples: NDArray[np.float64], values: Callable[[str], NDArray[np.float64]]) -> "Count":
        """The samples, and what tells the values of a field."""
        count = samples.view(Count)
        count._values = values  # noqa: SLF001 - of this class
        return count

    def __call__(self, name: str) -> NDArray[np.float64]:
        """Samples that have a value of a field, (rows,)."""
        return self._values(name)

    def __array_wrap__(
        self,
        array: Any,
        context: Any = None,
        return_scalar: bool = False,  # noqa: FBT001, FBT002 - numpy gives it by position
    ) -> Any:
        """What numpy computes is no count any more."""
        return array[()] if return_scalar else np.asarray(array)
