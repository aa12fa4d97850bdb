"""ONNX Runtime's own lines, which it would write to stderr in colours, as events of our log."""

import logging
from typing import Final

import onnxruntime as ort

from streamer.telemetry.logs import get_logger

_log = get_logger("onnxruntime")

_WARNING: Final = 2
_LEVELS: Final = {0: logging.DEBUG, 1: logging.INFO, 2: logging.WARNING, 3: logging.ERROR, 4: logging.CRITICAL}


def listen() -> None:
    """From now on what ONNX Runtime says, of warnings and above, comes here; once for the process."""
    ort.set_default_logger_callback(_hear, _WARNING)


def _hear(severity: int, _category: str, session: str, where: str, text: str) -> None:
    name = {"session": session} if session else {}
    _log.log(_LEVELS.get(severity, logging.WARNING), "engine", source=where, text=text.strip(), **name)
