"""Ends a worker that hangs: nothing in it can, and whoever started it (`--workers`, an orchestrator) starts it again."""

import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager

from streamer.live.line import every
from streamer.telemetry.logs import get_logger

_log = get_logger(__name__)

_EVERY_S = 5.0
# A process that was stopped for minutes (a machine that slept) looks as if it hung until its loop has turned again.
_LOOKS = 3
_FRAMES = 4
_STATUS = 1


def ended_when_hanging(live: Callable[[], str | None], every_s: float = _EVERY_S) -> AbstractContextManager[None]:
    """While the block runs, end the process once `live` has named a reason several times in a row.

    Args:
        live: why the process should be restarted; None while all is well.
        every_s: how often it is asked.
    """
    seen = 0

    def look() -> None:
        nonlocal seen
        reason = live()
        seen = 0 if reason is None else seen + 1
        if seen == _LOOKS:
            then = "this process ends; what is not committed is done again"
            _log.error("worker_hangs", reason=reason, where=_standing(), then=then)
            sys.stderr.flush()
            os._exit(_STATUS)

    return every(every_s, look)


def _standing() -> dict[str, list[str]]:
    """Where each thread is: its innermost calls, the last one last."""
    frames, me = sys._current_frames(), threading.get_ident()  # noqa: SLF001 - nothing public says where another thread is
    stacks = {
        thread.name: traceback.extract_stack(frames[thread.ident])[-_FRAMES:]
        for thread in threading.enumerate()
        if thread.ident in frames and thread.ident != me
    }
    return {name: [f"{call.filename}:{call.lineno} {call.name}" for call in stack] for name, stack in stacks.items()}
