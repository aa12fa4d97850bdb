"""What a step reads: events of a class, from which topic and in which format. The step's topic goes before the class's."""

from streamer.errors import TopologyError
from streamer.topology.event import FORMATS, Event, Format


def is_event(event: object) -> bool:
    """Whether it is a class of events."""
    return isinstance(event, type) and issubclass(event, Event) and event is not Event


def topic_of(event: type[Event], topic: str | None, step: str) -> str:
    """The topic that a step names, else that of the class; `step` is its line and name.

    Raises:
        TopologyError: neither names one.
    """
    found = event.__event__.topic if topic is None else topic
    if not found:
        name = event.__name__
        raise TopologyError(
            f"{step}: {name} names no topic; write topic='...' in this step, or in the class, class {name}(Event, topic='...')"
        )
    return found


def known_format(name: str, where: str) -> Format:
    """The format of this name.

    Raises:
        TopologyError: there is none.
    """
    if name not in FORMATS:
        raise TopologyError(f"{where}: format={name!r} is not one of {', '.join(FORMATS)}")
    return name
