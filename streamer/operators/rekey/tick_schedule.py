"""The moments at which a watermark changes anything: between two of them the windows need not be told that time goes by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.state.watermarks import ALL_IDLE, NO_TIME
from streamer.topology.closing import Closing
from streamer.topology.view import Rolling

# Windows without fixed ends are told the time in steps of this share of what they wait for.
_STEPS = 16
# Rolling windows wait no longer than such a step for a partition that is silent; in these bounds, since a shorter silence
# may be the network's, and a longer one might never be over where workers come and go.
_IDLE_S_MIN, _IDLE_S_MAX = 1.0, 60.0


def idle_timeout_s(window: Rolling | Closing) -> float:
    """The silence after which a partition of the source does not hold windows back any more, seconds; 0 for never."""
    if isinstance(window, Closing):
        return window.idle_timeout_us / 1e6
    return min(max(window.ttl_us / 1e6 / _STEPS, _IDLE_S_MIN), _IDLE_S_MAX) if window.ttl_us else 0.0


@dataclass(frozen=True, slots=True)
class TickSchedule:
    """Moments `offset + n * step`, microseconds.

    Attributes:
        step_us, offset_us: where they lie.
        every_us, reach_us: windows of an event at t are closed at t, down to a multiple of `hop`, plus `reach`.
    """

    step_us: int
    offset_us: int
    every_us: int
    reach_us: int

    @staticmethod
    def of(window: Rolling | Closing) -> "TickSchedule | None":
        """What matters to a window; None when it does not know the time."""
        if isinstance(window, Rolling):
            return TickSchedule(max(1, window.ttl_us // _STEPS), 0, 1, 0) if window.ttl_us else None
        if window.gap_us:
            return TickSchedule(max(1, window.gap_us // _STEPS), 0, 1, window.gap_us + window.grace_us)
        # A window ends at a multiple of `hop` after its width, and closes so much later.
        return TickSchedule(window.hop_us, window.size_us + window.grace_us, window.hop_us, window.size_us + window.grace_us)

    def before(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The last moment up to each time; NEVER where there is none."""
        known = (times != NO_TIME) & (times != ALL_IDLE)
        moments = np.full(len(times), NO_TIME)
        moments[known] = (times[known] - self.offset_us) // self.step_us * self.step_us + self.offset_us
        return moments

    def after(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """When all windows of events up to each time are closed; NEVER where there is no event."""
        return np.where(times == NO_TIME, NO_TIME, times // self.every_us * self.every_us + self.reach_us)
