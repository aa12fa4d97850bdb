"""Rows from csv and NDJSON files, line by line, several files merged by event time."""

import csv
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TextIO

import msgspec

from streamer.event import Event
from streamer.feeding.rows import FeedError, Row, row_of, time_number

# What a column of times is called in files that do not know our class, such as the Numenta benchmark.
_TIME_COLUMN = "timestamp"
_JSON_SUFFIXES = (".ndjson", ".jsonl", ".json")

Refused = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Files:
    """Rows of several files in order of event time, each file being in order itself.

    Attributes:
        paths: `.csv` with a header of field names (or `timestamp` for the event time), or `.ndjson` / `.jsonl`.
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
        read = _read_csv if path.suffix == ".csv" else _read_json
        if read is _read_json and path.suffix not in _JSON_SUFFIXES:
            raise FeedError(
                f"{path}: what kind of file is this? Known are .csv and {', '.join(_JSON_SUFFIXES)} (an object a line)"
            )
        fixed: dict[str, object] = {}
        if self.key_from_file:
            key = self.event.__event__.key
            if key is None:
                raise FeedError(f"--key-from-file: {self.event.__name__} has no key field; declare one with key=")
            fixed[key] = path.stem
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from read(path, file, self.event, fixed, refused)
        except OSError as error:
            raise FeedError(f"cannot read {path}: {error.strerror} (looked in {Path.cwd()})") from error
        except UnicodeDecodeError as error:
            raise FeedError(f"{path} is not UTF-8: {error.reason} at byte {error.start} of a block; convert it first") from error


def _lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _ignore(_problem: str) -> None:
    """The second pass tells."""


def _read_csv(path: Path, file: TextIO, event: type[Event], fixed: dict[str, object], refused: Refused) -> Iterator[Row]:
    spec = event.__event__
    reader = csv.DictReader(file)
    header = list(reader.fieldnames or ())
    renamed = _TIME_COLUMN if spec.time not in header and _TIME_COLUMN in header else None
    _check_columns(path, header, event, {*fixed, *([spec.time] if renamed else [])})
    known = [name for name in header if name in event.__struct_fields__]
    for record in reader:
        values: dict[str, object] = {name: record[name] for name in known} | fixed
        try:
            if spec.time is not None:
                text = record[renamed or spec.time] or ""
                values[spec.time] = time_number(text, spec)
            yield row_of(msgspec.convert(values, event, strict=False))
        except (msgspec.ValidationError, ValueError, OverflowError, KeyError) as error:
            refused(f"{path}:{reader.line_num}: {_reason(error)}")


def _check_columns(path: Path, header: list[str], event: type[Event], given: set[str | None]) -> None:
    needed = {field.encode_name for field in msgspec.structs.fields(event) if field.required}
    missing = sorted(needed - set(header) - given)
    if missing:
        hint = ""
        if missing == [event.__event__.key]:
            hint = "; --key-from-file takes it from the name of the file"
        columns = ", ".join(header) or "none"
        raise FeedError(f"{path}: no column {', '.join(missing)} for {event.__name__}; its columns are {columns}{hint}")


def _read_json(path: Path, file: TextIO, event: type[Event], fixed: dict[str, object], refused: Refused) -> Iterator[Row]:
    decode = msgspec.json.Decoder(dict[str, object]).decode
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield row_of(msgspec.convert(decode(line) | fixed, event))
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            refused(f"{path}:{number}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0].rstrip(".") or type(error).__name__
