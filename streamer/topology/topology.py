"""What a user writes: one flow, declared as a chain in the order of the data. Nothing here opens a connection."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from numpy.typing import NDArray

from streamer.errors import TopologyError, line_of_caller
from streamer.topology.closing import EMISSIONS, Closing, Emission
from streamer.topology.event import Event, Format
from streamer.topology.inputs import is_event, known_format, topic_of
from streamer.topology.joins import Join
from streamer.topology.view import Rolling, Window
from streamer.units import parse_duration_s, parse_duration_us

NAME_RULE = "names of topologies and topics are 1 to 249 letters, digits, '.', '_' or '-' (they become names in Kafka)"
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

_WINDOWS = "rolling(...), tumbling(...), hopping(...) or session(...)"

FeatureFunction = Callable[[Window], Mapping[str, NDArray[Any]]]
Step = TypeVar("Step", bound="object")


def is_topic(name: object) -> bool:
    """Whether Kafka takes it as the name of a topic."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and name not in (".", "..")


@dataclass(frozen=True, slots=True)
class Model:
    """A model by name; where it lies is a setting (`models`), which version serves is the repository's.

    Attributes:
        name: folder in the model repository, `<models>/<name>/<version>/model.onnx`.
        alias: name of a version in `<models>/<name>/aliases.json`; without it the highest version serves.
        version: a fixed version instead.
    """

    name: str
    alias: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """`.source()`: the events, where and in which format they come, and the topic of those that could not be read."""

    event: type[Event]
    topic: str
    format: Format
    rejected: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """`.join()`: another stream, where and in which format it comes, and the topic of its records that cannot be read."""

    join: Join
    topic: str
    format: Format
    rejected: str
    late_us: int
    idle_s: float
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """`.match()`: which labels are waited for, how long, and the topic of those that cannot be read."""

    label: type[Event]
    topic: str
    within_us: int
    on: str | None
    rejected: str
    late_us: int
    idle_s: float
    where: str


@dataclass(frozen=True, slots=True)
class Rekey:
    """`.rekey()`: another key for the events, and how far a partition may run ahead of the others."""

    field: str
    align_us: int
    where: str


@dataclass(frozen=True, slots=True)
class Windowed:
    """`.window()`: how samples of a key are kept."""

    window: Rolling | Closing
    where: str
    emit: Emission = "on_close"


@dataclass(frozen=True, slots=True)
class Features:
    """`.features()`: columns for the model."""

    function: FeatureFunction
    where: str


@dataclass(frozen=True, slots=True)
class Infer:
    """`.infer()`: which model, in batches of how many rows."""

    model: Model
    deadline_s: float | None
    max_batch: int
    where: str


@dataclass(frozen=True, slots=True)
class Flag:
    """`.flag()`: the decision; `above` is a number or "model.threshold"."""

    above: float | str
    where: str


@dataclass(frozen=True, slots=True)
class Publish:
    """`.publish()`: output topics."""

    predictions: str
    anomalies: str | None
    features: bool
    late: str | None
    where: str


@dataclass(frozen=True, slots=True)
class PublishMatched:
    """`.publish()` behind `.match()`: output topics."""

    matched: str
    unmatched: str
    where: str


