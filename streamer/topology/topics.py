"""The names of all topics of a topology: what it reads, what it writes, and where its state goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.errors import TopologyError
from streamer.topology.event import Event, Format
from streamer.topology.topology import (
    NAME_RULE,
    Joined,
    Match,
    Publish,
    PublishMatched,
    Rekey,
    Source,
    Topology,
    Windowed,
    is_topic,
    need,
    step_of,
    steps_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Topics of a topology; `changelog` is None without state, `anomalies` when nobody asked for them.

    `late` is None where no window closes. `joined` are the further inputs, each with the topic of its dead letters; `rekeyed` is
    the internal topic of `.rekey`, and `rekey_field` the field it names. `unmatched` is there where labels are waited for;
    `predictions` are those that got one then.
    """

    source: str
    rejected: str
    predictions: str
    anomalies: str | None
    changelog: str | None
    late: str | None = None
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

    def rejected_of(self, source: str) -> str:
        """Where dead letters of an input go."""
        return self.joined.get(source, self.rejected)

    def outputs(self) -> list[str]:
        """Topics the workers write."""
        results = (self.predictions, self.anomalies, self.late, self.unmatched)
        named = (self.rejected, *self.joined.values(), self.rekeyed, *results, self.changelog)
        return [topic for topic in named if topic]

    def readers(self, group: str) -> dict[str, str]:
        """Input topic -> the consumer group that reads it, where `group` is that of the topology."""
        front = {self.source: f"{group}-by-{self.rekey_field}"} if self.rekeyed else {}
        return front | dict.fromkeys(self.sources, group)

    def all(self) -> list[str]:
        """Every topic of the topology once, inputs first."""
        return list(dict.fromkeys((self.source, *self.sources, *self.outputs())))


def inputs_of(topology: Topology) -> dict[type[Event], tuple[str, Format]]:
    """Class of each input -> its topic and format; the source's for a class that is read twice."""
    joined = {step.join.event: (step.topic, step.format) for step in steps_of(topology, Joined)}
    labels: dict[type[Event], tuple[str, Format]] = {step.label: (step.topic, "json") for step in steps_of(topology, Match)}
    return joined | labels | {step.event: (step.topic, step.format) for step in steps_of(topology, Source)}


def topics_of(topology: Topology, group: str | None) -> Topics:
    """Topic names of a topology; needs no model.

    Raises:
        TopologyError: a step is missing.
    """
    if match := step_of(topology, Match):
        return _matched(topology, match, group or topology.name)
    source, publish = need(topology, Source), need(topology, Publish)
    joined, windowed, rekey = steps_of(topology, Joined), step_of(topology, Windowed), step_of(topology, Rekey)
    own = f"{group or topology.name}-{topology.name}"
    topics = Topics(
        source=source.topic,
        rejected=source.rejected,
        predictions=publish.predictions,
        anomalies=publish.anomalies,
        changelog=f"{own}-window-changelog" if joined or windowed else None,
        late=publish.late,
        joined={step.topic: step.rejected for step in joined},
        rekeyed=f"{own}-by-{rekey.field}" if rekey else None,
        rekey_field=rekey.field if rekey else None,
    )
    _check_names(
        {topics.changelog: "the changelog of the topology", topics.rekeyed: "the internal topic of .rekey()"},
        ("topic", topics.source, source.where), ("rejected", topics.rejected, source.where),
        *(("topic", step.topic, step.where) for step in joined),
        *(("rejected", step.rejected, step.where) for step in joined),
        ("predictions", topics.predictions, publish.where), ("anomalies", topics.anomalies, publish.where),
        ("late", topics.late, publish.where),
    )  # fmt: skip
    return topics


def _matched(topology: Topology, match: Match, group: str) -> Topics:
    source, publish = need(topology, Source), step_of(topology, PublishMatched)
    if publish is None:
        raise TopologyError(f"{topology.steps[-1].where}: .match() needs .publish(matched='...', unmatched='...') behind it")
    label = match.topic
    changelog = f"{group}-{topology.name}-match-changelog"
    _check_names(
        {changelog: "the changelog of the topology"},
        ("topic", source.topic, source.where), ("rejected", source.rejected, source.where),
        ("topic", label, match.where), ("rejected", match.rejected, match.where),
        ("matched", publish.matched, publish.where), ("unmatched", publish.unmatched, publish.where),
    )  # fmt: skip
    return Topics(
        source=source.topic,
        rejected=source.rejected,
        predictions=publish.matched,
        anomalies=None,
        changelog=changelog,
        joined={label: match.rejected},
        unmatched=publish.unmatched,
    )


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
