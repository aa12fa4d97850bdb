"""A topology checked and bound to its model and limits: everything a worker needs to know before it starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from streamer.clock import Clock, SystemClock
from streamer.codecs.formats import CODECS
from streamer.errors import ModelError, TopologyError
from streamer.features.trace import TracingWindow, trial_reason
from streamer.inference.model import LoadedModel
from streamer.inference.repository import find
from streamer.inference.signature import shown
from streamer.operators.checks import check_memory, check_time
from streamer.operators.closing.plan import check_closing
from streamer.operators.closing.spec import ClosingSpec
from streamer.operators.explained import Explained, fields_of, listed
from streamer.operators.join.plan import Joins, check_joins, tracers_of
from streamer.operators.join.spec import JoinSpec
from streamer.operators.match.plan import MatchPlan, bind_match
from streamer.operators.operator import Stateless
from streamer.operators.rekey.plan import RekeyPlan, front_of, rekeyed_by
from streamer.operators.rolling.store import RollingSpec
from streamer.planning.shapes import SHAPES
from streamer.planning.stateless import stateless_of
from streamer.settings.settings import Settings
from streamer.telemetry.steps import Steps, numbered
from streamer.topology.closing import Closing, Emission
from streamer.topology.event import Event, Format, column_dtypes, declared_types, nullable_fields
from streamer.topology.event_key import check_key, key_field
from streamer.topology.examples import example_of
from streamer.topology.label_match import LabelMatch
from streamer.topology.rolling import Rolling
from streamer.topology.steps import (
    Declaration,
    FeatureFunction,
    Features,
    Flag,
    Infer,
    Joined,
    Publish,
    Rekey,
    Source,
    Windowed,
)
from streamer.topology.topics import Topics, topics_of
from streamer.topology.topology import Topology
from streamer.topology.view import Requested


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A topology, ready to run: the flow that ends in predictions, and the one in front of it if there is one.

    Attributes:
        name: of the topology.
        group: consumer group, also the prefix of changelog and transactional ids.
        event: input class.
        format: of the records at the source.
        key: the field that equals the record key, or is it; None in a flow without keys.
        topics: names.
        store: shape of the window state; None for a flow without windows.
        needs: what the feature function reads.
        columns: event fields that leave the decoder.
        features: the user's function.
        feature_shapes: feature -> shape of one row.
        model: loaded and checked.
        threshold: flag scores above it; None flags nothing.
        deadline_s: latency aimed for, or None.
        publish_features: whether predictions carry the model's inputs.
        emit: of windows that close, when there is a result.
        joins: further inputs, if there are any.
        rekey: the flow that gives the events their key, if they have another one at the source.
        stateless: steps in front of the windows that keep nothing.
    """

    name: str
    group: str
    event: type[Event]
    format: Format
    key: str | None
    topics: Topics
    store: RollingSpec | ClosingSpec | JoinSpec | None
    needs: Requested
    columns: tuple[str, ...]
    features: FeatureFunction
    feature_shapes: dict[str, tuple[int, ...]]
    model: LoadedModel
    threshold: float | None
    deadline_s: float | None
    publish_features: bool
    emit: Emission = "on_close"
    joins: Joins | None = None
    rekey: RekeyPlan | None = None
    stateless: tuple[Stateless, ...] = ()
    forwards: ClassVar[bool] = False

    @property
    def closes(self) -> bool:
        """Whether results are of slices of time, and say which."""
        return self.store is not None and self.store.closes

    @property
    def waits_for_ends(self) -> bool:
        """Whether something happens when an input has nothing more to read: inputs that meet go on, windows close."""
        return len(self.topics.sources) > 1 or (self.store is not None and self.store.closes_in_silence)

    @property
    def kept(self) -> frozenset[str]:
        """Fields that go into state: the samples, and all of a row that waits."""
        return frozenset(self.columns if self.joins else self.needs.window_fields() if self.store else ())

    @property
    def steps(self) -> Steps:
        """What its operators are called."""
        own = numbered(step.kind for step in self.stateless)
        return Steps("features" if self.store is None else f"{self.store.kind}-1", "infer-1", "flag-1", stateless=own)

    def explain(self) -> Explained:
        """What it does, in words."""
        topics, model, named = self.topics, self.model, self.steps
        inputs = {each.topic: fields_of(each.event, each.format) for each in self.joins.inputs} if self.joins else {}
        features = (f"{name} float32{list(shape) if shape else ''}" for name, shape in self.feature_shapes.items())
        takes = (f"{name}{shown(shape)}" for name, shape in model.signature.inputs.items())
        steps = [("decode", f"takes {listed(self.columns)}")]
        steps += [(name, step.told) for name, step in zip(named.stateless, self.stateless, strict=True)]
        if self.store is not None:
            kept = f"{self.store.told}; {self.store.bytes_per_key:,} bytes a key, kept in {topics.changelog}"
            steps.append((named.window, kept))
        steps.append(("features", listed(list(features))))
        what = f"{model.file.name} version {model.file.version}: {listed(list(takes))} -> {model.signature.output}"
        steps.append((named.infer, f"{what}, column {model.score_column} is the score"))
        steps.append((named.flag, "nothing" if self.threshold is None else f"scores above {self.threshold:g}"))
        written = {topics.predictions: "predictions", topics.anomalies: "flagged predictions with what drove them"}
        written |= {topics.late_events: "records that came after their windows had closed"}
        written |= {topics.dead_letters_of(source): f"dead letters of {source}" for source in topics.sources}
        schemas = {topics.predictions: "prediction"} | ({topics.anomalies: "anomaly"} if topics.anomalies else {})
        return Explained(
            self.group, {topics.lead: fields_of(self.event, self.format)} | inputs, steps,
            {topic: what for topic, what in written.items() if topic}, schemas,
        )  # fmt: skip

    @property
    def flows(self) -> "tuple[RekeyPlan | Plan, ...]":
        """All flows of the topology, in the order of the data; each needs a worker."""
        return (self.rekey, self) if self.rekey else (self,)


