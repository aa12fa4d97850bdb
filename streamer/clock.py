"""The one place that reads time. Everything else asks a Clock, so that tests and replays can own it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamps that leave the process, monotonic time for durations."""

    def wall_us(self) -> int:
        """Microseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""


class SystemClock:
    """The machine's clock."""

    def wall_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""
        return time.perf_counter()


class ManualClock:
    """A clock that stands still until told to move."""

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self._now_us = round(start_s * 1e6)

    def wall_us(self) -> int:
        """Microseconds since the epoch, as set."""
        return self._now_us

    def monotonic(self) -> float:
        """The same instant in seconds."""
        return self._now_us / 1e6

    def advance(self, seconds: float) -> None:
        """Move forward; a negative step is an error in the test."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: advance({seconds})")
        self._now_us += round(seconds * 1e6)
