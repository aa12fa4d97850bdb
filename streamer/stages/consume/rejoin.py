"""A consumer that has ended, or lost its way, is followed by another one, after a pause that grows from one to the next."""

from dataclasses import dataclass

from streamer.clock import Clock
from streamer.errors import StreamerError

_PAUSE_S = 1.0
_PAUSE_MAX_S = 30.0
# About eight minutes, as long as a start of brokers may take.
_TRIES_MAX = 20
# A group deals again within a session (10 s, 45 s under KIP-848) and what its members need to finish. After the loss of a
# connection the client was seen to poll on and never join again, while nothing said so.
SILENT_S = 60.0
# A group that refuses a new member does so within seconds. Under KIP-848 it says nothing to one that it has no partitions for.
_ANSWERS_S = 10.0


@dataclass(slots=True, kw_only=True)
class Rejoin:
    """When to join the group again.

    Attributes:
        clock: for the pauses.
        reason: why the last consumer ended; None once partitions have come since.
    """

    clock: Clock
    reason: str | None = None
    _joined_at: float = 0.0
    _tries: int = 0
    _at: float | None = None
    _lost_at: float | None = None

    def ended(self, reason: str) -> None:
        """A consumer has ended; begin a pause.

        Raises:
            StreamerError: so have many before it.
        """
        if self._tries >= _TRIES_MAX:
            raise StreamerError(f"the group cannot be joined, {_TRIES_MAX} consumers have ended one after the other: {reason}")
        self._at = self.clock.monotonic() + min(_PAUSE_S * 2.0**self._tries, _PAUSE_MAX_S)
        self._tries += 1
        self.reason, self._lost_at = reason, None

    def due(self) -> bool:
        """Whether the pause is over; true once."""
        if self._at is None or self.clock.monotonic() < self._at:
            return False
        self._at, self._joined_at = None, self.clock.monotonic()
        return True

    def joined(self) -> None:
        """The group has let us in."""
        self.reason, self._tries, self._lost_at = None, 0, None

    def lost(self) -> None:
        """The group took us for dead and gave our partitions away; the client joins again by itself."""
        self._lost_at = self.clock.monotonic()

    @property
    def outside(self) -> str | None:
        """Why we are not in the group; None when we are, and when a new consumer has had the time to be refused."""
        answered = self._at is None and self.clock.monotonic() - self._joined_at >= _ANSWERS_S
        return None if answered else self.reason

    @property
    def silent(self) -> bool:
        """Whether the group has said nothing since, for longer than it takes."""
        return self._lost_at is not None and self.clock.monotonic() - self._lost_at > SILENT_S
