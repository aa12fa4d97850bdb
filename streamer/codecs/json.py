"""json: an event is the JSON object in the value of a record."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import msgspec

from streamer.codecs.codec import NO_VALUE, UNUSABLE, Refusal, Written, each, too_large
from streamer.errors import TopologyError
from streamer.rows.records import Records
from streamer.topology.event import Event
from streamer.topology.event_key import key_text

# Bytes of small values that are copied into one text to look at them all at once.
_LOOKED_AT_TOGETHER = 1 << 20


@dataclass(slots=True)
class JsonCodec:
    """Reads values as JSON objects of a class.

    Attributes:
        event: the class.
        record_bytes_max: a larger value is refused unread.
    """

    own_key: ClassVar[bool] = False
    event: type[Event]
    record_bytes_max: int
    _decoder: msgspec.json.Decoder[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._decoder = msgspec.json.Decoder(self.event)

    @staticmethod
    def check(event: type[Event], where: str) -> None:
        """Whether a class can be read from JSON.

        Raises:
            TopologyError: a field has a type that nobody could tell from another one.
        """
        try:
            msgspec.json.Decoder(event)
        except TypeError as error:
            reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
            raise TopologyError(f"{where}: {event.__name__} cannot be read from JSON: {reason}") from error

    def read(self, records: Records) -> tuple[list[Any], dict[int, Refusal]]:
        """The event of each record, None where it has none, and for those rows why."""
        raw, most = records.values, self.record_bytes_max
        values, suspect = _readable(raw, most)
        decoded = map(self._decoder.decode, values)
        events, refused = each(decoded, len(values), lambda row, error: _reason(error, raw[row], most))
        for row in suspect:
            # The decoder looks at no text of fields that the class does not name.
            if row not in refused and (refusal := _no_utf8(values[row])):
                events[row], refused[row] = None, refusal
        return events, refused

    def write(self, event: Event) -> Written:
        """A record that reads as this event, keyed by its key field."""
        name = self.event.__event__.key
        return Written(key_text(getattr(event, name)) if name else None, msgspec.json.encode(event))


def _readable(values: list[bytes | None], size_max: int) -> tuple[list[bytes], Iterable[int]]:
    """The values, with nothing in place of those that must not be parsed; and rows that may not be UTF-8."""
    whole = cast("list[bytes]", values)  # a null among them has no length, which is met below
    try:
        size = sum(map(len, whole))
        if size <= size_max or max(map(len, whole)) <= size_max:
            return whole, _suspect(whole, size)
    except TypeError:
        pass
    readable = [b"" if value is None or len(value) > size_max else value for value in values]
    return readable, _suspect(readable, sum(map(len, readable)))


def _suspect(values: list[bytes], size: int) -> Iterable[int]:
    """Rows that may not be UTF-8: none as a rule, which one look at all of them tells."""
    if size <= _LOOKED_AT_TOGETHER:
        together = b"\n".join(values)
        if together.isascii() or _no_utf8(together) is None:
            return ()
    return [row for row, value in enumerate(values) if not value.isascii()]


def _reason(error: Exception, value: bytes | None, size_max: int) -> Refusal:
    """Why a record cannot be used, as a short code and a sentence."""
    if value is None:
        return NO_VALUE
    if not value.strip():
        return "empty_value", "the value is empty"
    if len(value) > size_max:
        return too_large(value, size_max)
    text = str(error).split("\n", maxsplit=1)[0][:300]
    if isinstance(error, RecursionError):
        return "too_deep", "the JSON is nested too deeply"
    if "out of range" in text:
        return "number_out_of_range", text
    malformed = _malformed(value) if "missing required field" in text else None
    if isinstance(error, msgspec.ValidationError) and malformed is None:
        return ("missing_field" if "missing required field" in text else "wrong_type"), text
    return _no_utf8(value) or ("invalid_json", malformed or text)


def _no_utf8(value: bytes) -> Refusal | None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return "invalid_utf8", f"the value is not UTF-8: {error.reason} at byte {error.start}"
    return None


def _malformed(value: bytes) -> str | None:
    """What behind the first object makes it no JSON, if anything: fields are judged before the end is read."""
    try:
        msgspec.json.decode(value)
    except UNUSABLE as error:
        return str(error)
    return None
