"""When a batch passed each station."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Stamps:
    """Monotonic seconds at which a batch passed each station; a station's time is the difference to the one before.

    A batch waits between stations too, so the parts sum to the whole by construction. `stateless` has an entry for each step
    between decode and the windows; it is empty where the batch did not go through them.
    """

    polled: float = 0.0
    decoded: float = 0.0
    stateless: tuple[float, ...] = ()
    windowed: float = 0.0
    run_started: float = 0.0
    run_ended: float = 0.0
    encoded: float = 0.0
    produced: float = 0.0

    def begin_windowed(self, now_s: float) -> None:
        """Of a batch that no poll brought about: it begins behind the windows."""
        self.polled = self.decoded = self.windowed = now_s
