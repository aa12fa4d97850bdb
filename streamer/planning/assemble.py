"""The pipeline of a flow: what a plan becomes. The worker feeds it without knowing which kind it has."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from streamer.changelog.blocks import ChangelogTopic, row_bytes
from streamer.clock import Clock
from streamer.codecs.formats import codec_of
from streamer.errors import TopicError
from streamer.inference.pool import Pool
from streamer.kafka.message_sizes import MessageSizes
from streamer.limits import CHANGELOG_FRAME_BYTES
from streamer.operators.flag.stage import Flag
from streamer.operators.infer.stage import Infer
from streamer.operators.join.plan import JoinInput
from streamer.operators.match.plan import MatchPlan
from streamer.operators.match.stage import MatchStage
from streamer.operators.operator import Inputs, Keyed, Scoring, Stateless
from streamer.operators.rekey.plan import RekeyPlan
from streamer.operators.rekey.receive import Receive
from streamer.operators.rekey.send import Forward, PartitionTimes, Unscored
from streamer.pipeline.pipeline import Pipeline
from streamer.planning.plan import Plan
from streamer.planning.windows import window_of
from streamer.rows.served import Served
from streamer.settings.settings import Settings
from streamer.stages.commit.state_writer import Marks
from streamer.stages.consume.partitioners import Partitioners
from streamer.stages.decode.decode import Decode, DecodeEach
from streamer.stages.decode.tables import DecodeTable
from streamer.stages.produce.encode import Encoder
from streamer.stages.produce.results import Matches, Results, Sink
from streamer.telemetry.laps import Laps
from streamer.telemetry.metrics import Metrics
from streamer.topology.joins import UNREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamer.rows.batch import Batch
    from streamer.rows.records import Records

Flow = Plan | RekeyPlan | MatchPlan

# Judged where the event first came in; what is decoded again has passed.
_ANY_TIME_US = 10**17


@dataclass(slots=True, kw_only=True)
class Assembled:
    """What differs from flow to flow; consume, produce and commit are the same for all.

    Attributes:
        pipeline: decode, operators and encode.
        changelog: where state changes go, or None.
        marks: what a transaction says at its end, or None.
    """

    pipeline: Pipeline
    changelog: ChangelogTopic | None = None
    marks: Marks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a pipeline is built with, beside its plan.

    Attributes:
        settings: of the service.
        clock: time.
        sizes: what each topic takes.
        partitions_of: asks how many partitions a topic has.
        inputs: knows how far each input has been read.
        metrics: where numbers go.
    """

    settings: Settings
    clock: Clock
    sizes: MessageSizes
    partitions_of: "Callable[[str], int]"
    inputs: Inputs
    metrics: Metrics

    @property
    def ahead_us(self) -> int:
        """How far an event may lie after its log time."""
        return round(self.settings.max_ahead * 1e6)

    def look_at(self, topics: "Sequence[str]") -> Partitioners:
        """Whether keys of these topics lie where they should."""
        stop = self.settings.on_partitioner_mismatch == "stop"
        return Partitioners(topics, self.partitions_of, self.clock, self.metrics, stop=stop)


def assembled(plan: Flow, around: Surroundings) -> Assembled:
    """Build the pipeline of a flow.

    Raises:
        TopicError: the changelog does not even take a row of the flow's state.
    """
    return _FLOWS[type(plan)](plan, around)


def _pipeline(
    plan: Flow, around: Surroundings, *,
    decode: "Callable[[Records], Batch]", window: Keyed, infer: Scoring, flag: Flag, sink: Sink,
    stateless: "Sequence[Stateless]" = (),
) -> Pipeline:  # fmt: skip
    """Stages as one, in the surroundings that are the same for all of them."""
    timed = window.releasing(around.inputs, around.clock, around.metrics)
    laps = Laps(around.metrics, plan.steps, around.clock)
    return Pipeline(
        decode=decode, stateless=dict(zip(plan.steps.stateless, stateless, strict=True)), window=window, timed=timed, infer=infer,
        flag=flag, sink=sink, laps=laps, clock=around.clock,
        dead_letters_of=plan.topics.dead_letters_of, late_events=plan.topics.late_events,
    )  # fmt: skip


def _forwarding(plan: RekeyPlan, around: Surroundings) -> Assembled:
    internal, source = plan.topics.predictions, plan.topics.source
    receivers, most = around.partitions_of(internal), around.sizes.record(internal)
    forward = Forward(internal, plan.field, receivers, partial(around.partitions_of, source), most)
    codec = codec_of(plan.event, "json", around.settings.record_bytes_max)
    pipeline = _pipeline(
        plan,
        around,
        decode=Decode(codec=codec, columns=(), max_ahead_us=around.ahead_us, keyed=False, new_key=plan.field),
        window=PartitionTimes(max_drift_us=plan.max_drift_us, idle_timeout_s=plan.idle_timeout_s),
        infer=Unscored(),
        flag=Flag(None),
        sink=forward,
    )
    return Assembled(pipeline=pipeline, marks=forward.marks)


