"""What can go wrong, as a tree. Bad input is a value (a dead letter), never one of these.

StreamerError
├── TopologyError     the declaration is wrong; names the file and line
├── SettingsError     a setting is unknown, malformed or breaks a guarantee
├── MissingExtraError an optional dependency is not installed
├── TopicError        a topic is missing or has the wrong shape
├── ModelError        a model cannot be found, loaded or run
├── StateError        the changelog and the committed offsets do not agree
├── LostOffsetsError  a committed offset is no longer in the log
├── FencedError       another worker holds our transactional id, or our name in the group
├── RefusedError      the brokers refuse what we write, and trying again has not helped
└── DeadLetterFloodError  too much of the input is bad, and the settings say to stop then
"""

import sys


class StreamerError(Exception):
    """Base of everything the service raises on purpose; the message says what to do."""

    exit_code = 1


class TopologyError(StreamerError):
    """The declaration of a flow is wrong; the message starts with file and line."""

    exit_code = 2


class SettingsError(StreamerError):
    """A setting is unknown, malformed or would break a guarantee."""

    exit_code = 2


class MissingExtraError(StreamerError):
    """An optional dependency is not installed; the message is the command that installs it."""

    exit_code = 2


class TopicError(StreamerError):
    """A topic is missing, or its partitions do not fit the topology."""

    exit_code = 3


class ModelError(StreamerError):
    """A model cannot be found, loaded, or does not fit the topology."""

    exit_code = 4


class StateError(StreamerError):
    """The changelog and the committed offsets contradict each other; starting would give wrong windows."""

    exit_code = 5


class LostOffsetsError(StreamerError):
    """Committed offsets are no longer in the log, and no policy allows to jump."""

    exit_code = 6


class FencedError(StreamerError):
    """Another live worker uses the same transactional id or the same name in the group."""

    exit_code = 7


class RefusedError(StreamerError):
    """The brokers refuse a record or a right, again and again; the message names the record and the setting."""

    exit_code = 8


class DeadLetterFloodError(StreamerError):
    """Dead letters passed the share at which the settings ask to stop."""

    exit_code = 9


def line_of_caller() -> str:
    """File and line that called into this package: the user's, for messages about a declaration."""
    frame = sys._getframe(1)  # noqa: SLF001 - there is no public way that does not walk the whole stack
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(("streamer.", "importlib.")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
