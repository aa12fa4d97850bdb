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
    return Row(event, time_us_of(event))


def time_us_of(event: Event) -> int:
    """Event time in microseconds, 0 for a class without.

    Raises:
        ValueError: it is no time.
    """
    spec = type(event).__event__
    if spec.time is None:
        return 0
    value = getattr(event, spec.time)
    if spec.time_unit == "iso":
        return moment_us(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    us: float = value * (1_000_000 / _PER_SECOND[spec.time_unit])
    return round(us)


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
    """A time as the field has it: of its type, and where it is a date and time, in the zone of the old one."""
    if spec.time_unit != "iso":
        per_second = _PER_SECOND[spec.time_unit]
        return time_us * per_second // 1_000_000 if isinstance(old, int) else time_us * per_second / 1_000_000
    written = old if isinstance(old, datetime) else datetime.fromisoformat(str(old))
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    moment = moment.astimezone(written.tzinfo) if written.tzinfo else moment.replace(tzinfo=None)
    if isinstance(old, datetime):
        return moment
    return moment.isoformat().replace("+00:00", "Z") if str(old).endswith("Z") else moment.isoformat()


def moment_us(moment: datetime) -> int:
    """Microseconds since the epoch; a time without zone is UTC."""
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
