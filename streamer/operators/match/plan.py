"""A flow that waits for labels, checked and bound: it has no model."""

from dataclasses import dataclass
from typing import ClassVar, get_type_hints

from streamer.errors import TopologyError
from streamer.operators.checks import check_memory, check_time
from streamer.operators.explained import Explained, fields_of
from streamer.operators.match.store import MatchSpec
from streamer.settings.settings import Settings
from streamer.telemetry.steps import Steps
from streamer.topology.event import Event
from streamer.topology.event_key import check_key
from streamer.topology.label_match import LabelMatch
from streamer.topology.steps import Labels, Predictions
from streamer.topology.topics import Topics, topics_of
from streamer.units import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchPlan:
    """Ready to run.

    Attributes:
        name: of the topology.
        group: consumer group, also the prefix of changelog and transactional ids.
        event, label: classes of predictions and labels.
        topics: names.
        store: shape of the state.
        idle_timeout_s: how long an input is waited for without a record.
    """

    name: str
    group: str
    event: type[Event]
    label: type[Event]
    topics: Topics
    store: MatchSpec
    idle_timeout_s: float
    model: ClassVar[None] = None
    forwards: ClassVar[bool] = False
    waits_for_ends: ClassVar[bool] = True
    steps: ClassVar[Steps] = Steps("match-1", scores=False)

    def explain(self) -> Explained:
        """What it does, in words."""
        topics, key = self.topics, self.store.bytes_per_key
        kept = f"{key:,} bytes a row that waits, kept in {topics.changelog}"
        until = f"a label of its key within {format_duration(self.store.within_us / 1e6)}"
        return Explained(
            self.group,
            {topics.source: fields_of(self.event)} | dict.fromkeys(topics.joined, fields_of(self.label)),
            [(self.steps.window, f"each prediction waits for {until}; {kept}")],
            {topics.predictions: "predictions with their label", topics.unmatched or "": "those whose time was over"}
            | {topics.dead_letters_of(source): f"dead letters of {source}" for source in topics.sources},
            {topics.predictions: "matched", topics.unmatched or "": "matched"},
        )

    @property
    def flows(self) -> "tuple[MatchPlan]":
        """All flows of the topology."""
        return (self,)


def bind_match(declared: LabelMatch, settings: Settings) -> MatchPlan:
    """Check a declaration that waits for labels.

    Raises:
        TopologyError: the declaration is wrong; the message starts with the line.
    """
    source, labels = declared.need(Predictions), declared.need(Labels)
    topics = topics_of(declared, settings.group)
    for event, where in ((source.event, source.where), (labels.event, labels.where)):
        if event.__event__.key is None:
            name = event.__name__
            raise TopologyError(f"{where}: labels are met by key; give {name} one, class {name}(..., key='field')")
        check_key(event, event.__event__.key, where)
        check_time(event, where)
    if labels.on is not None:
        _check_on(labels.on, (source.event, labels.event), labels.where)
    store = MatchSpec((topics.source, labels.topic), labels.within_us, labels.out_of_order_us, labels.on)
    check_memory(store, settings, labels.where)
    return MatchPlan(
        name=declared.name,
        group=settings.group or declared.name,
        event=source.event,
        label=labels.event,
        topics=topics,
        store=store,
        idle_timeout_s=labels.idle_timeout_s,
    )


def _check_on(on: str, events: tuple[type[Event], type[Event]], where: str) -> None:
    kinds = [get_type_hints(event).get(on) if on in event.__struct_fields__ else None for event in events]
    if kinds[0] not in (str, int) or kinds[0] is not kinds[1]:
        names = " and ".join(event.__name__ for event in events)
        raise TopologyError(f"{where}: on={on!r} must be a field of {names}, text in both or a whole number in both")
