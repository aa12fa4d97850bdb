"""What a process holds over hours: memory, descriptors, threads; and whether any of it only ever grows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE_KIB = 4
TEN_MINUTES_S = 600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment.

    Attributes:
        at_s: seconds since the first sample.
        rss_mib: resident memory.
        descriptors: open files and sockets.
        threads: of any kind.
    """

    at_s: float
    rss_mib: float
    descriptors: int
    threads: int


def sample(pid: int, at_s: float) -> Sample:
    """Look at a process that runs.

    Raises:
        OSError: it does not.
    """
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    descriptors, threads = (len(list((folder / name).iterdir())) for name in ("fd", "task"))
    return Sample(at_s, pages * PAGE_KIB / 1024, descriptors, threads)


def later(samples: Sequence[Sample]) -> list[Sample]:
    """Those of the last two thirds of the time: caches and pools have filled by then."""
    return [s for s in samples if s.at_s >= samples[-1].at_s / 3]


def slope_mib(samples: Sequence[Sample]) -> float:
    """By how much memory grows, in MiB per ten minutes: a line through the last two thirds."""
    seen = later(samples)
    return linear_regression([s.at_s for s in seen], [s.rss_mib for s in seen]).slope * TEN_MINUTES_S


def grown(samples: Sequence[Sample]) -> list[str]:
    """Which of descriptors and threads never came back, in the last third, to what they were in the middle one."""
    seen = later(samples)
    half = seen[-1].at_s * 2 / 3
    found = []
    for name in ("descriptors", "threads"):
        most = max(getattr(s, name) for s in seen if s.at_s < half)
        least = min(getattr(s, name) for s in seen if s.at_s >= half)
        if least > most:
            found.append(f"{name} rose from {most} at most to {least} at least")
    return found
