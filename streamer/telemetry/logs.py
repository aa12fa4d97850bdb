"""Logs of the service and its libraries as one stream: JSON lines in production, readable in a terminal.

Secrets do not reach the stream: a configuration key is shown only where the allow-list names it, a name that
looks like a secret hides its value, and the secrets this process was given are cut out of any text. Text that comes from
records or from a library cannot steer the terminal either.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import Processor

from streamer.limits import LOG_WINDOW_S
from streamer.settings.kafka_keys import SHOWN, Secret
from streamer.settings.secrets import REDACTED, know, redacted
from streamer.telemetry.plain import plain, plain_json, plain_lines
from streamer.telemetry.restraint import Kind, RestrainedHandler

_DEPTH_MAX: Final = 6  # of nested values in one log line; deeper ones are printed as text, redacted as text

_SECRET_NAME: Final = re.compile(
    r"(?i)^(sasl|ssl)\.|pass(word|phrase|wd)|secret|token|credential|authorization|api.?key|private.?key|\.pem$"
)

# What they tell of a good day is noise: one line per request, how a server starts and ends. Their warnings come.
_QUIET: Final = ("uvicorn", "uvicorn.access", "aiokafka", "asyncio", "numba")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module: `log.info("what_happened", partition=3)`.

    Until `configure_logs` runs, warnings go to stderr the way the standard library does it.
    """
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            *_common_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def configure_logs(
    level: str = "info",
    fmt: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
    secrets: Iterable[str] | None = None,
) -> None:
    """Send all logs of this process to `stream`, those of uvicorn, faust and other libraries included.

    Args:
        level: least level shown: debug, info, warning or error.
        fmt: "auto" is "console" in a terminal and "json" elsewhere.
        stream: stderr by default, so that stdout stays free for results.
        secrets: values that must never appear, whatever text they end up in (`Settings.secrets()`);
            None: those that are known already.
    """
    target = stream if stream is not None else sys.stderr
    terminal = target.isatty()
    if secrets is not None:
        know(secrets)
    handler = RestrainedHandler(target, _held_back)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_common_processors(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([_harmless, _console(colors=terminal)] if fmt == "console" or (fmt == "auto" and terminal) else [_json]),
            ],
        )
    )
    root = logging.getLogger()
    for former in root.handlers:
        if isinstance(former, RestrainedHandler):
            former.close()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"uvicorn", "faust", "mode", "aiokafka"}:
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(capture=True)


def tell_of_bugs() -> None:
    """Let every traceback of this process go to the log, whose text is harmless; set one up if there is none."""
    if not any(isinstance(handler, RestrainedHandler) for handler in logging.getLogger().handlers):
        configure_logs("warning")
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread is not None else "?"
        get_logger(__name__).error("thread_failed", thread=name, exc_info=failed.exc_value)


def _unraisable(failed: "sys.UnraisableHookArgs") -> None:
    get_logger(__name__).error("failed_unheard", of=repr(failed.object), exc_info=failed.exc_value)


def _held_back(kind: Kind, lines: int) -> None:
    what = {"source": kind.source} if kind.source else {}
    get_logger(kind.logger).warning("held_back", lines=lines, said=kind.event, **what, within_s=LOG_WINDOW_S)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that replaces every secret in `event`; it runs after exceptions became text."""
    for name, value in event.items():
        if name not in ("_record", "_from_structlog"):
            event[name] = _clean(name, value)
    return event


def _common_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # text without local variables: they hold the secrets
        redact,
    ]


def _console(*, colors: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=32)


def _harmless(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Text that is printed as it is loses its controls; of other values `repr` is printed, which has none."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = plain_lines(value) if name in ("exception", "stack") else plain(value)
    return event


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    try:
        return plain_json(orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode())
    except TypeError:  # a lone surrogate or an integer beyond 64 bits; a log line must come out all the same
        return json.dumps(event, default=repr, skipkeys=True)


def _clean(name: str, value: Any, depth: int = 0) -> Any:
    """`value` without secrets; containers become dicts and lists, strange objects their redacted `repr`."""
    if isinstance(value, Secret) or (name not in SHOWN and _SECRET_NAME.search(name)):
        return REDACTED
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth < _DEPTH_MAX and isinstance(value, Mapping):
        return {redacted(str(key)): _clean(str(key), inner, depth + 1) for key, inner in value.items()}
    if depth < _DEPTH_MAX and isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(name, inner, depth + 1) for inner in value]
    return redacted(value if isinstance(value, str) else repr(value))
