"""A re-keyed topology: the flow in front of it, checked and bound."""

from dataclasses import dataclass
from typing import ClassVar

from streamer.errors import TopologyError
from streamer.operators.explained import Explained, fields_of
from streamer.telemetry.steps import Steps
from streamer.topology.event import Event
from streamer.topology.event_key import check_key
from streamer.topology.steps import NAME_RULE, Joined, Rekey, Source, Windowed, is_topic
from streamer.topology.topics import Topics


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyPlan:
    """The flow in front of a re-keyed one: from the source to the internal topic, ready to run.

    Attributes:
        name: of the topology.
        group: consumer group of this flow, also the prefix of its transactional ids.
        event: input class.
        field: whose text becomes the record key.
        max_drift_us: how far a partition's event times may run ahead of the slowest, microseconds.
        idle_timeout_s: after which silence a partition does not hold windows back any more; 0 for never.
        topics: its own; what it gives are records of the internal topic.
    """

    name: str
    group: str
    event: type[Event]
    field: str
    max_drift_us: int
    idle_timeout_s: float
    topics: Topics
    store: ClassVar[None] = None
    model: ClassVar[None] = None
    forwards: ClassVar[bool] = True
    waits_for_ends: ClassVar[bool] = True
    steps: ClassVar[Steps] = Steps("rekey-1", scores=False)

    def explain(self) -> Explained:
        """What it does, in words."""
        topics = self.topics
        return Explained(
            self.group,
            {topics.source: fields_of(self.event)},
            [(self.steps.window, f"{self.field} becomes the record key")],
            {topics.predictions: "the records under their new key", topics.dead_letters: f"dead letters of {topics.source}"},
            {},
        )


def rekeyed_by(rekey: Rekey, event: type[Event], windowed: Windowed | None, joined: list[Joined]) -> str:
    """The new key field, if events can be keyed by it.

    Raises:
        TopologyError: they cannot.
    """
    where = f"{rekey.where}: .rekey({rekey.field!r})"
    if rekey.field not in event.__struct_fields__:
        fields = ", ".join(event.__struct_fields__)
        raise TopologyError(f"{where}: {event.__name__} has no such field; fields are {fields}")
    if not is_topic(rekey.field):
        raise TopologyError(f"{where}: the internal topic is named after the field; {NAME_RULE}")
    check_key(event, rekey.field, where)
    if joined:
        raise TopologyError(f"{where}: a topology has .rekey() or .join(), not both; join in a second one that reads the first")
    if windowed is None:
        raise TopologyError(f"{where}: it is there for windows; add .window(...), or leave it out")
    return rekey.field


def front_of(name: str, group: str, source: Source, rekey: Rekey, *, windowed: Windowed, topics: Topics) -> RekeyPlan:
    """The flow in front of a re-keyed one."""
    assert topics.rekeyed is not None, "a re-keyed topology has an internal topic"
    own = Topics(
        source=topics.source, dead_letters=topics.dead_letters, predictions=topics.rekeyed, anomalies=None, changelog=None
    )
    return RekeyPlan(
        name=name,
        group=topics.readers(group)[topics.source],
        event=source.event,
        field=rekey.field,
        max_drift_us=rekey.max_drift_us,
        idle_timeout_s=windowed.window.silence_s,
        topics=own,
    )
