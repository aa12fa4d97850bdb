"""The key field of an event as the bytes of a record key: one rule for who reads records, who checks them and who makes them."""

from enum import Enum
from typing import Any, get_type_hints

import msgspec

from streamer.errors import TopologyError
from streamer.topology.event import Event, Format


def key_text(value: Any) -> bytes | None:
    """Text in UTF-8, digits of a whole number, the same of an enum's value; None for null, which is no key."""
    if isinstance(value, Enum):
        value = value.value
    return None if value is None else str(value).encode("utf-8", "surrogatepass")


def key_field(event: type[Event], format: Format) -> str | None:  # noqa: A002 - the word of `.source`
    """The field that says what the record key is; a record in the format raw has a key whether a field holds it or not."""
    return "key" if format == "raw" else event.__event__.key


def check_key(event: type[Event], field: str | None, where: str) -> None:
    """Whether a field can be a key: its type says that it holds text or whole numbers, and null at the most.

    What JSON writes in several ways (1 and 1.0, true and True) is no key: the record key, made by somebody else's program, would
    differ from our text of it.

    Raises:
        TopologyError: it cannot.
    """
    if field is None:
        return
    declared = get_type_hints(event, include_extras=True)[field]
    if not _is_key(msgspec.inspect.type_info(declared)):
        kind = declared.__name__ if isinstance(declared, type) else declared
        raise TopologyError(
            f"{where}: a key is text or a whole number, and {event.__name__}.{field} is {kind}; "
            "declare it as str or int (or a Literal or an Enum of those; null at the most beside them)"
        )


def _is_key(info: msgspec.inspect.Type) -> bool:
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    kinds = tuple(kind for kind in kinds if not isinstance(kind, msgspec.inspect.NoneType))
    return bool(kinds) and all(map(_has_one_text, kinds))


def _has_one_text(info: msgspec.inspect.Type) -> bool:
    if isinstance(info, msgspec.inspect.Metadata):
        return _has_one_text(info.type)
    return isinstance(
        info, msgspec.inspect.StrType | msgspec.inspect.IntType | msgspec.inspect.LiteralType | msgspec.inspect.EnumType
    )
