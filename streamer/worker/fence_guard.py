"""How often somebody else took our transactional id: once may happen, again and again is a mistake of the set-up."""

from collections import deque
from dataclasses import dataclass, field

from streamer.clock import Clock
from streamer.errors import FencedError

_MAX = 3
_WITHIN_S = 60.0


@dataclass(slots=True)
class FenceGuard:
    """Counts them.

    Attributes:
        clock: for how long ago.
        slot: name of ours, None where it has none.
    """

    clock: Clock
    slot: str | None
    _times: deque[float] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._times)

    def note(self) -> None:
        """One more.

        Raises:
            FencedError: too many in a short time.
        """
        now = self.clock.monotonic()
        self._times.append(now)
        while self._times[0] < now - _WITHIN_S:
            self._times.popleft()
        if len(self._times) >= _MAX:
            ours = f"slot {self.slot!r}" if self.slot else "transactional id"
            raise FencedError(
                f"our {ours} was taken over {_MAX} times within {_WITHIN_S:g} s: another worker runs "
                "with the same group and slot. Give each worker its own --slot (or none)"
            )
