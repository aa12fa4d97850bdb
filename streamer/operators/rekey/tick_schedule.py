"""The moments at which a watermark changes anything: between two of them the windows need not be told that time goes by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.state.watermarks import ALL_IDLE, NO_TIME


@dataclass(frozen=True, slots=True)
class TickSchedule:
    """Moments `offset + n * step`, microseconds.

    Attributes:
        step_us, offset_us: where they lie.
        hop_us, reach_us: windows of an event at t are closed at t, down to a multiple of `hop`, plus `reach`.
    """

    step_us: int
    offset_us: int
    hop_us: int
    reach_us: int

    def before(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The last moment up to each time; NEVER where there is none."""
        known = (times != NO_TIME) & (times != ALL_IDLE)
        moments = np.full(len(times), NO_TIME)
        moments[known] = (times[known] - self.offset_us) // self.step_us * self.step_us + self.offset_us
        return moments

    def after(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """When all windows of events up to each time are closed; NEVER where there is no event."""
        return np.where(times == NO_TIME, NO_TIME, times // self.hop_us * self.hop_us + self.reach_us)
