"""How far several inputs have been read: up to which event time nothing can come any more that a row waits for."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamer.state.watermarks import NO_TIME

# Moments that are told apart while a silent input is waited for.
_LEVELS_KEPT = 16


@dataclass(slots=True)
class ProgressHistory:
    """How far the inputs that are not silent were, some moments ago: so long a silent one is waited for."""

    _noted: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, now_s: float, time: int, keep_s: float) -> None:
        """Inputs are at `time` now; what is older than `keep_s` is forgotten, but for the newest of it."""
        if not self._noted or (time > self._noted[-1][1] and now_s >= self._noted[-1][0] + keep_s / _LEVELS_KEPT):
            self._noted.append((now_s, time))
        while len(self._noted) > 1 and self._noted[1][0] <= now_s - keep_s:
            self._noted.popleft()

    def at(self, moment_s: float) -> int:
        """How far they were at that moment or before."""
        return max((time for noted, time in self._noted if noted <= moment_s), default=NO_TIME)


@dataclass(slots=True)
class InputProgress:
    """Works it out for each partition.

    Attributes:
        shifts: of each input, the source first: how much further than a row's time it must have been read before the row goes,
            microseconds.
        ahead_us: how long after its own time the last record may come that a row waits for.
        out_of_order_us: how far out of order rows may be.
        idle_timeout_s: how long each input is waited for without a record.
    """

    shifts: tuple[int, ...]
    ahead_us: int
    out_of_order_us: int
    idle_timeout_s: tuple[float, ...]
    _levels: dict[int, ProgressHistory] = field(default_factory=lambda: defaultdict(ProgressHistory))

    def forget(self, partition: int) -> None:
        """A partition goes, or begins anew."""
        self._levels.pop(partition, None)

    def reached(
        self, partition: int, newest: list[int], silence_s: Sequence[float | None], *, now_us: int, now_s: float,
        last_until: Callable[[int], int | None],
    ) -> int:  # fmt: skip
        """Up to where, in the time of the source, all inputs have been read.

        Args:
            partition: which one.
            newest: largest event time of each input.
            silence_s: per input how long it has been at its end, None while it may have unread records.
            now_us: wall time, microseconds.
            now_s: monotonic time, seconds.
            last_until: event time of the last row of the source that may go at a time, or None.
        """
        silent = [silence is not None and silence >= idle for silence, idle in zip(silence_s, self.idle_timeout_s, strict=True)]
        if all(silent):
            # Nothing more is known than our clock: what may still be seen of each row had its time to come.
            last = last_until(now_us - self.ahead_us)
            return NO_TIME if last is None else last + self.out_of_order_us + 1
        live = [time for time, out in zip(newest, silent, strict=True) if not out]
        if NO_TIME in live:
            return NO_TIME
        levels = self._levels[partition]
        levels.note(now_s, max(live), max(self.idle_timeout_s))
        # A silent input is as far as the others were a while ago: its record may be on the way to us just now.
        reached = [
            max(time, levels.at(now_s - idle)) if out else time
            for time, out, idle in zip(newest, silent, self.idle_timeout_s, strict=True)
        ]
        if NO_TIME in reached:
            return NO_TIME
        return min(time - shift for time, shift in zip(reached, self.shifts, strict=True))
