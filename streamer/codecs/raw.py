"""raw: an event is the record itself, its value, key and headers as bytes. What they mean, the user's functions know."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

from streamer.codecs.codec import NO_VALUE, Refusal, Written, each, too_large
from streamer.errors import TopologyError
from streamer.rows.records import Message, Records
from streamer.topology.event import Event

FIELDS: dict[str, tuple[Any, Any]] = {
    "value": (bytes, bytes | None),
    "key": (bytes, bytes | None),
    "headers": (dict[str, bytes], dict[str, bytes | None]),
}
"""What a record has, and the types that a class may declare it with: without null, and with it."""


@dataclass(slots=True)
class RawCodec:
    """Fills the fields `value`, `key` and `headers` of a class, those that it declares.

    Attributes:
        event: the class.
        record_bytes_max: a larger value is refused.
    """

    own_key: ClassVar[bool] = True
    event: type[Event]
    record_bytes_max: int
    _kinds: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        hints = get_type_hints(self.event)
        self._kinds = {name: hints[name] for name in self.event.__struct_fields__}

    @staticmethod
    def check(event: type[Event], where: str) -> None:
        """Whether a class can be filled from records as they are.

        Raises:
            TopologyError: it wants something that a record has not.
        """
        name, spec = event.__name__, event.__event__
        kinds = get_type_hints(event, include_extras=True)
        what = f"a record in format='raw' has {', '.join(FIELDS)}"
        if not event.__struct_fields__:
            raise TopologyError(f"{where}: {name} has no field; {what}: declare what is read of it, such as value: bytes")
        for one in event.__struct_fields__:
            if one not in FIELDS:
                raise TopologyError(f"{where}: {what}, and no {one}; leave {name}.{one} out, or read format='json'")
            if kinds[one] not in FIELDS[one]:
                whole, null = map(_shown, FIELDS[one])
                raise TopologyError(f"{where}: {name}.{one} is {_shown(kinds[one])}; in format='raw' it is {whole}, or {null}")
        if spec.key not in (None, "key"):
            raise TopologyError(f"{where}: in format='raw' the record key is the key of an event; leave key={spec.key!r} out")
        if spec.time is not None:
            raise TopologyError(f"{where}: in format='raw' the record timestamp is the time; leave time={spec.time!r} out")
        if any(one.kind is inspect.Parameter.KEYWORD_ONLY for one in inspect.signature(event).parameters.values()):
            raise TopologyError(f"{where}: {name} is filled by position in format='raw'; leave kw_only= out")

    def read(self, records: Records) -> tuple[list[Any], dict[int, Refusal]]:
        """The event of each record, None where it has none, and for those rows why."""
        headers = _headers(records.messages or [None] * len(records)) if "headers" in self._kinds else []
        refused = self._unfit(records, headers)
        there: dict[str, Sequence[Any]] = {"value": records.values, "key": records.keys, "headers": headers}
        columns = [there[name] for name in self.event.__struct_fields__]
        if not refused:
            return each(map(self.event, *columns), len(records), _reason)
        rows = [row for row in range(len(records)) if row not in refused]
        found, unfit = each(map(self.event, *([column[row] for row in rows] for column in columns)), len(rows), _reason)
        events: list[Any] = [None] * len(records)
        for row, event in zip(rows, found, strict=True):
            events[row] = event
        return events, refused | {rows[place]: why for place, why in unfit.items()}

    def write(self, event: Event) -> Written:
        """A record that reads as this event; where it has no field for it, the value is empty and the key null."""
        headers: dict[str, bytes | None] = getattr(event, "headers", {})
        return Written(getattr(event, "key", None), getattr(event, "value", b""), tuple(headers.items()))

    def _unfit(self, records: Records, headers: Sequence[dict[str, bytes | None] | None]) -> dict[int, Refusal]:
        """Rows that lack what a field must have, or have more than may be."""
        refused: dict[int, Refusal] = {}
        name, kinds, most = self.event.__name__, self._kinds, self.record_bytes_max
        for row, found in enumerate(headers):
            if found is None:
                refused[row] = "invalid_utf8", "the name of a header is not UTF-8"
            elif kinds["headers"] == FIELDS["headers"][0] and None in found.values():
                refused[row] = "wrong_type", f"a header has no value; {name}.headers takes that as dict[str, bytes | None]"
        if kinds.get("key") is bytes and None in records.keys:
            no_key = "null_key", f"the record has no key; {name}.key takes that as bytes | None"
            refused |= {row: no_key for row, key in enumerate(records.keys) if key is None}
        if kinds.get("value") is bytes and None in records.values:
            refused |= {row: NO_VALUE for row, value in enumerate(records.values) if value is None}
        if max(map(len, filter(None, records.values)), default=0) > most:
            refused |= {row: too_large(value, most) for row, value in enumerate(records.values) if value and len(value) > most}
        return refused


def _headers(messages: Sequence[Message | None]) -> list[dict[str, bytes | None] | None]:
    """Headers by name, of several with one name the last; None where a name is no text."""
    found: list[dict[str, bytes | None] | None] = []
    for message in messages:
        try:
            found.append(dict(message.headers() or ()) if message is not None else {})
        except UnicodeDecodeError:
            found.append(None)
    return found


def _reason(_row: int, error: Exception) -> Refusal:
    """What a `__post_init__` of the class has against a record."""
    return "wrong_type", str(error).split("\n", maxsplit=1)[0][:300] or type(error).__name__


def _shown(kind: Any) -> str:
    """A type as one writes it."""
    return kind.__name__ if isinstance(kind, type) else str(kind)
