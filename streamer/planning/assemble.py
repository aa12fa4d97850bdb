"""The stages of a flow: what a plan becomes. The worker turns them without knowing which kind it has."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from streamer.changelog.blocks import ChangelogTopic, row_bytes
from streamer.clock import Clock
from streamer.errors import TopicError
from streamer.inference.pool import Pool
from streamer.kafka.message_sizes import MessageSizes
from streamer.limits import CHANGELOG_FRAME_BYTES
from streamer.operators.closing.stage import CloseStage
from streamer.operators.flag.stage import Flag
from streamer.operators.infer.stage import Infer
from streamer.operators.join.plan import JoinInput
from streamer.operators.join.spec import UNREAD, JoinSpec
from streamer.operators.join.stage import JoinStage
from streamer.operators.match.plan import MatchPlan
from streamer.operators.match.stage import MatchStage
from streamer.operators.rekey.grid import Grid
from streamer.operators.rekey.receive import Receive, RekeyedWindows
from streamer.operators.rekey.send import Forward, Progress, Unscored
from streamer.operators.rolling.stage import WindowStage
from streamer.operators.samples import SampleSpec
from streamer.planning.plan import Plan, RekeyPlan
from streamer.rows.batch import Batch, Records
from streamer.settings.settings import Settings
from streamer.stages.commit.committing import Marks
from streamer.stages.consume.partitioners import Partitioners
from streamer.stages.decode.decode import Decode, DecodeEach
from streamer.stages.decode.tables import DecodeTable
from streamer.stages.produce.encode import Encoder
from streamer.stages.produce.produce import Encoding, Matches, Results
from streamer.telemetry.metrics import Metrics
from streamer.topology.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamer.state.keyed_store import StateStore

Flow = Plan | RekeyPlan | MatchPlan

# Judged where the event first came in; what is decoded again has passed.
_ANY_TIME_US = 10**17


class Keyed(Protocol):
    """What is kept per partition and advances with its rows: the window stage and its like."""

    @property
    def stores(self) -> "Mapping[int, Any]":
        """Partition -> its windows."""

    @property
    def keys(self) -> int:
        """Live keys."""

    @property
    def truncated(self) -> int:
        """Windows that lost samples."""

    @property
    def evicted(self) -> int:
        """Keys that made room for others."""

    def open(self, partition: int) -> "StateStore | None":
        """Begin a partition anew."""

    def close(self, partition: int) -> None:
        """Forget a partition."""

    def __call__(self, batch: Batch) -> None:
        """Advance."""


class Scoring(Protocol):
    """What holds batches between window and flag: the infer stage and its like."""

    rows: int
    value_bytes: int

    def submit(self, batch: Batch) -> None:
        """Queue a batch."""

    def collect(self, timeout_s: float) -> Batch | None:
        """The oldest batch when it is done."""

    def stuck(self) -> str | None:
        """None, or which run hangs."""

    def drop(self) -> None:
        """Forget what is queued."""

    def __len__(self) -> int:
        """Batches queued."""

    def close(self) -> None:
        """End its threads."""


@dataclass(slots=True)
class Stages:
    """What differs from flow to flow; consume, produce and commit are the same for all.

    Attributes:
        decode, window, infer, flag: the stages of those names.
        encoding: what goes out.
        changelog: where state changes go, or None.
        marks: what a transaction says at its end, or None.
    """

    decode: "Callable[[Records], Batch]"
    window: Keyed
    infer: Scoring
    flag: Flag
    encoding: Encoding
    changelog: ChangelogTopic | None = None
    marks: Marks | None = None


def waits_for_ends(flow: Flow) -> bool:
    """Whether something happens when an input has nothing more to read: inputs that meet go on, windows close."""
    if isinstance(flow, RekeyPlan) or len(flow.topics.sources) > 1:
        return True
    window = flow.store.window if isinstance(flow.store, SampleSpec) else None
    return isinstance(window, Closing) and window.idle_us > 0


def stages_of(
    plan: Flow, settings: Settings, clock: Clock, sizes: MessageSizes, partitions_of: "Callable[[str], int]", metrics: Metrics
) -> Stages:  # fmt: skip
    """Build the stages of a flow with outputs of these sizes; `partitions_of` asks how many partitions a topic has."""
    if isinstance(plan, RekeyPlan):
        internal, source = plan.topics.predictions, plan.topics.source
        forward = Forward(internal, plan.field, partitions_of(internal), partial(partitions_of, source), sizes)
        ahead_us = round(settings.max_ahead * 1e6)
        decode = Decode(plan.event, (), settings.record_bytes_max, ahead_us, keyed=False, new_key=plan.field)
        return Stages(decode, Progress(plan.align_us, plan.idle_s), Unscored(), Flag(None, 0), forward, None, forward.marks)
    stop = settings.on_partitioner_mismatch == "stop"
    look = Partitioners(plan.topics.sources, partitions_of, clock, metrics, stop=stop)
    if isinstance(plan, MatchPlan):
        return _matching(plan, settings, sizes, look)
    model = plan.model
    names = tuple(name for name in (model.facts.features or plan.feature_shapes) if plan.feature_shapes[name] == ())
    return Stages(
        _decode(plan, settings, look),
        _window(plan, settings),
        Infer(Pool(model, settings.inference.threads, clock)),
        Flag(plan.threshold, model.score_column),
        Results(Encoder(plan.topics.source, model, plan.publish_features, names), plan.topics, sizes),
        _changelog(plan, sizes),
    )


def _matching(plan: MatchPlan, settings: Settings, sizes: MessageSizes, look: Partitioners) -> Stages:
    ahead_us, events = round(settings.max_ahead * 1e6), (plan.event, plan.label)
    decoders = [Decode(event, (), settings.record_bytes_max, ahead_us, keyed=True) for event in events]
    changelog = _changelog(plan, sizes)
    assert changelog is not None, "what waits is kept"
    window = MatchStage(plan.store, events, settings.keys_max, plan.idle_s, changelog)
    decode = DecodeEach(dict(zip(plan.topics.sources, decoders, strict=True)), look)
    return Stages(decode, window, Unscored(), Flag(None, 0), Matches(plan.topics, sizes), changelog)


def _decode(plan: Plan, settings: Settings, look: Partitioners) -> Decode | DecodeEach | Receive:
    """The decoder of a flow, or those of its inputs."""
    ahead_us = _ANY_TIME_US if plan.rekey else round(settings.max_ahead * 1e6)
    bytes_max = settings.record_bytes_max
    source = Decode(plan.event, plan.columns, bytes_max, ahead_us, keyed=plan.store is not None, key=plan.key)
    if plan.rekey:
        return Receive(plan.topics.source, source)
    if plan.joins is None:
        return source
    others = [_decode_input(each, bytes_max, ahead_us) for each in plan.joins.inputs]
    return DecodeEach(dict(zip(plan.topics.sources, [source, *others], strict=True)), look)


def _decode_input(each: JoinInput, bytes_max: int, ahead_us: int) -> Decode | DecodeTable:
    read = tuple(name for name in each.columns if name != UNREAD)
    rows = Decode(each.event, read, bytes_max, ahead_us, keyed=True)
    return DecodeTable(rows, each.columns) if each.table else rows


def _window(plan: Plan, settings: Settings) -> WindowStage | RekeyedWindows | JoinStage | CloseStage:
    """The stage that keeps the state of a flow."""
    if plan.joins is not None:
        events = tuple(each.event for each in plan.joins.inputs)
        return JoinStage(plan.joins.spec, plan.needs, plan.features, settings.keys_max, events, plan.joins.idle_s)
    assert not isinstance(plan.store, JoinSpec), "only joins have one"
    if plan.store is not None and isinstance(plan.store.window, Closing):
        stage: WindowStage | CloseStage = CloseStage(
            plan.store, plan.needs, plan.features, settings.keys_max,
            plan.emit != "each", plan.emit != "on_close", plan.topics.source,
        )  # fmt: skip
    else:
        stage = WindowStage(plan.store, plan.needs, plan.features, settings.keys_max)
    return RekeyedWindows(stage, Grid.of(plan.store.window)) if plan.rekey and plan.store else stage


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
