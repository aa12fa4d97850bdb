"""What the demo feeds: recorded series played side by side, all ending now, and a few bad records among them."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from streamer.errors import StreamerError
from streamer.feeding.files import Files
from streamer.feeding.rows import FeedError, Row, moment_us
from streamer.feeding.send import Sendable
from streamer.topology.event import Event


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that the service must refuse and survive."""

    time_us: int
    key: bytes | None
    value: bytes | None


# What goes wrong in real feeds, made from a good record.
_BAD: tuple[Callable[[bytes, bytes], tuple[bytes | None, bytes | None]], ...] = (
    lambda key, value: (key, value[: len(value) // 2]),
    lambda key, value: (key, value.replace(b'"value":', b'"valeu":')),
    lambda key, _value: (key, b'{"sensor_id":"' + key + b'","ts":0,"value":"n/a"}'),
    lambda _key, value: (None, value),
    lambda key, value: (key + b"-old", value),
    lambda key, _value: (key, b'{"sensor_id":"' + key + b'","ts":4102444800,"value":1.0}'),
    lambda key, _value: (key, b"\xff\xfe\x00 not text"),
    lambda key, _value: (key, None),
)


@dataclass(frozen=True, slots=True)
class Recording:
    """Series of several keys, loaded from a folder of csv files.

    Attributes:
        series: rows of each key, in order.
        known: key -> known anomalies, from when to when in microseconds after the series' end (so below 0).
    """

    series: list[list[Row]]
    known: dict[str, list[tuple[int, int]]]

    @staticmethod
    def load(folder: Path, event: type[Event]) -> "Recording":
        """All csv files of a folder, each with its own key column or one series named after the file; and `labels.json`.

        Raises:
            StreamerError: there is no such folder, or no row in it.
        """
        by_key: dict[bytes | None, list[Row]] = {}
        for path in sorted(folder.glob("*.csv")):
            header = path.read_text("utf-8").partition("\n")[0].split(",")
            for row in Files([path], event, _refuse, key_from_file=event.__event__.key not in header).rows():
                by_key.setdefault(row.key, []).append(row)
        if not by_key:
            raise StreamerError(f"no recorded series in {folder}; the demo runs from a source checkout of streamer")
        return Recording(list(by_key.values()), _known(folder / "labels.json", by_key))

    @property
    def total(self) -> int:
        """Records of one pass, bad ones included."""
        return sum(map(len, self.series)) + len(_BAD)

    def play(self, now_us: int) -> Iterator[Sendable]:
        """One pass: each series from its start to its end, which is moved to `now_us`; all of them at the same time."""
        moved = [_moved(number, rows, now_us) for number, rows in enumerate(self.series)]
        every = sum(map(len, self.series)) // (len(_BAD) + 1)
        bad = iter(_BAD)
        for number, (_, _, row) in enumerate(heapq.merge(*moved), 1):
            yield row
            if number % every == 0 and (spoil := next(bad, None)) is not None:
                key, value = spoil(row.key or b"", row.value)
                yield BadRecord(row.time_us, key, value)


def _known(path: Path, series: dict[bytes | None, list[Row]]) -> dict[str, list[tuple[int, int]]]:
    """Labelled anomalies, as the benchmark writes them: file name -> first and last timestamp of each."""
    if not path.is_file():
        return {}
    labels = msgspec.json.decode(path.read_bytes(), type=dict[str, list[tuple[datetime, datetime]]])
    known = {}
    for file, spans in labels.items():
        key = file.removesuffix(".csv")
        if rows := series.get(key.encode()):
            end_us = rows[-1].time_us
            known[key] = [(moment_us(first) - end_us, moment_us(last) - end_us) for first, last in spans]
    return known


def _moved(series: int, rows: list[Row], now_us: int) -> Iterator[tuple[float, int, Row]]:
    """Rows with their place in the pass, from 0 to 1; the number of the series keeps equal places in order."""
    by_us = now_us - rows[-1].time_us
    return ((place / len(rows), series, row.moved(by_us)) for place, row in enumerate(rows))


def _refuse(problem: str) -> None:
    raise FeedError(f"the recorded data is damaged: {problem}")
