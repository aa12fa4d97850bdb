"""A worker that is told to stop before it is one: it holds nothing yet, so it ends at once, with status 0.

Imports take a second, and a signal without a handler ends a process with a status that looks like a crash. Before Python runs
any line of ours it takes some 20 ms more; who starts a worker covers these by `stops_held`.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_STOPS = (signal.SIGTERM, signal.SIGINT)


def leave_when_told() -> None:
    """From now on SIGTERM and Ctrl-C end this process with status 0, also one that came before; until others take over."""
    for sign in _STOPS:
        signal.signal(sign, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


@contextmanager
def stops_held() -> Iterator[None]:
    """What is started inside gets SIGTERM and Ctrl-C only once it asks for them, by `leave_when_told`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