def bind(
    topology: Declaration, settings: Settings, models: Path, *, model: LoadedModel | None = None, clock: Clock | None = None
) -> Plan:
    """Check a topology and bind it to its model: the one in the repository `models`, or the one given.

    The model is tried on made-up rows, and warm afterwards; `clock` measures that.

    Raises:
        TopologyError: the declaration is wrong; the message starts with the line.
        ModelError: the model is missing, unreadable, does not take these features, or mixes rows.
    """
    source, windowed, infer = topology.need(Source), topology.first(Windowed), topology.need(Infer)
    features, publish = topology.need(Features), topology.need(Publish)
    rekey, joined = topology.first(Rekey), topology.all(Joined)
    key = rekeyed_by(rekey, source.event, windowed, joined) if rekey else key_field(source.event, source.format)
    if windowed and key is None:
        raise TopologyError(f"{windowed.where}: windows are kept per key; give the event class a key, class R(..., key='field')")
    _check_event(source.event, source.format, source.where)
    stateless = stateless_of(topology, source.event)
    tracers = tracers_of(joined)
    needs, shapes = _trace(features, source.event, windowed, tracers)
    check_closing(windowed, publish, rekey, joined, needs=needs, features=features)
    joins = _joins(source, windowed, needs, joined, tracers)
    store = joins.spec if joins else _spec_of(windowed.window, needs, rekey) if windowed else None
    if store:
        check_memory(store, settings, joined[0].where if joined else windowed.where if windowed else "")
    model = model or _load(infer, models, settings)
    _check_model(model, shapes, features, infer, clock or SystemClock())
    group = settings.group or topology.name
    columns = sorted(needs.window_fields() | needs.events.union(*(step.columns for step in stateless)))
    topics = topics_of(topology, group)
    return Plan(
        name=topology.name,
        group=group,
        event=source.event,
        format=source.format,
        key=key,
        topics=topics,
        store=store,
        needs=needs,
        columns=tuple(columns),
        features=features.function,
        feature_shapes=shapes,
        model=model,
        threshold=_threshold(topology.first(Flag), publish, model),
        deadline_s=infer.deadline_s,
        publish_features=publish.features,
        emit=windowed.emit if windowed else "on_close",
        joins=joins,
        stateless=stateless,
        rekey=front_of(topology.name, group, source, rekey, windowed=windowed, topics=topics) if rekey and windowed else None,
    )


def _spec_of(window: Rolling | Closing, needs: Requested, rekey: Rekey | None) -> RollingSpec | ClosingSpec:
    spec: RollingSpec | ClosingSpec = SHAPES[type(window)](window, needs)
    return replace(spec, advances_watermark=False) if rekey else spec


def windows_of(topology: Declaration) -> RollingSpec | ClosingSpec | None:
    """Shape of the windows of a topology, without its model; None where it keeps none, or rows of other kinds."""
    windowed = topology.first(Windowed)
    if windowed is None or topology.all(Joined):
        return None
    needs, _ = _trace(topology.need(Features), topology.need(Source).event, windowed, {})
    return _spec_of(windowed.window, needs, topology.first(Rekey))


