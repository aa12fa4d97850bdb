"""What a person sees of a running worker: a line at the foot of the log, the live view, or nothing without a terminal.

Under `--workers` the children write their numbers between their log lines, and the parent makes one line of all of them.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

import msgspec
from rich.console import Console
from rich.live import Live

from streamer.cli.say import tell
from streamer.clock import SystemClock
from streamer.live.brief import MARK, Brief, together
from streamer.live.line import LastLines, StatusLine, every
from streamer.live.numbers import Watch
from streamer.live.view import Frame, draw

if TYPE_CHECKING:
    from streamer.worker.service import Service

# Set by the parent of `--workers`: numbers go to it.
CHILD = "STREAMER_STATUS"
_EVERY_S = 1.0
_PICTURE_EVERY_S = 0.5


class Foot:
    """How one process shows what it does.

    Args:
        live: the live view was asked for.
    """

    def __init__(self, *, live: bool = False) -> None:
        self._live = live and sys.stdout.isatty()
        self._kept = LastLines() if self._live else None
        self._line = StatusLine(sys.stderr) if sys.stderr.isatty() and not self._live else None

    @property
    def logs(self) -> TextIO | None:
        """Where logs must go so that they do not tear what is shown; None for standard error as it is."""
        return self._kept or (self._line.stream if self._line else None)

    def below(self, service: "Service", title: str) -> AbstractContextManager[None]:
        """Show what the service does while the block runs."""
        watch, clock = Watch(*(worker.metrics for worker in service.workers)), SystemClock()
        if self._live:
            return self._pictures(watch, title)
        if self._line is not None:
            return self._line.refreshed(lambda: str(Brief.of(watch, clock.monotonic())))
        if CHILD in os.environ:
            return every(_EVERY_S, lambda: _tell_parent(Brief.of(watch, clock.monotonic())))
        return nullcontext()

    @contextmanager
    def _pictures(self, watch: Watch, title: str) -> Iterator[None]:
        console, clock = Console(), SystemClock()
        started = clock.monotonic()

        def show() -> None:
            now = clock.monotonic()
            frame = Frame.of(
                watch, now, title=title, notice="Ctrl-C finishes what was read and ends", seconds=now - started, fed=None,
                total=None, anomalies=None,
            )  # fmt: skip
            picture.update(draw(frame, console.width, console.height), refresh=True)

        try:
            with Live(console=console, screen=True, auto_refresh=False) as picture, every(_PICTURE_EVERY_S, show):
                yield
        finally:
            tell(str(self._kept))


class ParentFoot:
    """The line of the parent of `--workers`, made of what its children tell.

    Args:
        workers: how many there are.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._line = StatusLine(sys.stderr) if sys.stderr.isatty() else None
        self._briefs: dict[int, Brief] = {}

    @property
    def logs(self) -> TextIO | None:
        """Where logs must go; None for standard error as it is."""
        return self._line.stream if self._line else None

    def shown(self) -> AbstractContextManager[None]:
        """Show the line while the block runs."""
        if self._line is None:
            return nullcontext()
        return self._line.refreshed(lambda: together(list(self._briefs.values()), self._workers))

    def start(self, number: int, command: list[str], *, console: bool) -> "subprocess.Popen[bytes]":
        """A child; in a terminal what it writes to standard error comes through here. `console`: its log is for people."""
        if self._line is None:
            return subprocess.Popen(command)
        environment = {**os.environ, CHILD: "1", **({"STREAMER_LOG__FORMAT": "console"} if console else {})}
        child = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        threading.Thread(
            target=self._listen, args=(number, child, self._line), name=f"streamer-hears-{number}", daemon=True
        ).start()
        return child

    def _listen(self, number: int, child: "subprocess.Popen[bytes]", line: StatusLine) -> None:
        assert child.stderr is not None, "it was started with a pipe"
        with child.stderr as told:
            for raw in told:
                text = raw.decode("utf-8", "replace")
                if text.startswith(MARK):
                    self._briefs[number] = msgspec.json.decode(text[len(MARK) :], type=Brief)
                else:
                    line.write(text)
                    line.flush()
        self._briefs.pop(number, None)


def _tell_parent(brief: Brief) -> None:
    sys.stderr.write(MARK + msgspec.json.encode(brief).decode() + "\n")
    sys.stderr.flush()
