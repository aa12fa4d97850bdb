"""A line at the foot of a terminal that refreshes in place, while log lines go on above it."""

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TextIO, cast

from streamer.telemetry.plain import plain

_ERASE = "\r\x1b[K"
_EVERY_S = 1.0
_LET_GO_S = 2.0
_LINES_KEPT = 20


class StatusLine:
    """A stream for logs with a line below what is written to it.

    Args:
        target: the terminal.
    """

    def __init__(self, target: IO[str]) -> None:
        self._target, self._lock = target, threading.Lock()
        self._shown = ""
        self.closed = False

    @property
    def stream(self) -> TextIO:
        """Itself, for who wants a text stream and only writes to it."""
        return cast("TextIO", self)

    def isatty(self) -> bool:
        """As the terminal says."""
        return self._target.isatty()

    def write(self, text: str) -> int:
        """Write whole lines above the line."""
        with self._lock:
            self._target.write((_ERASE if self._shown else "") + text + (self._shown if text.endswith("\n") else ""))
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        with self._lock:
            self._target.flush()

    def show(self, line: str) -> None:
        """Put another line in place; an empty one takes it away."""
        with self._lock:
            # The last column stays free: a terminal would wrap there.
            self._shown = plain(line)[: self._width() - 1]
            self._target.write(_ERASE + self._shown)
            self._target.flush()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._target.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    @contextmanager
    def refreshed(self, line: Callable[[], str]) -> Iterator[None]:
        """Show `line()` every second while the block runs, and nothing behind it."""
        try:
            with every(_EVERY_S, lambda: self.show(line())):
                yield
        finally:
            self.show("")


class LastLines(io.StringIO):
    """A stream that keeps the last lines: logs would tear a picture, and are wanted when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)

    def write(self, text: str, /) -> int:
        """Keep the lines of a text."""
        self._lines.extend(text.splitlines())
        return len(text)

    def __str__(self) -> str:
        return "\n".join(self._lines)


@contextmanager
def every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again, on a thread of its own, while the block runs."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=work, name="streamer-foot", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LET_GO_S)
