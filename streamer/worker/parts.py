"""The parts of a worker, and how they hang together. Whoever makes them asks the brokers about topics, and nothing more."""

from dataclasses import dataclass, replace

from streamer.changelog.blocks import ChangelogTopic
from streamer.changelog.restore import Restore
from streamer.changelog.snapshots import SnapshotScheduler
from streamer.clock import Clock, SystemClock
from streamer.kafka.clients import Clients, KafkaClients
from streamer.kafka.config import admin_config, consumer_config, reader_config
from streamer.kafka.message_sizes import MessageSizes, message_sizes
from streamer.kafka.refusals import Refusals
from streamer.pipeline.pipeline import Pipeline
from streamer.planning.assemble import Flow, Surroundings, assembled
from streamer.settings.settings import Settings
from streamer.stages.commit.at_least_once import AtLeastOnce
from streamer.stages.commit.commit import Commit
from streamer.stages.commit.exactly_once import ExactlyOnce, Timing
from streamer.stages.commit.guarantee import Guarantee
from streamer.stages.commit.producers import plain, transactional
from streamer.stages.commit.transaction import ChainPosition
from streamer.stages.consume.at_rest import AtRest
from streamer.stages.consume.consume import Consume
from streamer.stages.produce.produce import Produce
from streamer.telemetry.alarm import DeadLetterAlarm
from streamer.telemetry.metrics import Metrics
from streamer.worker.assignment import Assignment
from streamer.worker.bookkeeper import Bookkeeper
from streamer.worker.breaker import Breaker
from streamer.worker.fence_guard import FenceGuard
from streamer.worker.room import Room
from streamer.worker.topic_watch import TopicWatch, roles_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker consists of.

    Attributes:
        plan: what it runs.
        clock: time.
        metrics: where numbers go.
        consume: reads.
        pipeline: decode, operators and encode.
        produce, commit: send, and make visible.
        at_rest: tells of partitions that have been at their end for a while.
        bases: base snapshots; None for a flow without windows.
        room: how much may be taken in.
        assignment: prepares partitions.
        watch: whether the topics are still the same.
        breaker: pauses after refusals.
        fences: counts how often somebody else took our transactional id.
        book: turns what happened into metrics.
        drain_timeout_s: how long the end may take, seconds.
    """

    plan: Flow
    clock: Clock
    metrics: Metrics
    consume: Consume
    pipeline: Pipeline
    produce: Produce
    commit: Commit
    at_rest: AtRest
    bases: SnapshotScheduler | None
    room: Room
    assignment: Assignment
    watch: TopicWatch
    breaker: Breaker
    fences: FenceGuard
    book: Bookkeeper
    drain_timeout_s: float


def parts_of(
    plan: Flow, settings: Settings, *, clients: Clients | None = None, clock: Clock | None = None, metrics: Metrics | None = None
) -> Parts:
    """Make the parts of a worker.

    A pipeline is made for topics as they are (how many partitions, records of what size), so these are asked for here; that takes
    as long as the brokers take to answer. Producers and the group wait for `Worker.open` and `Worker.run`.

    Args:
        plan: what to run.
        settings: how.
        clients: Kafka, or the in-memory log of `streamer.testing`.
        clock: time.
        metrics: where numbers go.

    Raises:
        TopicError: a topic is missing, or does not take what will be written to it.
    """
    clients, clock, metrics = clients or KafkaClients(), clock or SystemClock(), metrics or Metrics()
    config = consumer_config(settings, plan.group, ends=plan.waits_for_ends)
    consume = Consume(lambda: clients.consumer(config), plan.topics.sources, clock, clients.silence_between_polls_s)
    admin, places = clients.admin(admin_config(settings)), dict[int, ChainPosition]()
    watch = TopicWatch(roles=roles_of(plan), admin=admin, clock=clock, places=places)
    watch.open()
    sizes = message_sizes(admin, settings, plan.topics)
    breaker = Breaker(clock, sizes)
    around = Surroundings(
        settings=settings, clock=clock, sizes=sizes, partitions_of=watch.partitions, inputs=consume, metrics=metrics
    )  # fmt: skip
    built = assembled(plan, around)
    pipeline, state = built.pipeline, replace(built.changelog, ids=watch.ids) if built.changelog else None
    bases = SnapshotScheduler(state, admin, clock, metrics) if state else None
    guarantee = _guarantee(
        plan, settings, clients=clients, clock=clock, metrics=metrics, sizes=sizes, refusals=breaker.refusals, consume=consume
    )
    produce = Produce(clock, sizes, guarantee.report)
    commit = Commit(guarantee=guarantee, topics=watch.marks, places=places, bases=bases, clock=clock, marks=built.marks)
    assignment = Assignment(
        consume=consume, window=pipeline.window, commit=commit,
        restore=_restore(state, settings, clients, clock, guarantee) if state else None,
        admin=admin, watch=watch, bases=bases, changelog=state.topic if state else None,
        start=settings.start_from, on_lost=settings.on_lost_offsets, metrics=metrics, clock=clock,
        tells_spares=config.get("group.protocol") != "consumer",
    )  # fmt: skip
    return Parts(
        plan=plan,
        clock=clock,
        metrics=metrics,
        consume=consume,
        pipeline=pipeline,
        produce=produce,
        commit=commit,
        at_rest=AtRest(consume, lambda: places, clock),
        bases=bases,
        room=Room(pipeline, produce, commit, bases),
        assignment=assignment,
        watch=watch,
        breaker=breaker,
        fences=FenceGuard(clock, settings.slot_name),
        book=Bookkeeper(metrics, plan, DeadLetterAlarm(metrics, settings.dead_letters_stop), pipeline.laps, clock),
        drain_timeout_s=settings.drain_timeout,
    )


def _guarantee(
    plan: Flow, settings: Settings, *, clients: Clients, clock: Clock, metrics: Metrics,
    sizes: MessageSizes, refusals: Refusals, consume: Consume,
) -> Guarantee:  # fmt: skip
    """What the settings ask for, with its producers."""
    if settings.guarantee == "exactly-once":
        timing = Timing(settings.commit_interval, clients.rest_after_commit_s, clients.commit_stuck_s)
        make = transactional(clients, settings, plan.group, sizes, clock)
        return ExactlyOnce(make, timing, clock, metrics, refusals)
    return AtLeastOnce(plain(clients, settings, sizes, refusals, forwards=plan.forwards), consume.commit, metrics)


def _restore(state: ChangelogTopic, settings: Settings, clients: Clients, clock: Clock, guarantee: Guarantee) -> Restore:
    """What rebuilds the windows."""
    reader = clients.consumer(reader_config(settings, committed=True))
    return Restore(reader, state.topic, clock, strict=guarantee.atomic)
