"""The moments at which a watermark changes anything: between two of them the windows need not be told that time goes by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.state.upstreams import NEVER, NOBODY
from streamer.windows import Rolling

# Windows without fixed ends are told the time in steps of this share of what they wait for.
_STEPS = 16


@dataclass(frozen=True, slots=True)
class Grid:
    """Moments `offset + n * step`, microseconds.

    Attributes:
        step_us, offset_us: where they lie.
        reach_us: an event at t is in no window that is open at t + this or later.
    """

    step_us: int
    offset_us: int
    reach_us: int

    @staticmethod
    def of(window: Rolling) -> "Grid | None":
        """What matters to a window; None when it does not know the time."""
        if window.ttl_us:
            return Grid(max(1, window.ttl_us // _STEPS), 0, 0)
        return None

    def before(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The last moment up to each time; NEVER and NOBODY have none: NEVER."""
        known = (times != NEVER) & (times != NOBODY)
        moments = np.full(len(times), NEVER)
        moments[known] = (times[known] - self.offset_us) // self.step_us * self.step_us + self.offset_us
        return moments

    def after(self, time: int) -> int:
        """The first moment at which windows of events up to this time are all closed."""
        if time == NEVER:
            return NEVER
        return time + self.reach_us
