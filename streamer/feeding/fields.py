"""Which column of a csv file is which field of an event, and what a cell says about it."""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from streamer.feeding.rows import FeedError, Row, row_of, time_number
from streamer.topology.event import Event

# What a column of times is called in files that do not know our class, such as the Numenta benchmark.
_TIME_COLUMN = "timestamp"

UNFIT = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What a row raises that is no such event."""

Columns = dict[str, int]


@cache
def names_of(event: type[Event]) -> dict[str, str]:
    """Field of the class -> its name in JSON and in files."""
    return {field.name: field.encode_name for field in msgspec.structs.fields(event)}


@cache
def _meaning_of_nothing(event: type[Event]) -> dict[str, str | None]:
    """What an empty cell of a field without a default stands for: null, if the field may be null and no text, else itself."""
    fields = [field for field in msgspec.structs.fields(event) if field.required]
    return {field.encode_name: None if _takes(field.type, None) and not _takes(field.type, "") else "" for field in fields}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an event class, to be found in a header.

    Attributes:
        event: the class.
        fixed: fields that no column is needed for.
    """

    event: type[Event]
    fixed: dict[str, object]

    def columns(self, header: list[str]) -> Columns:
        """Name of each field there is a column for -> the number of that column."""
        time = names_of(self.event).get(self.event.__event__.time or "")
        places = {name: header.index(name) for name in names_of(self.event).values() if name in header and name not in self.fixed}
        if time is not None and time not in places and _TIME_COLUMN in header:
            places[time] = header.index(_TIME_COLUMN)
        return places

    def fit(self, header: list[str]) -> int | None:
        """How many fields have a column, None where one that is needed has none."""
        return None if self._missing(header) else len(self.columns(header))

    def _missing(self, header: list[str]) -> list[str]:
        needed = {field.encode_name for field in msgspec.structs.fields(self.event) if field.required}
        return sorted(needed - self.columns(header).keys() - self.fixed.keys())

    def check(self, path: Path, header: list[str]) -> None:
        """Whether a header says all that must be known.

        Raises:
            FeedError: a column is missing or stands there twice, or none is known.
        """
        columns, missing = self.columns(header), self._missing(header)
        there = ", ".join(header) or "none"
        if missing or not columns:
            key = names_of(self.event).get(self.event.__event__.key or "")
            hint = "; --key-from-file takes it from the name of the file" if missing == [key] else ""
            hint = "; the file seems to be UTF-16, convert it to UTF-8" if "\0" in there else hint
            wanted = ", ".join(missing) or "of any field"
            raise FeedError(f"{path}: no column {wanted} for {self.event.__name__}; its columns are {there}{hint}")
        used = {header[place] for place in columns.values()}
        twice = sorted(name for name, count in Counter(header).items() if count > 1 and name in used)
        if twice:
            raise FeedError(f"{path}: several columns are called {', '.join(twice)}; which one is meant? Its columns are {there}")

    def row(self, columns: Columns, cells: list[str]) -> Row:
        """The event of a row.

        Raises:
            UNFIT: it is none.
        """
        time, values = names_of(self.event).get(self.event.__event__.time or ""), dict(self.fixed)
        nothing = _meaning_of_nothing(self.event)
        for name, place in columns.items():
            cell = cells[place]
            if cell:
                _check_encoding(name, cell)
                values[name] = time_number(cell, self.event.__event__) if name == time else cell
            elif name in nothing:
                values[name] = nothing[name]
        return row_of(msgspec.convert(values, self.event, strict=False))

    def is_row(self, columns: Columns, cells: list[str]) -> bool:
        """Whether there is such an event."""
        try:
            self.row(columns, cells)
        except UNFIT:
            return False
        return True


def _takes(kind: object, value: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _check_encoding(name: str, cell: str) -> None:
    if cell.isascii():
        return
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        byte = ord(cell[error.start]) - 0xDC00
        raise ValueError(f"{name} is not UTF-8 (byte 0x{byte:02x}); convert the file to UTF-8 first") from error
