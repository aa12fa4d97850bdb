"""Checks of a declaration that several kinds of flow need."""

from datetime import datetime
from typing import get_type_hints

from streamer.errors import TopologyError
from streamer.settings.settings import Settings
from streamer.state.keyed_store import Shape
from streamer.topology.event import Event
from streamer.units import format_bytes


def check_time(event: type[Event], where: str) -> None:
    """Whether the type of the time field is one that its unit can be read from."""
    spec = event.__event__
    if spec.time is None:
        return
    declared = get_type_hints(event)[spec.time]
    fitting = (str, datetime) if spec.time_unit == "iso" else (float, int)
    if declared not in fitting:
        names = " or ".join(kind.__name__ for kind in fitting)
        raise TopologyError(
            f"{where}: {event.__name__}.{spec.time} holds times with time_unit={spec.time_unit!r}, so its type "
            f"must be {names}, not {getattr(declared, '__name__', declared)}"
        )


def check_memory(store: Shape, settings: Settings, where: str, partitions: int | None = None) -> None:
    """Whether the state fits in the budget: bytes per key (or row that waits) x most of them x partitions of the source.

    One worker may have to hold them all. Before that number is known (None), one is counted.

    Raises:
        TopologyError: it does not.
    """
    each, setting = store.bytes_per_key * (partitions or 1), store.bounded_by
    most = getattr(settings, setting)
    total = each * most
    if total > settings.state_memory:
        counted = "1 partition at the least" if partitions is None else f"{partitions} partition{'s'[: partitions > 1]}"
        raise TopologyError(
            f"{where}: {store.bytes_per_key:,} bytes per key x {most:,} keys per partition ({setting}) x {counted} = "
            f"{total:,} bytes, over the memory budget of {format_bytes(settings.state_memory)}. Lower {setting} to "
            f"{settings.state_memory // each:,} (STREAMER_{setting.upper()}), raise state_memory (STREAMER_STATE_MEMORY), "
            "or keep fewer samples"
        )