def _scoring(plan: Plan, around: Surroundings) -> Assembled:
    model, step = plan.model, plan.steps.infer
    names = tuple(name for name in (model.facts.features or plan.feature_shapes) if plan.feature_shapes[name] == ())
    pipeline = _pipeline(
        plan,
        around,
        decode=_decode(plan, around),
        stateless=plan.stateless,
        window=window_of(plan, around.settings),
        infer=Infer(Pool(model, around.settings.inference.threads, around.clock), step, served_of(plan)),
        flag=Flag(step),
        sink=Results(Encoder(plan.topics.source, step, plan.publish_features, names), plan.topics, around.sizes),
    )
    return Assembled(pipeline=pipeline, changelog=_changelog(plan, around.sizes))


def served_of(plan: Plan) -> Served:
    """What those behind the model need to know of it."""
    model, facts = plan.model, plan.model.facts
    known = facts.features if facts.center and facts.scale else ()
    usual = {name: (center, scale) for name, center, scale in zip(known, facts.center, facts.scale, strict=True)} if known else {}
    return Served(
        model=model.file.name, version=model.file.version, digest=model.digest, threshold=plan.threshold,
        score_column=model.score_column, usual=usual,
    )  # fmt: skip


def _matching(plan: MatchPlan, around: Surroundings) -> Assembled:
    events, bytes_max = (plan.event, plan.label), around.settings.record_bytes_max
    codecs = [codec_of(event, "json", bytes_max) for event in events]
    decoders = [Decode(codec=codec, columns=(), max_ahead_us=around.ahead_us, keyed=True) for codec in codecs]
    changelog = _changelog(plan, around.sizes)
    assert changelog is not None, "what waits is kept"
    window = MatchStage(
        spec=plan.store,
        events=events,
        waiting_max=around.settings.waiting_max,
        idle_timeout_s=plan.idle_timeout_s,
        changelog=changelog.topic,
        name_bytes_max=changelog.row_bytes_max - row_bytes(len(plan.store.fields), 0),
    )
    sources = plan.topics.sources
    pipeline = _pipeline(
        plan,
        around,
        decode=DecodeEach(dict(zip(sources, decoders, strict=True)), around.look_at(sources)),
        window=window,
        infer=Unscored(),
        flag=Flag(None),
        sink=Matches(plan.topics, around.sizes),
    )
    return Assembled(pipeline=pipeline, changelog=changelog)


_FLOWS: "dict[type[Flow], Callable[..., Assembled]]" = {RekeyPlan: _forwarding, Plan: _scoring, MatchPlan: _matching}


def _decode(plan: Plan, around: Surroundings) -> Decode | DecodeEach | Receive:
    """The decoder of a flow, or those of its inputs."""
    ahead_us, bytes_max = _ANY_TIME_US if plan.rekey else around.ahead_us, around.settings.record_bytes_max
    codec = codec_of(plan.event, plan.format, bytes_max)
    source = Decode(
        codec=codec, columns=plan.columns, kept=plan.kept, max_ahead_us=ahead_us, keyed=plan.store is not None, key=plan.key
    )  # fmt: skip
    if plan.rekey:
        return Receive(plan.topics.source, source)
    if plan.joins is None:
        return source
    others = [_decode_input(each, bytes_max, ahead_us) for each in plan.joins.inputs]
    sources = plan.topics.sources
    return DecodeEach(dict(zip(sources, [source, *others], strict=True)), around.look_at(sources))


def _decode_input(each: JoinInput, bytes_max: int, ahead_us: int) -> Decode | DecodeTable:
    read = tuple(name for name in each.columns if name != UNREAD)
    codec = codec_of(each.event, each.format, bytes_max)
    rows = Decode(codec=codec, columns=read, kept=frozenset(read), max_ahead_us=ahead_us, keyed=True)
    return DecodeTable(rows, each.columns) if each.table else rows


def _changelog(plan: Plan | MatchPlan, sizes: MessageSizes) -> ChangelogTopic | None:
    """Where a flow writes its state; None without state.

    Raises:
        TopicError: the topic does not even take a row of it.
    """
    topic, store = plan.topics.changelog, plan.store
    if store is None or topic is None:
        return None
    # What a message has beside its rows, and what they grow by where they cannot be compressed.
    most = (sizes.record(topic) - len(store.fingerprint.encode()) - CHANGELOG_FRAME_BYTES) * 255 // 256
    if most < (row := row_bytes(len(store.fields))):
        raise TopicError(
            f"{topic} takes {most:,} bytes of state in a record (max.message.bytes, less its frame), and a row of it may have "
            f"{row:,}: kafka-configs --alter --topic {topic} --add-config max.message.bytes=1048588"
        )
    return ChangelogTopic(topic, store.fingerprint, len(store.fields), row_bytes_max=most)
