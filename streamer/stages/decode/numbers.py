"""Numbers of events as columns, each of the dtype that its field is declared with; those that do not fit it are found."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FLOAT32_MAX = float(np.finfo(np.float32).max)
# Whole numbers up to here are all different ones as float64.
_EXACT_MAX = 2**53
_INT64 = np.iinfo(np.int64)


class Numbers(NamedTuple):
    """The column of a field.

    Attributes:
        column: (rows,) of the dtype of the field.
        beyond: (rows,) whether a number does not fit it; what then stands in the column means nothing.
        detail: what is said of such a row.
    """

    column: NDArray[Any]
    beyond: NDArray[np.bool_]
    detail: str


def float64s(values: list[Any]) -> NDArray[np.float64]:
    """float64 of Python numbers; an integer too large for it becomes infinite, and None NaN."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([value if value is None else _float64(value) for value in values], np.float64)


def _float64(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _floats(name: str, values: list[Any], *, kept: bool) -> Numbers:  # noqa: ARG001 - state keeps them as they are
    column = float64s(values)
    return Numbers(column, ~(np.abs(column) <= _FLOAT32_MAX), _too_large(name))


def _ints(name: str, values: list[Any], *, kept: bool) -> Numbers:
    """Whole numbers, exact; where they go into state, which keeps float64, only those that are exact there."""
    try:
        column, beyond = np.array(values, np.int64), np.zeros(len(values), np.bool_)
    except (OverflowError, TypeError):
        fits = [isinstance(value, int) and _INT64.min <= value <= _INT64.max for value in values]
        column = np.array([value if fit else 0 for value, fit in zip(values, fits, strict=True)], np.int64)
        beyond = ~np.array(fits, np.bool_)
    if not kept:
        return Numbers(column, beyond, f"{name} is beyond 64 bits (9.2e18), which a column of whole numbers holds")
    beyond |= (column > _EXACT_MAX) | (column < -_EXACT_MAX)
    return Numbers(column, beyond, _inexact(name))


def _bools(name: str, values: list[Any], *, kept: bool) -> Numbers:  # noqa: ARG001 - all fit
    return Numbers(np.array(values, np.bool_), np.zeros(len(values), np.bool_), "")


def nullables(name: str, values: list[Any], *, kept: bool) -> Numbers:  # noqa: ARG001 - in state or not, it is float64
    """Numbers of which some are None, as float64 with NaN in their place; whole ones only as far as they are exact there."""
    column = float64s(values)
    beyond, detail = np.abs(column) > _FLOAT32_MAX, _too_large(name)
    for row in np.flatnonzero(np.abs(column) >= _EXACT_MAX).tolist():
        if isinstance(values[row], int):
            beyond[row], detail = abs(values[row]) > _EXACT_MAX, _inexact(name)
    return Numbers(column, beyond, detail)


def _too_large(name: str) -> str:
    return f"{name} is beyond the range of float32 (3.4e38), which the model reads"


def _inexact(name: str) -> str:
    return (
        f"{name} is beyond 2**53 ({_EXACT_MAX}), and what windows and joins keep, or may be null, is float64, where it would be "
        "another number; declare the field float if it may be rounded"
    )


NUMBERS: dict[str, Callable[..., Numbers]] = {"f": _floats, "i": _ints, "b": _bools}
"""Kind of a dtype -> makes the column of a field `name` from `values`; `kept` says that it goes into state."""