def _joins(
    source: Source, windowed: Windowed | None, needs: Requested, joined: list[Joined], tracers: dict[type[Event], TracingWindow]
) -> Joins | None:
    if not joined:
        return None
    check_joins(source, windowed, joined)
    for step in joined:
        _check_event(step.join.event, step.format, step.where)
    return Joins.of(source, windowed, needs, joined, tracers)


def _check_event(event: type[Event], format: Format, where: str) -> None:  # noqa: A002 - the word of `.source`
    """Whether records of this format can be read as these events, and have the key and the time that they name."""
    codec = CODECS[format]
    codec.check(event, where)
    check_key(event, None if codec.own_key else event.__event__.key, where)
    check_time(event, where)


def _trace(
    features: Features, event: type[Event], windowed: Windowed | None, tracers: dict[type[Event], TracingWindow]
) -> tuple[Requested, dict[str, tuple[int, ...]]]:
    """Call the feature function on two rows of ones and note what it reads and gives."""
    # Rows that wait for another input are state, and only numbers are kept there.
    numbers, nullable, fields = column_dtypes(event), nullable_fields(event), event.__struct_fields__
    if tracers:
        fields = tuple(numbers)
    kept, declared = windowed.window if windowed else None, declared_types(event)
    example = partial(example_of, event)
    window = TracingWindow(numbers, fields, kept, tracers, declared=declared, example_of=example, nullable=nullable)
    try:
        with np.errstate(all="ignore"):
            columns = features.function(window)
    except Exception as error:
        raise TopologyError(f"{features.where}: the feature function failed on a trial window: {trial_reason(error)}") from error
    if not isinstance(columns, Mapping) or not columns:
        raise TopologyError(f"{features.where}: a feature function returns a dict of name -> numpy column, not {columns!r}")
    shapes = {}
    for name, column in columns.items():
        array = np.asarray(column)
        if array.ndim not in (1, 2) or array.shape[0] != 2 or array.dtype.kind not in "fiub":
            raise TopologyError(
                f"{features.where}: feature {name!r} must be numbers of shape (rows,) or (rows, width); "
                f"for 2 rows it has shape {array.shape} and type {array.dtype}"
            )
        shapes[name] = array.shape[1:]
    return window.needs, shapes


def _load(infer: Infer, models: Path, settings: Settings) -> LoadedModel:
    try:
        return LoadedModel.load(
            find(models, infer.model), max_batch=infer.max_batch, intra_op_threads=settings.inference.intra_op_threads
        )
    except ModelError as error:
        raise ModelError(f"{infer.where}: {error}") from error


def _check_model(model: LoadedModel, shapes: dict[str, tuple[int, ...]], features: Features, infer: Infer, clock: Clock) -> None:
    try:
        model.check(shapes)
    except ModelError as error:
        raise ModelError(f"{features.where}: {error}") from error
    try:
        model.prove(shapes, clock)
    except ModelError as error:
        raise ModelError(f"{infer.where}: {error}") from error


def _threshold(flag: Flag | None, publish: Publish, model: LoadedModel) -> float | None:
    if flag is None:
        if publish.anomalies:
            raise TopologyError(f"{publish.where}: anomalies={publish.anomalies!r} needs a .flag(above=...) step before it")
        return None
    if not isinstance(flag.above, str):
        return float(flag.above)
    if model.facts.threshold is None:
        raise ModelError(f"{flag.where}: model {model.file.name} carries no streamer.threshold in its metadata; give a number")
    return model.facts.threshold


def plan_of(
    declared: Declaration, settings: Settings, models: Path, *, model: LoadedModel | None = None, clock: Clock | None = None
) -> Plan | MatchPlan:
    """What a declaration becomes: `bind`, or without a model where labels are waited for.

    Raises:
        TopologyError: the declaration is wrong; the message starts with the line.
        ModelError: the model is missing, unreadable, or does not take these features.
    """
    return _BINDERS[type(declared)](declared, settings, models, model=model, clock=clock)


def _unscored(declared: LabelMatch, settings: Settings, *_: object, **__: object) -> MatchPlan:
    return bind_match(declared, settings)


_BINDERS: dict[type[Declaration], Callable[..., Plan | MatchPlan]] = {Topology: bind, LabelMatch: _unscored}