@dataclass(frozen=True, slots=True)
class Topology:
    """One flow from a source topic to predictions. Each step returns a new topology; the first is `.source`.

    Example::

        sensor = (
            Topology("sensor-anomaly")
            .source(Reading, rejected="sensor.rejected")
            .window(rolling(count=64))
            .features(lambda w: {"mean": w.mean("value"), "std": w.std("value")})
            .infer(Model("sensor-anomaly"))
            .flag(above="model.threshold")
            .publish(predictions="sensor.predictions", anomalies="sensor.anomalies")
        )
    """

    name: str
    steps: tuple[Any, ...] = ()

    def source(
        self, event: type[Event], *, rejected: str, topic: str | None = None, format: Format = "json",  # noqa: A002 - the field's word
    ) -> "Topology":  # fmt: skip
        """Read events from a topic; records that cannot be used go to the topic `rejected` with the reason.

        Args:
            event: their class.
            rejected: a topic.
            topic: where they are; by default the topic that the class names.
            format: "json", or "raw": fields `value`, `key` and `headers` as they are in the record; see docs/topologies.md.
        """
        where = line_of_caller(1)
        if not is_event(event):
            raise TopologyError(f"{where}: .source() takes an Event class with a topic, such as class R(Event, topic='t')")
        found = topic_of(event, topic, f"{where}: .source()")
        return self._add(Source(event, found, known_format(format, where), rejected, where))

    def rekey(self, field: str, *, align: str = "1m") -> "Topology":
        """Give the events another key: all that follows is kept per value of `field`, whatever their record key is.

        They pass through an internal topic, exactly once; see docs/topologies.md.

        Args:
            field: of the event, text or a whole number.
            align: a partition of the source whose event times run further ahead of the slowest one waits, as "1m".
        """
        where = line_of_caller(1)
        if not isinstance(field, str):
            raise TopologyError(f"{where}: .rekey() takes the name of a field, not {field!r}")
        self._refuse_raw(f"{where}: .rekey() takes a field, text or a whole number, and an event in format='raw' has none")
        try:
            align_us = parse_duration_us(align)
        except ValueError as error:
            raise TopologyError(f"{where}: align: {error}") from error
        return self._add(Rekey(field, align_us, where))

    def join(
        self, join: Join, *, rejected: str, topic: str | None = None, format: Format = "json",  # noqa: A002 - as at `.source`
        late: str = "0s", idle: str = "100ms",
    ) -> "Topology":  # fmt: skip
        """Let events see those of another stream with the same key: `interval`, `latest` or `delayed`.

        The topic must have as many partitions as the source's, its records the same keys, and the same partitioner. Events
        leave in the order of event time, once both streams have passed what they may see.

        Args:
            join: which stream, and how near to an event.
            rejected: topic of its records that cannot be used.
            topic: where its events are; by default the topic that their class names.
            format: of its records, as at `.source`.
            late: how far out of order records of either stream may be; with several joins the largest holds for all.
            idle: how long an event waits for a stream that had no record for so long and has none unread.
        """
        where = line_of_caller(1)
        if not isinstance(join, Join):
            raise TopologyError(f"{where}: .join() takes interval(...), latest(...) or delayed(...), not {join!r}")
        try:
            late_us, idle_s = parse_duration_us(late), parse_duration_s(idle)
        except ValueError as error:
            raise TopologyError(f"{where}: .join(): {error}") from error
        joined = Joined(
            join=join, topic=topic_of(join.event, topic, f"{where}: .join()"), format=known_format(format, where),
            rejected=rejected, late_us=late_us, idle_s=idle_s, where=where,
        )  # fmt: skip
        return self._add(joined)

    def match(
        self,
        label: type[Event],
        *,
        within: str,
        rejected: str,
        topic: str | None = None,
        on: str | None = None,
        late: str = "0s",
        idle: str = "100ms",
    ) -> "Topology":
        """Wait for the label of each event: the first of its key with a time from that of the event until `within` later.

        The source is a topic of predictions. There is no model; `.publish(matched=, unmatched=)` comes next. Both topics need
        as many partitions, the same keys, and the same partitioner.

        Args:
            label: class of the labels; its key is the one of the source.
            within: how long a label may take, as "14d".
            rejected: topic of labels that cannot be used.
            topic: where labels are; by default the topic that their class names.
            on: a field of both classes, text or a whole number, that must be equal too.
            late: how far out of order records of either topic may be.
            idle: how long an event waits for a topic that had no record for so long and has none unread.
        """
        where = line_of_caller(1)
        if not is_event(label):
            raise TopologyError(f"{where}: .match() takes an Event class with a topic, class L(Event, topic='t', key='k')")
        self._refuse_raw(f"{where}: .match() shows predictions as JSON, so they have to come as such, not in format='raw'")
        found = topic_of(label, topic, f"{where}: .match()")
        try:
            within_us, late_us = parse_duration_us(within), parse_duration_us(late)
            idle_s = parse_duration_s(idle)
        except ValueError as error:
            raise TopologyError(f"{where}: .match(): {error}") from error
        match = Match(
            label=label, topic=found, within_us=within_us, on=on, rejected=rejected, late_us=late_us, idle_s=idle_s, where=where
        )
        return self._add(match)

    def window(self, window: Rolling | Closing, *, emit: Emission | None = None) -> "Topology":
        """Keep samples per key.

        Args:
            window: `rolling`, which moves with every event, or one that closes: `tumbling`, `hopping`, `session`.
            emit: of a window that closes: its result "on_close" (the default), one for "each" event, or "both": early results
                for events, then the final one.
        """
        where = line_of_caller(1)
        if not isinstance(window, Rolling | Closing):
            raise TopologyError(f"{where}: .window() takes {_WINDOWS}, not {window!r}")
        if emit is not None and emit not in EMISSIONS:
            raise TopologyError(f"{where}: emit={emit!r} is not one of {', '.join(EMISSIONS)}")
        if isinstance(window, Rolling) and emit is not None:
            raise TopologyError(f"{where}: rolling() gives a result for each event and never closes; leave emit={emit!r} out")
        # Behind another key silence closes nothing: a partition that is silent holds the windows back no more.
        rekeyed = any(isinstance(step, Rekey) for step in self.steps)
        if isinstance(window, Closing) and emit == "each" and window.idle_us and not rekeyed:
            raise TopologyError(f"{where}: idle= closes windows, and emit='each' sends nothing when they close; leave idle= out")
        return self._add(Windowed(window, where, emit or "on_close"))

    def features(self, function: FeatureFunction) -> "Topology":
        """Turn the windows of a batch into model inputs: a columnar numpy function `(Window) -> {name: column}`."""
        where = line_of_caller(1)
        if not callable(function):
            raise TopologyError(f"{where}: .features() takes a function of a window, not {function!r}")
        return self._add(Features(function, where))

    def infer(self, model: Model, *, deadline: str | None = None, max_batch: int = 512) -> "Topology":
        """Run the model on the features.

        Args:
            model: which one.
            deadline: latency aimed for, from record timestamp to prediction, as "250ms"; predictions beyond it are
                counted in `streamer_deadline_missed_total`, none is dropped.
            max_batch: most rows in one run of the model.
        """
        where = line_of_caller(1)
        if not isinstance(model, Model):
            raise TopologyError(f"{where}: .infer() takes Model('name'), not {model!r}")
        if not isinstance(max_batch, int) or max_batch < 1:
            raise TopologyError(f"{where}: max_batch={max_batch!r} must be a whole number, at least 1")
        try:
            deadline_s = None if deadline is None else parse_duration_s(deadline)
        except ValueError as error:
            raise TopologyError(f"{where}: deadline: {error}") from error
        return self._add(Infer(model, deadline_s, max_batch, where))

    def flag(self, *, above: float | str) -> "Topology":
        """Flag scores greater than `above`: a number, or "model.threshold" for the one that travels with the model."""
        where = line_of_caller(1)
        if above != "model.threshold" and not (isinstance(above, int | float) and math.isfinite(above)):
            raise TopologyError(f"{where}: above={above!r} is neither a number nor 'model.threshold'")
        return self._add(Flag(above, where))

    def publish(
        self,
        *,
        predictions: str | None = None,
        anomalies: str | None = None,
        features: bool = False,
        late: str | None = None,
        matched: str | None = None,
        unmatched: str | None = None,
    ) -> "Topology":
        """Name the output topics; with `features` every prediction carries the model's inputs.

        `late` is for windows that close: where events go for which all their windows have closed. Behind `.match` it takes
        `matched` and `unmatched`, both and nothing else.
        """
        where = line_of_caller(1)
        if any(isinstance(step, Match) for step in self.steps):
            if matched is None or unmatched is None or predictions or anomalies or features or late:
                raise TopologyError(f"{where}: behind .match() it is .publish(matched='...', unmatched='...'), and nothing else")
            return self._add(PublishMatched(matched, unmatched, where))
        if predictions is None or matched or unmatched:
            raise TopologyError(f"{where}: it is .publish(predictions='...'); matched= and unmatched= come behind .match()")
        return self._add(Publish(predictions, anomalies, features, late, where))

    def __post_init__(self) -> None:
        if not is_topic(self.name):
            raise TopologyError(f"{line_of_caller(2)}: Topology({self.name!r}): {NAME_RULE}")

    def _refuse_raw(self, why: str) -> None:
        if any(isinstance(step, Source) and step.format == "raw" for step in self.steps):
            raise TopologyError(why)

    def _add(self, step: Any) -> "Topology":
        kinds = (Source, Rekey, Joined, Match, Windowed, Features, Infer, Flag, Publish, PublishMatched)
        place = kinds.index(type(step))
        for earlier in self.steps:
            before = kinds.index(type(earlier)) - isinstance(step, Joined)  # there may be several
            if before >= place:
                names = ("source", "rekey", "join", "match", "window", "features", "infer", "flag", "publish", "publish")
                raise TopologyError(
                    f"{step.where}: .{names[place]}() comes after .{names[kinds.index(type(earlier))]}() "
                    f"({earlier.where}); the order is {' -> '.join(names[:-1])}, each once, but several joins"
                )
        return replace(self, steps=(*self.steps, step))


def step_of(topology: Topology, kind: type[Step]) -> Step | None:
    """The step of a kind, None where there is none."""
    return next((step for step in topology.steps if isinstance(step, kind)), None)


def steps_of(topology: Topology, kind: type[Step]) -> list[Step]:
    """All steps of a kind."""
    return [step for step in topology.steps if isinstance(step, kind)]


def need(topology: Topology, kind: type[Step]) -> Step:
    """The step of a kind.

    Raises:
        TopologyError: there is none.
    """
    step = step_of(topology, kind)
    if step is None:
        last = topology.steps[-1].where if topology.steps else f"Topology({topology.name!r})"
        raise TopologyError(f"{last}: the topology has no .{kind.__name__.lower()}() step")
    return step
