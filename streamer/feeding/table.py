"""A csv file as people have it: any of the usual delimiters, quotes, line breaks in cells, a byte-order mark, another encoding.

A row is read as it stands or refused with its line. Where it is not certain any more where rows begin, reading ends.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from streamer.feeding.rows import FeedError
from streamer.limits import FEED_LINE_CHARS_MAX

DELIMITERS = (",", ";", "\t", "|")

Fits = Callable[[list[str]], int | None]
"""How many columns of a header are known, None where one is missing."""


@dataclass(slots=True)
class Lines:
    """Lines of a file, none without an end, and those of the record that is being read.

    Attributes:
        path, file: where from; the file keeps the line breaks as they are.
        taken: lines since this was emptied.
    """

    path: Path
    file: TextIO
    taken: list[str]
    number: int = 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self.file.readline(FEED_LINE_CHARS_MAX)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == FEED_LINE_CHARS_MAX:
            raise FeedError(
                f"{self.path}:{self.number}: a line of more than {FEED_LINE_CHARS_MAX:,} characters; is it a text file?"
            )
        self.taken.append(line)
        return line


@dataclass(frozen=True, slots=True)
class Table:
    """The header of a file, and its rows.

    Attributes:
        path: of the file.
        header: names of the columns.
        delimiter: what stands between two cells.
        lines: of the file, behind the header.
        reader: makes records of the lines.
    """

    path: Path
    header: list[str]
    delimiter: str
    lines: Lines
    reader: Iterator[list[str]]

    @staticmethod
    def of(path: Path, file: TextIO, fits: Fits) -> "Table":
        """Read the header with the delimiter that makes most known columns of it; with the comma, if none does.

        Raises:
            FeedError: it is no header.
        """
        csv.field_size_limit(FEED_LINE_CHARS_MAX)
        found = {delimiter: fits(_open(path, file, delimiter).header) for delimiter in DELIMITERS}
        fitting = {delimiter: known for delimiter, known in found.items() if known}
        return _open(path, file, max(fitting, key=lambda each: fitting[each], default=DELIMITERS[0]))

    def records(self, refused: Callable[[str], None], is_row: Callable[[list[str]], bool]) -> Iterator[tuple[int, list[str]]]:
        """Line and cells of each row; blank lines are none.

        Args:
            refused: gets file, line and reason of a row that is no row of this table.
            is_row: whether cells make a row, for lines that a quote may have swallowed.

        Raises:
            FeedError: a quote was not closed where it should have been, so that nobody knows which rows are in that cell.
        """
        while True:
            self.lines.taken.clear()
            line = self.lines.number + 1
            try:
                cells = next(self.reader)
            except StopIteration:
                return
            except csv.Error as error:
                if len(self.lines.taken) > 1:
                    raise FeedError(
                        f"{self.path}:{line}: a quote that opens in this row is not closed where a cell ends ({error}; line "
                        f"{self.lines.number}), so rows are inside of that cell. Close the quote, or double it if it is meant"
                    ) from error
                refused(f"{self.path}:{line}: {error}")
                continue
            if len(self.lines.taken) > 1:
                self._check_swallowed(line, is_row)
            if len(cells) == len(self.header):
                yield line, cells
            elif cells:
                refused(f"{self.path}:{line}: {len(cells)} cells for {len(self.header)} columns")

    def _check_swallowed(self, line: int, is_row: Callable[[list[str]], bool]) -> None:
        """A cell may have several lines, but not one that is a row itself: there a quote is missing."""
        for number, inner in enumerate(self.lines.taken[1:], line + 1):
            cells = next(csv.reader([inner], delimiter=self.delimiter), [])
            if len(cells) == len(self.header) and is_row(cells):
                raise FeedError(
                    f"{self.path}:{line}: a quote that opens in this row is closed later, and line {number} within it "
                    "looks like a row of its own. Close the quote in its row, or double it if it is meant"
                )


def _open(path: Path, file: TextIO, delimiter: str) -> Table:
    file.seek(0)
    lines = Lines(path, file, [])
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next((cells for cells in reader if cells), [])
    except csv.Error:
        header = []  # not with this delimiter
    return Table(path, [name.strip() for name in header], delimiter, lines, reader)
