"""The names of all topics of a topology: what it reads, what it writes, and where its state goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.errors import TopologyError
from streamer.topology.event import Event, Format
from streamer.topology.label_match import LabelMatch
from streamer.topology.steps import (
    NAME_RULE,
    Declaration,
    Joined,
    Labels,
    Predictions,
    Publish,
    PublishMatched,
    Rekey,
    Source,
    Windowed,
    is_topic,
)
from streamer.topology.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Topics of a topology; `changelog` is None without state, `anomalies` when nobody asked for them.

    `late_events` is None where no window closes. `joined` are the further inputs, each with the topic of its dead letters;
    `rekeyed` is the internal topic of `.rekey`, and `rekey_field` the field it names. `unmatched` is there where labels are
    waited for; `predictions` are those that got one then.
    """

    source: str
    dead_letters: str
    predictions: str
    anomalies: str | None
    changelog: str | None
    late_events: str | None = None
    joined: Mapping[str, str] = field(default_factory=dict)
    rekeyed: str | None = None
    rekey_field: str | None = None
    unmatched: str | None = None

    @property
    def lead(self) -> str:
        """What the windows are fed from: the source, or the internal topic behind it."""
        return self.rekeyed or self.source

    @property
    def sources(self) -> list[str]:
        """Topics that the flow with the model reads, the lead first."""
        return [self.lead, *self.joined]

    def dead_letters_of(self, source: str) -> str:
        """Where dead letters of an input go."""
        return self.joined.get(source, self.dead_letters)

    def outputs(self) -> list[str]:
        """Topics the workers write."""
        results = (self.predictions, self.anomalies, self.late_events, self.unmatched)
        named = (self.dead_letters, *self.joined.values(), self.rekeyed, *results, self.changelog)
        return [topic for topic in named if topic]

    def readers(self, group: str) -> dict[str, str]:
        """Input topic -> the consumer group that reads it, where `group` is that of the topology."""
        front = {self.source: f"{group}-by-{self.rekey_field}"} if self.rekeyed else {}
        return front | dict.fromkeys(self.sources, group)

    def all(self) -> list[str]:
        """Every topic of the topology once, inputs first."""
        return list(dict.fromkeys((self.source, *self.sources, *self.outputs())))


def inputs_of(declared: Declaration) -> dict[type[Event], tuple[str, Format]]:
    """Class of each input -> its topic and format; the source's for a class that is read twice."""
    joined = {step.join.event: (step.topic, step.format) for step in declared.all(Joined)}
    labels: dict[type[Event], tuple[str, Format]] = {step.event: (step.topic, "json") for step in declared.all(Labels)}
    return joined | labels | {step.event: (step.topic, step.format) for step in declared.all(Source)}


def topics_of(declared: Declaration, group: str | None) -> Topics:
    """Topic names of a declaration; needs no model.

    Raises:
        TopologyError: a step is missing.
    """
    return _TOPICS[type(declared)](declared, group or declared.name)


def _scored(topology: Declaration, group: str) -> Topics:
    source, publish = topology.need(Source), topology.need(Publish)
    joined, windowed, rekey = topology.all(Joined), topology.first(Windowed), topology.first(Rekey)
    own = f"{group}-{topology.name}"
    topics = Topics(
        source=source.topic,
        dead_letters=source.dead_letters,
        predictions=publish.predictions,
        anomalies=publish.anomalies,
        changelog=f"{own}-window-changelog" if joined or windowed else None,
        late_events=publish.late_events,
        joined={step.topic: step.dead_letters for step in joined},
        rekeyed=f"{own}-by-{rekey.field}" if rekey else None,
        rekey_field=rekey.field if rekey else None,
    )
    _check_names(
        {topics.changelog: "the changelog of the topology", topics.rekeyed: "the internal topic of .rekey()"},
        ("topic", topics.source, source.where), ("dead_letters", topics.dead_letters, source.where),
        *(("topic", step.topic, step.where) for step in joined),
        *(("dead_letters", step.dead_letters, step.where) for step in joined),
        ("predictions", topics.predictions, publish.where), ("anomalies", topics.anomalies, publish.where),
        ("late_events", topics.late_events, publish.where),
    )  # fmt: skip
    return topics


def _matched(declared: Declaration, group: str) -> Topics:
    predictions, labels, publish = declared.need(Predictions), declared.need(Labels), declared.need(PublishMatched)
    source, label = predictions.topic, labels.topic
    changelog = f"{group}-{declared.name}-match-changelog"
    _check_names(
        {changelog: "the changelog of the topology"},
        ("topic", source, predictions.where), ("dead_letters", predictions.dead_letters, predictions.where),
        ("topic", label, labels.where), ("dead_letters", labels.dead_letters, labels.where),
        ("matched", publish.matched, publish.where), ("unmatched", publish.unmatched, publish.where),
    )  # fmt: skip
    return Topics(
        source=source, dead_letters=predictions.dead_letters, predictions=publish.matched, anomalies=None,
        changelog=changelog, joined={label: labels.dead_letters}, unmatched=publish.unmatched,
    )  # fmt: skip


_TOPICS = {Topology: _scored, LabelMatch: _matched}


def _check_names(internal: Mapping[str | None, str], *named: tuple[str, str | None, str]) -> None:
    """Role, topic and line of each: whether Kafka takes them, and none has two roles, nor one of the topology's own topics."""
    taken = dict(internal)
    for role, name, where in named:
        if name is None:
            continue
        if not is_topic(name):
            raise TopologyError(f"{where}: {role}={name!r}: {NAME_RULE}")
        if name in taken:
            raise TopologyError(f"{where}: {role}={name!r} is taken by {taken[name]}; records of each kind need their own topic")
        taken[name] = f"{role}="
