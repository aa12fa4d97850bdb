"""What a join is: each event of the source looks at events of the same key in another stream, near its own time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamer.errors import TopologyError, line_of_caller
from streamer.topology.event import Event
from streamer.units import Duration, parse_duration_us, parse_samples, span_name

# Stands for a field of a table where no field of it is read, or one may be null: NaN in it says that the row is deleted.
UNREAD = "-"
# Microseconds further apart than any two event times.
FAR = 1 << 61


@dataclass(frozen=True, slots=True)
class JoinWindow:
    """What an event at t sees of another stream: its events with times in [t + begin, t + end], microseconds.

    Attributes:
        name: how `over(name)` calls it; a number where the source looks back by count.
        begin_us, end_us: relative to the event, both inclusive.
        newest_only: only the newest so many of them; 0 for all.
    """

    name: str | int
    begin_us: int
    end_us: int
    newest_only: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """How another stream is seen; made by `interval`, `as_of` and `lagged`.

    Attributes:
        event: its class.
        sights: one or more.
        samples: most events of it that are kept for a key.
        table: whether it is one: a record without a value deletes the row of its key, as of the record's timestamp.
    """

    event: type[Event]
    sights: tuple[JoinWindow, ...]
    samples: int
    table: bool = False

    @property
    def ahead_us(self) -> int:
        """How far past an event's time its last sight ends; negative where all end before it."""
        return max(sight.end_us for sight in self.sights)


def interval(event: type[Event], *, before: Duration = "0s", after: Duration = "0s", max_samples: int = 256) -> Join:
    """Events of the other stream from `before` an event until `after` it, both ends included.

    With `after` an event waits until both streams have passed that time.

    Args:
        event: class of the other stream.
        before: a duration, such as "10m".
        after: another one.
        max_samples: most events of the other stream kept for a key; beyond it the oldest go, and are counted in
            `streamer_window_truncated_total` if an event could still have seen them.

    Raises:
        TopologyError: a duration or number is out of range; the message starts with the line.
    """
    try:
        sight = JoinWindow("interval", -parse_duration_us(before), parse_duration_us(after))
        return _join(event, (sight,), max_samples)
    except ValueError as error:
        raise TopologyError(f"{line_of_caller()}: interval(): {error}") from error


def as_of(event: type[Event], *, max_age: Duration | None = None, max_samples: int = 1) -> Join:
    """The newest event of the other stream that is not after an event, as of event time: a stream joined to a table.

    A record without a value (a tombstone) deletes the row of its key: events at or after the record's timestamp see none, until
    there is a newer one.

    Args:
        event: class of the other stream.
        max_age: what is older is not seen.
        max_samples: with more than one, an event that comes later than `out_of_order` allows still meets an older version.

    Raises:
        TopologyError: a duration or number is out of range; the message starts with the line.
    """
    try:
        begin = -FAR if max_age is None else -parse_duration_us(max_age)
        return replace(_join(event, (JoinWindow("latest", begin, 0, newest_only=1),), max_samples), table=True)
    except ValueError as error:
        raise TopologyError(f"{line_of_caller()}: as_of(): {error}") from error


def lagged(event: type[Event], *spans: Duration, delay: Duration, max_samples: int = 256) -> Join:
    """A window over what was known `delay` ago: events of the other stream in (t - delay - span, t - delay].

    Args:
        event: class of the other stream, such as labels that carry the time of what they speak of.
        spans: widths, such as "1d", "7d", "30d"; with several, `w.of(Label).over("7d")` names one.
        delay: how long it takes until labels are complete.
        max_samples: most events of the other stream kept for a key; beyond it the oldest go.

    Raises:
        TopologyError: a duration or number is out of range; the message starts with the line.
    """
    try:
        end = -parse_duration_us(delay)
        return _join(event, [JoinWindow(span, end - width + 1, end) for span, width in _widths(spans).items()], max_samples)
    except ValueError as error:
        raise TopologyError(f"{line_of_caller()}: lagged(): {error}") from error


def _widths(spans: tuple[Duration, ...]) -> dict[str, int]:
    widths = {span_name(span): parse_duration_us(span) for span in spans}
    if not widths or 0 in widths.values() or len(set(widths.values())) < len(spans):
        raise ValueError(f"give each span once, such as lagged(Label, '1d', '7d', delay='7d'), not {spans}")
    return widths


def _join(event: type[Event], sights: Sequence[JoinWindow], samples: int) -> Join:
    if not (isinstance(event, type) and issubclass(event, Event) and event is not Event):
        raise ValueError("it takes an Event class with a topic, such as class L(Event, topic='t', key='k')")
    return Join(event, tuple(sights), parse_samples(samples))
