"""When a row goes: as fast as possible, at a rate, or at the speed of its event times; and how far times move with it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The timetable of a feed; without rate and speed everything is due at once.

    Attributes:
        rate: events per second.
        speed: seconds of event time per second.
    """

    rate: float | None = None
    speed: float | None = None

    def due_s(self, number: int, since_first_us: int) -> float:
        """Seconds after the start at which a row goes.

        Args:
            number: of the row, from 0.
            since_first_us: its event time after that of the first row.
        """
        if self.rate is not None:
            return number / self.rate
        return since_first_us / 1e6 / self.speed if self.speed is not None else 0.0


def shift_to_now_us(times_us: Iterable[int], pace: Pace, now_us: int) -> int:
    """How far to move all event times so that they are as late as can be, and none lies ahead of its sending.

    The distances between events stay, as features may depend on them. Fed at once or faster than they happened, the last
    event is at its sending; fed in real time or slower, the first one is.
    """
    first_us, shift_us = None, None
    for number, time_us in enumerate(times_us):
        first_us = time_us if first_us is None else first_us
        latest_us = now_us + round(pace.due_s(number, time_us - first_us) * 1e6) - time_us
        shift_us = latest_us if shift_us is None else min(shift_us, latest_us)
    return shift_us or 0
