"""A small value of a field: what a feature function is tried on before there is an event."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect as kinds

from streamer.topology.event import Event

_START = datetime.fromtimestamp(0, UTC)


def example_of(event: type[Event], name: str) -> Any:
    """A value of the type of a field: one, the empty text, no bytes, an empty list, a struct of these; not null if it can be.

    Text, bytes and lists are as long as the type says that they must be.
    """
    known = msgspec.inspect.type_info(event).fields  # type: ignore[attr-defined]  # of a class, which it is
    (field,) = (field for field in known if field.name == name)
    return _example(field.type)


def _example(info: kinds.Type, *, within: bool = False) -> Any:
    if isinstance(info, kinds.Metadata):
        return _example(info.type, within=within)
    if isinstance(info, kinds.UnionType):
        # A struct may hold one of its own kind, so what lies within it is null where it can be.
        given = [one for one in info.types if not isinstance(one, kinds.NoneType)]
        return None if within and len(given) < len(info.types) else _example(given[0], within=within)
    small = _SMALL.get(type(info))
    return small(info) if small else ""


def _required(info: Any) -> dict[str, Any]:
    """What must be said of something that has fields."""
    return {field.name: _example(field.type, within=True) for field in info.fields if field.required}


def _struct(info: Any) -> Any:
    try:
        return info.cls(**_required(info))
    except ValueError as error:
        name = info.cls.__name__
        why = f"{name} takes no small values ({error}), on which the function is tried"
        raise ValueError(f"{why}; give fields of {name} defaults that it takes") from error


def _items(info: Any) -> list[Any]:
    return [_example(info.item_type, within=True) for _ in range(_length(info))]


def _length(info: Any) -> int:
    return info.min_length or 0


_SMALL: dict[type[kinds.Type], Callable[[Any], Any]] = {
    kinds.NoneType: lambda _: None,
    kinds.BoolType: lambda _: True,
    kinds.IntType: lambda _: 1,
    kinds.FloatType: lambda _: 1.0,
    kinds.DecimalType: lambda _: Decimal(1),
    kinds.StrType: lambda info: "a" * _length(info),
    kinds.BytesType: lambda info: bytes(_length(info)),
    kinds.ByteArrayType: lambda info: bytearray(_length(info)),
    kinds.MemoryViewType: lambda info: memoryview(bytes(_length(info))),
    kinds.RawType: lambda _: msgspec.Raw(b"null"),
    kinds.UUIDType: lambda _: UUID(int=0),
    kinds.DateTimeType: lambda info: _START.replace(tzinfo=None) if info.tz is False else _START,
    kinds.TimeType: lambda info: _START.time() if info.tz is False else _START.timetz(),
    kinds.DateType: lambda _: _START.date(),
    kinds.TimeDeltaType: lambda _: timedelta(0),
    kinds.LiteralType: lambda info: info.values[0],
    kinds.EnumType: lambda info: next(iter(info.cls)),
    kinds.ListType: _items,
    kinds.VarTupleType: lambda info: tuple(_items(info)),
    kinds.TupleType: lambda info: tuple(_example(one, within=True) for one in info.item_types),
    kinds.SetType: lambda _: set(),
    kinds.FrozenSetType: lambda _: frozenset(),
    kinds.DictType: lambda _: {},
    kinds.StructType: _struct,
    kinds.DataclassType: _struct,
    kinds.NamedTupleType: _struct,
    kinds.TypedDictType: _required,
}
