"""A small value of a field: what a feature function is tried on before there is an event."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import inspect as kinds

from streamer.topology.event import Event

_SMALL: dict[type[kinds.Type], Any] = {
    kinds.BoolType: True,
    kinds.IntType: 1,
    kinds.FloatType: 1.0,
    kinds.BytesType: b"",
    kinds.DateTimeType: datetime.fromtimestamp(0, UTC),
    kinds.DateType: datetime.fromtimestamp(0, UTC).date(),
    kinds.ListType: [],
    kinds.SetType: set(),
    kinds.FrozenSetType: frozenset(),
    kinds.VarTupleType: (),
    kinds.DictType: {},
}


def example_of(event: type[Event], name: str) -> Any:
    """A value of the type of a field: one, the empty text, no bytes, an empty list, a struct of these; not null if it can be."""
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
    if isinstance(info, kinds.StructType):
        return info.cls(**{field.name: _example(field.type, within=True) for field in info.fields if field.required})
    if isinstance(info, kinds.TupleType):
        return tuple(_example(one, within=True) for one in info.item_types)
    if isinstance(info, kinds.LiteralType):
        return info.values[0]
    if isinstance(info, kinds.EnumType):
        return next(iter(info.cls))
    return _SMALL.get(type(info), "")
