"""A row is one event on its way into a topic; its event time can be read and moved whatever unit the class keeps it in."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from streamer.errors import StreamerError
from streamer.topology.event import Event, EventSpec, numeric_fields
from streamer.topology.event_key import key_text

_ENCODER = msgspec.json.Encoder()
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


class FeedError(StreamerError):
    """Rows cannot be read or sent; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event and its event time in microseconds (0 for a class without event time)."""

    event: Event
    time_us: int

    @property
    def key(self) -> bytes | None:
        """Record key: the key field as text, none where it is null."""
        field = type(self.event).__event__.key
        return None if field is None else key_text(getattr(self.event, field))

    @property
    def value(self) -> bytes:
        """Record value: the event as JSON."""
        return _ENCODER.encode(self.event)

    def moved(self, by_us: int) -> "Row":
        """The same event, `by_us` later."""
        spec = type(self.event).__event__
        if spec.time is None or by_us == 0:
            return self
        time_us = self.time_us + by_us
        old = getattr(self.event, spec.time)
        return Row(msgspec.structs.replace(self.event, **{spec.time: _as_field(time_us, spec, old)}), time_us)


def row_of(event: Event) -> Row:
    """The event with its time.

    Raises:
        ValueError: its time is no time, or a number is not finite (JSON cannot carry it).
    """
    for name in numeric_fields(type(event)):
        value = getattr(event, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} is {value}, which JSON cannot carry")
    spec = type(event).__event__
    if spec.time is None:
        return Row(event, 0)
    value = getattr(event, spec.time)
    if spec.time_unit == "iso":
        return Row(event, moment_us(value if isinstance(value, datetime) else datetime.fromisoformat(value)))
    return Row(event, round(value * (1_000_000 / _PER_SECOND[spec.time_unit])))


def time_number(text: str, spec: EventSpec) -> str | float:
    """A time as a file writes it, in the unit of the class: numbers stay, a date and time becomes a number of that unit.

    Raises:
        ValueError: neither a number nor a date and time.
    """
    if spec.time_unit == "iso" or _is_number(text):
        return text
    us = moment_us(datetime.fromisoformat(text))
    return us // 1_000_000 * _PER_SECOND[spec.time_unit] + us % 1_000_000 * _PER_SECOND[spec.time_unit] / 1_000_000


def _as_field(time_us: int, spec: EventSpec, old: object) -> object:
    if spec.time_unit != "iso":
        per_second = _PER_SECOND[spec.time_unit]
        return time_us * per_second // 1_000_000 if isinstance(old, int) else time_us * per_second / 1_000_000
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    return moment if isinstance(old, datetime) else moment.isoformat()


def moment_us(moment: datetime) -> int:
    """Microseconds since the epoch; a time without zone is UTC."""
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
