"""The Numenta Anomaly Benchmark (Lavin and Ahmad 2015): its series, its anomaly windows and its score."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
# Profiles: cost of a false alarm and of a missed window, in units of a window found at once.
PROFILES = {"standard": (0.11, 1.0), "low FP": (0.22, 1.0), "low FN": (0.11, 2.0)}
# Several series of one installation: they must not be split between training and test.
_TWINS = ("exchange-3", "exchange-4", "6005", "t4013", "rogue_agent")


@dataclass(frozen=True, slots=True)
class Series:
    """One file of the benchmark.

    Attributes:
        name: `category/file.csv`.
        stamps: timestamps as in the file.
        time: the same in seconds since the epoch, (rows,), read as UTC.
        value: (rows,).
        windows: first and last row of each labelled anomaly window, in order.
    """

    name: str
    stamps: tuple[str, ...]
    time: NDArray[np.float64]
    value: NDArray[np.float64]
    windows: tuple[tuple[int, int], ...]

    @property
    def source(self) -> str:
        """What was measured: series of one source belong on one side of a split."""
        category, _, file = self.name.rpartition("/")
        return next((category + twin for twin in _TWINS if twin in file), self.name)

    @property
    def probation(self) -> int:
        """Rows at the start that are never scored."""
        return min(int(0.15 * len(self.value)), 750)

    def inside(self) -> Flags:
        """Whether a row lies in an anomaly window, (rows,)."""
        mask = np.zeros(len(self.value), bool)
        for first, last in self.windows:
            mask[first : last + 1] = True
        return mask


def read(data: Path, labels: Path) -> list[Series]:
    """All series named in `labels` (JSON, file -> list of [first, last] timestamps), sorted by name.

    Raises:
        ValueError: a window's edge is not a row of its file.
    """
    found: Mapping[str, list[list[str]]] = json.loads(labels.read_text("utf-8"))
    return [_read_one(data, name, found[name]) for name in sorted(found)]


def _read_one(data: Path, name: str, edges: list[list[str]]) -> Series:
    with (data / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    stamps = tuple(row[0] for row in rows)
    time = np.array([datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp() for stamp in stamps])
    place = {stamp[:19]: row for row, stamp in reversed(list(enumerate(stamps)))}
    try:
        windows = tuple((place[first[:19]], place[last[:19]]) for first, last in edges)
    except KeyError as missing:
        raise ValueError(f"{name}: the labelled window edge {missing} is not a row of the file; wrong labels?") from missing
    return Series(name, stamps, time, np.array([float(row[1]) for row in rows]), windows)


def _fade(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """NAB's scaled sigmoid: 1 far before the end of a window, 0 at it, -1 far behind."""
    return np.where(y > 3.0, -1.0, 2.0 / (1.0 + np.exp(np.minimum(5.0 * y, 700.0))) - 1.0)


def raw_score(series: Series, flags: Flags, false_alarm: float, missed: float) -> float:
    """Score of one series before normalising: windows count once, by their earliest flag; every false row costs."""
    rows = np.flatnonzero(flags)
    rows = rows[rows >= series.probation]
    outside = rows[~series.inside()[rows]]
    total, behind = 0.0, np.full(len(outside), 1.0)
    for first, last in series.windows:
        after = outside > last
        behind[after] = -_fade((outside[after] - last) / max(last - first, 1))
        if last < series.probation:
            continue
        hits = rows[(rows >= first) & (rows <= last)]
        width = last - first + 1
        early = _fade(np.array([-(last - hits[0] + 1) / width, -1.0])) if len(hits) else None
        total += float(early[0] / early[1]) if early is not None else -missed
    return total - false_alarm * float(behind.sum())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a set of flags is worth: normalised scores (0: no flag at all, 100: perfect) and what an operator sees."""

    scores: dict[str, float]
    found: int
    windows: int
    alarms_per_1000_rows: float


def judge(flagged: Iterable[tuple[Series, Flags]]) -> Verdict:
    """Score flags over whole series; alarms are runs of neighbouring flags outside windows."""
    pairs = [(series, _scored(series, flags)) for series, flags in flagged]
    windows = sum(len(series.windows) for series, _ in pairs)
    scores = {}
    for profile, (false_alarm, missed) in PROFILES.items():
        raw = sum(raw_score(series, flags, false_alarm, missed) for series, flags in pairs)
        scores[profile] = 100 * (raw + missed * windows) / ((1 + missed) * windows)
    false = [flags & ~series.inside() for series, flags in pairs]
    runs = sum(int((np.diff(f.astype(int), prepend=0) == 1).sum()) for f in false)
    outside = sum(int((~series.inside()[series.probation :]).sum()) for series, _ in pairs)
    found = sum(bool(flags[first : last + 1].any()) for series, flags in pairs for first, last in series.windows)
    return Verdict(scores, found, windows, 1000 * runs / max(outside, 1))


def _scored(series: Series, flags: Flags) -> Flags:
    return flags & (np.arange(len(flags)) >= series.probation)


def cool_down(flags: Flags, rows: int) -> Flags:
    """Keep a flag only if none was kept in the `rows` before it."""
    kept = np.zeros(len(flags), bool)
    quiet_until = -1
    for row in np.flatnonzero(flags).tolist():
        if row > quiet_until:
            kept[row], quiet_until = True, row + rows
    return kept
