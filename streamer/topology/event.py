"""An `Event` is one class that gives decoding, validation, topic, key and event time of an input."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, dataclass_transform, get_type_hints

import msgspec

from streamer.errors import TopologyError, line_of_caller

TimeUnit = Literal["s", "ms", "us", "iso"]
_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "iso")


@dataclass(frozen=True, slots=True)
class EventSpec:
    """Where an event comes from and what its key and time are.

    Attributes:
        topic: Kafka topic.
        key: field that must equal the record key; None when the flow is not keyed.
        time: field holding the event time; None means the record timestamp.
        time_unit: unit of that field: seconds, milliseconds, microseconds since the epoch, or ISO-8601 text.
        codec: name of the value format. "json" is the one there is; the seam is `stages.decode`.
    """

    topic: str
    key: str | None
    time: str | None
    time_unit: TimeUnit
    codec: str


@dataclass_transform(kw_only_default=False)
class _EventMeta(msgspec.StructMeta):
    """Takes `topic=`, `key=`, `time=` from the class line and checks them against the fields."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        topic: str | None = None,
        key: str | None = None,
        time: str | None = None,
        time_unit: TimeUnit = "s",
        codec: str = "json",
        **struct: Any,
    ) -> Any:
        struct.setdefault("gc", False)
        cls: Any = super().__new__(mcls, name, bases, namespace, **struct)
        if topic is not None:
            spec = EventSpec(topic, key, time, time_unit, codec)
            _check(f"{line_of_caller(1)}: class {name}", cls, spec)
            cls.__event__ = spec
        return cls


def _check(where: str, cls: Any, spec: EventSpec) -> None:
    fields = cls.__struct_fields__
    for role, field in (("key", spec.key), ("time", spec.time)):
        if field is not None and field not in fields:
            raise TopologyError(f"{where}: {role}={field!r} is not a field; fields are {', '.join(fields)}")
    if spec.time_unit not in _UNITS:
        raise TopologyError(f"{where}: time_unit={spec.time_unit!r} is not one of {', '.join(_UNITS)}")
    if spec.codec != "json":
        raise TopologyError(f"{where}: codec={spec.codec!r} is not available; use codec='json'")


class Event(msgspec.Struct, metaclass=_EventMeta):
    """Base of every input record.

    Example::

        class Reading(Event, topic="sensor.readings", key="sensor_id", time="ts"):
            sensor_id: str
            ts: float        # seconds since the epoch
            value: float
    """

    __event__ = EventSpec("", None, None, "s", "json")


@cache
def declared_types(event: type[Event]) -> dict[str, str]:
    """Field -> its type, as one would write it."""
    hints = get_type_hints(event)
    return {f: hints[f].__name__ if isinstance(hints[f], type) else str(hints[f]) for f in event.__struct_fields__}


@cache
def numeric_fields(event: type[Event]) -> tuple[str, ...]:
    """Fields that can enter a window: declared float, int or bool, in order of declaration."""
    hints = get_type_hints(event)
    return tuple(f for f in event.__struct_fields__ if hints[f] in (float, int, bool))
