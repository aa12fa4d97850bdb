"""No line may flood the log: of lines that say the same only the first few are written, and how many were held back.

A client whose broker is away says so hundreds of times a second, a model that refuses its rows once for each.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TextIO

from streamer import limits
from streamer.clock import Clock, SystemClock

_OURS: Final = "streamer"


class Kind(NamedTuple):
    """What makes lines alike: who says it, what, and from where in a library."""

    logger: str
    event: str
    source: str


@dataclass(slots=True)
class _Window:
    """A kind's lines since `since`."""

    since: float
    said: int = 0
    held: int = 0


class Restraint:
    """Decides which lines are written. Not thread-safe.

    Args:
        clock: times the windows.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[Kind, _Window] = {}

    def passes(self, kind: Kind) -> bool:
        """Whether a line of that kind is to be written now."""
        now = self._clock.monotonic()
        if len(self._windows) >= limits.LOG_KINDS_MAX and kind not in self._windows:
            return True  # as many kinds as this are no flood of one
        window = self._windows.setdefault(kind, _Window(now))
        most = limits.LOG_LINES_OURS_MAX if kind.logger.partition(".")[0] == _OURS else limits.LOG_LINES_THEIRS_MAX
        if window.said < most:
            window.said += 1
            return True
        window.held += 1
        return False

    def over(self, *, all_of_them: bool = False) -> Iterator[tuple[Kind, int]]:
        """Kinds whose time is over, each with how many lines were held back; forgets them."""
        now = self._clock.monotonic()
        for kind, window in list(self._windows.items()):
            if all_of_them or now - window.since >= limits.LOG_WINDOW_S:
                del self._windows[kind]
                if window.held:
                    yield kind, window.held


class RestrainedHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream what a `Restraint` lets through, and at the end of its time says what was held back.

    Args:
        stream: where to.
        tell: logs how many lines of a kind were held back.
        clock: times the windows.
    """

    def __init__(self, stream: TextIO, tell: Callable[[Kind, int], None], clock: Clock | None = None) -> None:
        super().__init__(stream)
        self._restraint, self._tell_of = Restraint(clock or SystemClock()), tell
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it; the caller holds the handler's lock."""
        self._tell()
        if self._restraint.passes(kind_of(record)):
            super().emit(record)
        elif self._timer is None:
            # Nothing may come that could tell of it: who floods may as well fall silent.
            self._timer = threading.Timer(limits.LOG_WINDOW_S, self.flush_held)
            self._timer.daemon = True
            self._timer.start()

    def flush_held(self) -> None:
        """Say now what is held back."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._tell(all_of_them=True)
        finally:
            self.release()

    def close(self) -> None:
        """Say what is held back, and end."""
        if not self.stream.closed:
            self.flush_held()
        super().close()

    def _tell(self, *, all_of_them: bool = False) -> None:
        for kind, held in list(self._restraint.over(all_of_them=all_of_them)):
            self._tell_of(kind, held)


def kind_of(record: logging.LogRecord) -> Kind:
    """What a line is like. Of a library's own lines the text before its numbers and names are filled in."""
    if isinstance(record.msg, dict):
        event = record.msg
        where = " ".join(str(event[name]) for name in ("said", "source") if name in event)
        return Kind(record.name, str(event.get("event")), where)
    return Kind(record.name, str(record.msg), "")
