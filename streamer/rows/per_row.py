"""What follows the rows: every field of such a class has one entry per row, unless it says that it is of all of them together.

Whoever adds a column gets it kept, cut and lengthened with the others. Leaving one out takes a word, `WHOLE`, beside the field.
"""

from dataclasses import fields
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# Metadata of a dataclass field: it is of the whole, be it one number or a list that has its own length.
WHOLE = {"whole": True}


class PerRow:
    """Base of dataclasses whose fields are arrays, lists, such classes, or dicts of any of these; None where there are none.

    A column that is empty has not been filled yet, and stays so.
    """

    __slots__ = ()

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only these rows, in this order."""
        chosen = rows.tolist()
        for name in following(_kind(self)):
            column = getattr(self, name)
            if column is not None and (type(column) is not np.ndarray or len(column)):
                setattr(self, name, _taken(column, rows, chosen))

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The same with only these rows, in this order."""
        taken = self._copy()
        if taken is not self:
            taken.keep(rows)
        return taken

    def extend(self, more: "PerRow") -> None:
        """Append what `more` has in every column of its own."""
        for name in following(_kind(more)):
            setattr(self, name, _joined(getattr(self, name), getattr(more, name)))

    def _copy(self) -> Self:
        kind = _kind(self)
        if not following(kind):
            return self
        copy: Self = kind.__new__(kind)
        for name in _all(kind):
            setattr(copy, name, getattr(self, name))
        return copy


def _kind(value: PerRow) -> Any:
    """Its class, of which mypy does not believe that it can be hashed."""
    return type(value)


@cache
def following(kind: Any) -> tuple[str, ...]:
    """Fields of such a class that have one entry per row."""
    return tuple(field.name for field in fields(kind) if "whole" not in field.metadata)


@cache
def _all(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _taken(column: Any, rows: NDArray[np.int64], chosen: list[int]) -> Any:
    kind = type(column)
    if kind is np.ndarray:
        return column[rows] if len(column) else column
    if kind is list:
        return [column[row] for row in chosen] if column else column
    if kind is dict:
        return {name: _taken(each, rows, chosen) for name, each in column.items()} if column else column
    return column.take(rows)


def _joined(column: Any, more: Any) -> Any:
    kind = type(column)
    if kind is np.ndarray:
        return np.concatenate([column, more])
    if kind is list:
        return [*column, *more]
    if kind is dict:
        return {name: _joined(each, more[name]) for name, each in column.items()}
    if column is None:
        return None
    joined = column._copy()  # noqa: SLF001 - of the same base
    joined.extend(more)
    return joined
