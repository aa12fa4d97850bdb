"""What a format is to those who read and write records, and what all formats have in common."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from streamer.rows.records import Headers, Records
from streamer.topology.event import Event

Refusal = tuple[str, str]
"""Why a record cannot be used: a short code and a sentence."""

UNUSABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, ValueError)
"""What is raised where a record is no event, the user's own `__post_init__` included."""

NO_VALUE: Refusal = ("null_value", "the record has no value")


class Written(NamedTuple):
    """An event as a record."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Codec(Protocol):
    """One format, for one class of events.

    Attributes:
        event: the class.
        own_key: whether the record key is the key of an event by itself; else a field says it again, and must say the same.
    """

    event: type[Event]
    own_key: ClassVar[bool]

    def read(self, records: Records) -> tuple[list[Any], dict[int, Refusal]]:
        """The event of each record, None where it has none, and for those rows why."""

    def write(self, event: Event) -> Written:
        """A record that reads as this event."""


def too_large(value: bytes, size_max: int) -> Refusal:
    """Of a value that is not even looked at."""
    return "oversize", f"the value has {len(value):,} bytes, record_bytes_max is {size_max:,}"


def each(events: Iterator[Any], rows: int, why: Callable[[int, Exception], Refusal]) -> tuple[list[Any], dict[int, Refusal]]:
    """As many events as there are rows, from a `map` that raises where a row has none; `why` says what that means."""
    found: list[Any] = []
    refused: dict[int, Refusal] = {}
    while len(found) < rows:
        try:
            found.extend(events)
        except UNUSABLE as error:
            # The iterator goes on behind the record that failed, so its neighbours never notice.
            row = len(found)
            refused[row] = why(row, error)
            found.append(None)
    return found, refused
