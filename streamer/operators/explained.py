"""What a flow does, in words: what it reads, what becomes of a row step by step, and what it writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamer.topology.event import Event, Format, declared_types
from streamer.topology.event_key import key_field


@dataclass(frozen=True, slots=True)
class Explained:
    """One flow.

    Attributes:
        group: consumer group that reads it.
        reads: topic -> what its records are.
        steps: name of each step and what it does, in the order of the data.
        writes: topic -> what is published there.
        schemas: topic -> name of the schema of its records, of those that have one.
    """

    group: str
    reads: Mapping[str, str]
    steps: Sequence[tuple[str, str]]
    writes: Mapping[str, str]
    schemas: Mapping[str, str]


def fields_of(event: type[Event], format: Format = "json") -> str:  # noqa: A002 - the word of `.source`
    """Class, format unless it is JSON, fields with types, and which of them is key or event time."""
    roles = {key_field(event, format): " (key)", event.__event__.time: " (event time)"}
    fields = (f"{field} {kind}{roles.get(field, '')}" for field, kind in declared_types(event).items())
    return f"{event.__name__}{'' if format == 'json' else f' ({format})'}: {', '.join(fields)}"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    return ", ".join(names) or "nothing"
