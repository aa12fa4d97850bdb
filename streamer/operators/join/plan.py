"""What a plan holds of joins: further inputs, what is asked of each, and the shape of the state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamer.errors import TopologyError
from streamer.features.trace import TracingWindow
from streamer.operators.join.spec import JoinSpec, Stream
from streamer.topology.event import Event, Format, column_dtypes, declared_types, nullable_fields
from streamer.topology.event_key import key_field
from streamer.topology.rolling import Rolling
from streamer.topology.steps import Joined, Source, Windowed
from streamer.topology.view import Requested


@dataclass(frozen=True, slots=True)
class JoinInput:
    """An input besides the source.

    Attributes:
        event: its class.
        topic: where its records are.
        format: how they are written.
        columns: fields of it that leave the decoder.
        table: whether a record without a value deletes the row of its key.
    """

    event: type[Event]
    topic: str
    format: Format
    columns: tuple[str, ...]
    table: bool


@dataclass(frozen=True, slots=True)
class Joins:
    """All joins of a flow, tried out and bound.

    Attributes:
        inputs: in the order of the topics.
        spec: shape of the state.
        idle_timeout_s: how long each input, the source first, is waited for without a record.
    """

    inputs: tuple[JoinInput, ...]
    spec: JoinSpec
    idle_timeout_s: tuple[float, ...]

    @staticmethod
    def of(
        source: Source, windowed: Windowed | None, needs: Requested, joined: Sequence[Joined],
        tracers: Mapping[type[Event], TracingWindow],
    ) -> "Joins":  # fmt: skip
        """Bind joins to what a feature function asked for when it was tried."""
        asked = [(step, tracers[step.join.event].needs) for step in joined]
        streams = [Stream.joined(step.topic, step.join, wanted) for step, wanted in asked]
        window = windowed.window if windowed and isinstance(windowed.window, Rolling) else None
        spec = JoinSpec(
            (Stream.source(source.topic, window, needs), *streams),
            tuple(sorted(needs.window_fields() | needs.events)),
            max(step.out_of_order_us for step in joined),
        )
        inputs = tuple(
            JoinInput(step.join.event, step.topic, step.format, stream.fields, step.join.table)
            for step, stream in zip(joined, streams, strict=True)
        )
        idle = [step.idle_timeout_s for step in joined]
        return Joins(inputs, spec, (max(idle), *idle))


def check_joins(source: Source, windowed: Windowed | None, joined: Sequence[Joined]) -> None:
    """Whether these inputs can meet.

    Raises:
        TopologyError: they cannot; the message starts with the line.
    """
    others = ((step.join.event, step.format, step.where) for step in joined)
    for event, given, where in ((source.event, source.format, joined[0].where), *others):
        if key_field(event, given) is None:
            raise TopologyError(f"{where}: a join is by key; give {event.__name__} one, class {event.__name__}(..., key='field')")
    topics: dict[type[Event], str] = {}
    for step in joined:
        if topics.setdefault(step.join.event, step.topic) != step.topic:
            name = step.join.event.__name__
            raise TopologyError(f"{step.where}: w.of({name}) would be two streams; make a class of its own, class Other({name})")
    if windowed and windowed.window.resolution_us:
        raise TopologyError(f"{windowed.where}: resolution= does not go with .join(): rows that wait look at single samples")
    if windowed and windowed.window.ttl_us:
        raise TopologyError(f"{windowed.where}: ttl= does not go with .join(): rows of a silent key may wait for other inputs")


def tracers_of(joined: Sequence[Joined]) -> dict[type[Event], TracingWindow]:
    """What stands in for the joined streams when the feature function is tried."""
    found = {}
    for step in joined:
        join, event = step.join, step.join.event
        numbers, nullable, declared = column_dtypes(event), nullable_fields(event), declared_types(event)
        widths = tuple(sight.newest_only or join.samples for sight in join.sights)
        rolling = Rolling(join.samples, tuple(s.name for s in join.sights), widths)
        found[event] = TracingWindow(numbers, tuple(numbers), rolling, declared=declared, nullable=nullable, seen=event.__name__)
    return found
