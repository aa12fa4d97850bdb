"""Rows from csv and NDJSON files, line by line, several files merged by event time."""

import codecs
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import msgspec

from streamer.feeding.fields import UNFIT, Fields, names_of
from streamer.feeding.rows import FeedError, Row, row_of
from streamer.feeding.table import Table
from streamer.limits import FEED_LINE_CHARS_MAX
from streamer.topology.event import Event

_CSV_SUFFIXES = (".csv", ".tsv")
_JSON_SUFFIXES = (".ndjson", ".jsonl", ".json")

Refused = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Files:
    """Rows of several files in order of event time, each file being in order itself.

    Attributes:
        paths: `.csv` or `.tsv` with a header of field names (or `timestamp` for the event time), or `.ndjson` / `.jsonl`.
        event: class of the rows.
        refused: gets file, line and reason of a row that is no such event; what it raises ends the reading.
        key_from_file: fill the key field with the file's name, without folder and suffix.
    """

    paths: list[Path]
    event: type[Event]
    refused: Refused
    key_from_file: bool = False

    def rows(self) -> Iterator[Row]:
        """All rows.

        Raises:
            FeedError: a file is missing, of another kind, or lacks a column.
        """
        return self._merged(self.refused)

    def times_us(self) -> Iterator[int]:
        """Event times of all rows; the bad ones are left to `rows`."""
        return (row.time_us for row in self._merged(_ignore))

    def total(self) -> int | None:
        """At most how many rows there are."""
        return sum(map(_lines, self.paths))

    def _merged(self, refused: Refused) -> Iterator[Row]:
        return heapq.merge(*(self._read(path, refused) for path in self.paths), key=attrgetter("time_us"))

    def _read(self, path: Path, refused: Refused) -> Iterator[Row]:
        read = _read_csv if path.suffix in _CSV_SUFFIXES else _read_json
        if read is _read_json and path.suffix not in _JSON_SUFFIXES:
            kinds = f"{', '.join(_CSV_SUFFIXES)} and {', '.join(_JSON_SUFFIXES)} (an object a line)"
            raise FeedError(f"{path}: what kind of file is this? Known are {kinds}")
        fixed: dict[str, object] = {}
        if self.key_from_file:
            key = self.event.__event__.key
            if key is None:
                raise FeedError(f"--key-from-file: {self.event.__name__} has no key field; declare one with key=")
            fixed[names_of(self.event)[key]] = path.stem
        try:
            yield from read(path, self.event, fixed, refused)
        except OSError as error:
            raise FeedError(f"cannot read {path}: {error.strerror} (looked in {Path.cwd()})") from error


def _lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _ignore(_problem: str) -> None:
    """The second pass tells."""


def _read_csv(path: Path, event: type[Event], fixed: dict[str, object], refused: Refused) -> Iterator[Row]:
    # Bytes that are no UTF-8 are told where they stand; in a column that nobody reads they do no harm.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        fields = Fields(event, fixed)
        table = Table.of(path, file, fields.fit)
        fields.check(path, table.header)
        columns = fields.columns(table.header)
        for line, cells in table.records(refused, lambda cells: fields.is_row(columns, cells)):
            try:
                yield fields.row(columns, cells)
            except UNFIT as error:
                refused(f"{path}:{line}: {_reason(error)}")


def _read_json(path: Path, event: type[Event], fixed: dict[str, object], refused: Refused) -> Iterator[Row]:
    decode = msgspec.json.Decoder(dict[str, object]).decode
    with path.open("rb") as file:
        number = 0
        while line := file.readline(FEED_LINE_CHARS_MAX):
            number += 1
            if len(line) == FEED_LINE_CHARS_MAX:
                raise FeedError(
                    f"{path}:{number}: a line of more than {FEED_LINE_CHARS_MAX:,} bytes; an object stands on each line"
                )
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            try:
                yield row_of(msgspec.convert(decode(line) | fixed, event))
            except UNFIT as error:
                refused(f"{path}:{number}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0].rstrip(".") or type(error).__name__
