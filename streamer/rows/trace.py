"""The trace of a record: what W3C Trace Context has in its headers, which goes along with what comes of it.

It is carried as it is, and never made: a record without one, or with one that is not well-formed, leads to records without.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

Trace = tuple[tuple[str, bytes], ...]

NO_TRACE: Trace = ()
# Version 00 has 55 bytes, a later one may have more. W3C Trace Context asks to carry 512 of the state.
PARENT_BYTES_MAX, STATE_BYTES_MAX = 256, 512
# What a broker counts of a header beside its name and value.
HEADER_BYTES = 10
_PARENT, _STATE = "traceparent", "tracestate"
_TRACE_BYTES_MAX = PARENT_BYTES_MAX + STATE_BYTES_MAX + len(_PARENT) + len(_STATE) + 2 * HEADER_BYTES
_IDS = rb"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# Version 00 is known to the byte; a later one may say more behind a dash, and ff is none.
_WELL_FORMED = re.compile(rb"00-%b|(?!00|ff)[0-9a-f]{2}-%b(?:-[\x20-\x7e]*)?" % (_IDS, _IDS)).fullmatch
_STATE_TEXT = re.compile(rb"[\t\x20-\x7e]*").fullmatch


def trace_of(headers: Iterable[tuple[str, Any]]) -> Trace:
    """What of these headers is the trace: `traceparent`, and `tracestate` if there is any; none where it is not well-formed."""
    parents, states = [], []
    for name, value in headers:
        if name == _PARENT:
            parents.append(value)
        elif name == _STATE:
            states.append(value)
    # Of two nobody knows which one counts.
    if len(parents) != 1 or not _is_parent(parents[0]):
        return NO_TRACE
    parent = _PARENT, parents[0]
    return (parent, *_state_of(states)) if states else (parent,)


def _is_parent(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) <= PARENT_BYTES_MAX and _WELL_FORMED(value) is not None


def _state_of(values: list[Any]) -> Trace:
    """Several are one list; what is not well-formed or too long is left out, and the rest of the trace stays."""
    if not all(isinstance(value, bytes) and _STATE_TEXT(value) for value in values):
        return NO_TRACE
    state = b",".join(values)
    return ((_STATE, state),) if len(state) <= STATE_BYTES_MAX else NO_TRACE


def attach(messages: Sequence[dict[str, Any]], traces: Sequence[Trace], most: int) -> None:
    """Give each record its trace, as `headers`; one that would be too large for its topic with it goes without.

    Args:
        messages: as a producer takes them, with `key` and `value`; all of them have `headers` afterwards.
        traces: of each of them.
        most: bytes that the topic takes of a record.
    """
    for message, trace in zip(messages, traces, strict=True):
        room = most - len(message["key"] or b"") - len(message["value"])
        fits = room >= _TRACE_BYTES_MAX or size_of(trace) <= room
        message["headers"] = list(trace) if fits else []


def size_of(trace: Trace) -> int:
    """Bytes that a broker counts of it."""
    return sum(len(name) + len(value) + HEADER_BYTES for name, value in trace)
