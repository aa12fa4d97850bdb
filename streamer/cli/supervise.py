"""The parent of `streamer run --workers`: starts the children, starts again what dies, and ends all of them when told to.

Everything happens in one loop; a signal only leaves a note for it. So no child can be started behind a stop unseen.
"""

import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamer import limits
from streamer.telemetry.logs import get_logger

if TYPE_CHECKING:
    from subprocess import Popen

_log = get_logger(__name__)

Start = Callable[[int], "Popen[bytes]"]

_LOOK_EVERY_S = 0.1
# What a child says that starting it again would not help against; see the table of `streamer.errors`.
_FINAL = frozenset({2, 3, 4, 5, 6, 7, 9})
# The broker refuses its records (status 8): somebody may mend that, so it is tried again, but not for ever.
_REFUSED = 8
_SIGNALLED = 128


def supervise(start: Start, workers: int, drain_timeout_s: float) -> int:
    """Run children 0 to `workers` - 1 until all have ended; returns the exit status, the highest of theirs.

    SIGTERM and Ctrl-C are passed on. A child that has not ended within its drain budget and a margin is killed.

    Args:
        start: makes a child of a number.
        workers: how many.
        drain_timeout_s: how long a child may finish what it has read.
    """
    asked = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: asked.set())
    patience_s = drain_timeout_s + limits.STOP_MARGIN_S
    children: list[_Child] = []
    try:
        for number in range(workers):
            children.append(_Child(number, start))
            if asked.is_set():
                break
        while not asked.is_set() or any(child.running for child in children):
            time.sleep(_LOOK_EVERY_S)
            for child in children:
                if asked.is_set():
                    child.stop(patience_s)
                elif not child.kept():
                    asked.set()
    finally:
        # Only a failure of the parent itself comes here with children: they must not stay behind, holding their slots.
        _end(children, patience_s)
    return max(child.status for child in children)


def _end(children: "list[_Child]", patience_s: float) -> None:
    while any(child.running for child in children):
        for child in children:
            child.stop(patience_s)
        time.sleep(_LOOK_EVERY_S)


class _Child:
    """One worker process, its recent starts, and what it was told."""

    def __init__(self, number: int, start: Start) -> None:
        self.number, self._start = number, start
        self._starts: list[float] = []
        self._refused = 0
        self._killed = False
        self._deadline: float | None = None
        self._process = self._started()

    def _started(self) -> "Popen[bytes]":
        self._starts.append(time.monotonic())
        return self._start(self.number)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process.poll() is None

    @property
    def status(self) -> int:
        """How it ended, as a shell says it; one that had no handler yet when it was told to stop has nothing to regret."""
        code = self._process.returncode or 0
        if code in (-signal.SIGTERM, -signal.SIGINT) and self._deadline is not None:
            return 0
        return code if code >= 0 else _SIGNALLED - code

    def kept(self) -> bool:
        """Start it again if it has ended; False if that cannot help, or has not helped."""
        if self.running:
            return True
        now = time.monotonic()
        self._starts = [start for start in self._starts if start > now - limits.RESTARTS_WITHIN_S]
        self._refused += self.status == _REFUSED
        if self.status in _FINAL or len(self._starts) >= limits.RESTARTS_MAX or self._refused > limits.RESTARTS_REFUSED_MAX:
            _log.error("worker_ended", worker=self.number, status=self.status, then="all workers are stopped")
            return False
        _log.warning("worker_restarted", worker=self.number, status=self.status)
        self._process = self._started()
        return True

    def stop(self, patience_s: float) -> None:
        """Tell it once; after `patience_s` kill it."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + patience_s
            self._process.terminate()
        elif self.running and now > self._deadline and not self._killed:
            self._killed = True
            _log.error(
                "worker_killed", worker=self.number, waited_s=patience_s,
                then="it did not end; what it had not committed is done again at the next start",
            )  # fmt: skip
            self._process.kill()
