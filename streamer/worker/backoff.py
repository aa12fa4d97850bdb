"""Pauses between roll-backs whose cause is a refusal: the same rows would be refused at once, and again, and again."""

from streamer.clock import Clock
from streamer.limits import BACKOFF_FIRST_S, BACKOFF_MAX_S


class Backoff:
    """Pauses that double, until rows are committed.

    Attributes:
        in_a_row: refusals since.
        reason: of the last one; None when there was none.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._until = clock, 0.0
        self.in_a_row = 0
        self.reason: str | None = None

    def refused(self, reason: str) -> None:
        """Begin a pause."""
        self._until = self._clock.monotonic() + min(BACKOFF_FIRST_S * 2.0**self.in_a_row, BACKOFF_MAX_S)
        self.in_a_row += 1
        self.reason = reason

    def forget(self) -> None:
        """Rows were committed, or belong to somebody else now: begin anew."""
        self.in_a_row, self._until, self.reason = 0, 0.0, None

    @property
    def left_s(self) -> float:
        """Seconds until the pause is over; 0 when there is none."""
        return max(0.0, self._until - self._clock.monotonic()) if self.in_a_row else 0.0

    def describe(self) -> str | None:
        """Why no rows get through; None when they do."""
        return None if self.reason is None else f"rolled back {self.in_a_row} times in a row: {self.reason}"
