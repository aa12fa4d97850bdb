"""An `Event` is one class that gives decoding, validation, key and time of an input, and its topic unless `.source` does."""

from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, dataclass_transform, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from streamer.errors import TopologyError, line_of_caller

TimeUnit = Literal["s", "ms", "us", "iso"]
_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)

Format = Literal["json", "raw"]
"""How a record says what its event is: fields of a JSON object, or value, key and headers as they are."""
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True)
class EventSpec:
    """What the key and the time of an event are, and where it comes from unless `.source` says so.

    Attributes:
        topic: Kafka topic; empty where the class names none.
        key: field that must equal the record key; None when the flow is not keyed.
        time: field holding the event time; None means the record timestamp.
        time_unit: unit of that field: seconds, milliseconds, microseconds since the epoch, or ISO-8601 text.
    """

    topic: str
    key: str | None
    time: str | None
    time_unit: TimeUnit


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
        **struct: Any,
    ) -> Any:
        where = f"{line_of_caller()}: class {name}"
        for word in struct.keys() & {"codec", "format"}:
            said = f".source({name}, format={struct[word]!r}) instead of {word}="
            raise TopologyError(f"{where}: the format is the source's; write {said}")
        struct.setdefault("gc", False)
        cls: Any = super().__new__(mcls, name, bases, namespace, **struct)
        if topic is not None or key is not None or time is not None:
            spec = EventSpec(cls.__event__.topic if topic is None else topic, key, time, time_unit)
            _check(where, cls, spec)
            cls.__event__ = spec
        return cls


def _check(where: str, cls: Any, spec: EventSpec) -> None:
    fields = cls.__struct_fields__
    for role, field in (("key", spec.key), ("time", spec.time)):
        if field is not None and field not in fields:
            raise TopologyError(f"{where}: {role}={field!r} is not a field; fields are {', '.join(fields)}")
    if spec.time_unit not in _UNITS:
        raise TopologyError(f"{where}: time_unit={spec.time_unit!r} is not one of {', '.join(_UNITS)}")


class Event(msgspec.Struct, metaclass=_EventMeta):
    """Base of every input record. `topic=` may stand at `.source(Reading, topic=...)` instead, which goes before.

    Example::

        class Reading(Event, topic="sensor.readings", key="sensor_id", time="ts"):
            sensor_id: str
            ts: float        # seconds since the epoch
            value: float
    """

    __event__ = EventSpec("", None, None, "s")


@cache
def declared_types(event: type[Event]) -> dict[str, str]:
    """Field -> its type, as one would write it."""
    hints = get_type_hints(event)
    return {f: hints[f].__name__ if isinstance(hints[f], type) else str(hints[f]) for f in event.__struct_fields__}


_DTYPES: dict[Any, np.dtype[Any]] = {float: np.dtype(np.float64), int: np.dtype(np.int64), bool: np.dtype(np.bool_)}


@cache
def column_dtypes(event: type[Event]) -> dict[str, np.dtype[Any]]:
    """Field -> dtype of its column, for numbers in order of declaration; one that may be null is float64, with NaN for null."""
    kinds = {f: _number(hint) for f, hint in get_type_hints(event).items()}
    return {f: _DTYPES[float if f in nullable_fields(event) else kinds[f]] for f in event.__struct_fields__ if kinds[f]}


@cache
def nullable_fields(event: type[Event]) -> frozenset[str]:
    """Fields declared float, int or bool, or None."""
    return frozenset(f for f, hint in get_type_hints(event).items() if _number(hint) not in (None, hint))


def _number(hint: Any) -> Any:
    """Which of float, int and bool a type is, be it with None or without; None where it is another one."""
    kinds = [each for each in get_args(hint) if each is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    return kinds[0] if len(kinds) == 1 and kinds[0] in _DTYPES else None


def numeric_fields(event: type[Event]) -> tuple[str, ...]:
    """Fields that can enter a window: declared float, int or bool, or None, in order of declaration."""
    return tuple(column_dtypes(event))
