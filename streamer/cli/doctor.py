"""`streamer doctor`: everything a worker needs, checked step by step from the outside in; each failure comes with its fix."""

import socket
import threading
from typing import TYPE_CHECKING, Any

import typer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from streamer.changelog.kept import check_kept
from streamer.cli.check import TIMEOUT_S, Check
from streamer.cli.groups import members_of
from streamer.cli.options import Bootstrap, Config, Group, Models, TopologyName
from streamer.cli.partitioner import same_partitioner
from streamer.cli.say import say, tell
from streamer.clock import SystemClock
from streamer.errors import StateError, StreamerError
from streamer.kafka.admin import SEGMENTS
from streamer.kafka.clients import KafkaClients
from streamer.kafka.config import apart, create_command, reader_config
from streamer.operators.checks import check_memory
from streamer.planning.plan import Plan, plan_of
from streamer.settings.settings import Settings
from streamer.topology.loading import load_topology
from streamer.topology.topics import Topics, topics_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import ClusterMetadata

    from streamer.operators.match.plan import MatchPlan

app = typer.Typer()

# Dead letters carry up to 64 KiB and their headers, changelog blocks up to 900 KiB.
_MESSAGE_BYTES_MIN = 1_000_000


class _CannotGoOnError(Exception):
    """A check failed on which all later ones of its kind depend."""


@app.command()
def doctor(
    topology: TopologyName,
    *,
    bootstrap: Bootstrap = None,
    group: Group = None,
    models: Models = None,
    config: Config = None,
) -> None:
    """Check broker, topics and model for a topology; each line is ok or the fix. Exit status 1 if one failed."""
    settings = Settings.load(config, bootstrap=bootstrap, group=group, models=models)
    failed = 0
    for check in examine(topology, settings):
        failed += not check.ok
        say(str(check))
    if failed:
        tell(f"{failed} failed")
        raise typer.Exit(1)


def examine(name: str, settings: "Settings") -> "Iterator[Check]":
    """All checks, each as soon as it is done. A broker that is away does not keep the model from being checked."""
    try:
        topology, folder = load_topology(name)
        topics, settings = topics_of(topology, settings.group), settings.named(topology.name, "doctor")
    except StreamerError as error:
        yield Check(ok=False, what=f"topology {name}", fix=str(error))
        return
    yield Check(ok=True, what=f"topology {topology.name} reads {' and '.join(topics.sources)}")
    plan = _bound(topology, settings, folder)
    yield from _until_stuck(lambda: _brokers(settings, topics, settings.group or topology.name, plan))
    yield from _model(plan)


def _bound(topology: Any, settings: "Settings", folder: Any) -> "Plan | MatchPlan | StreamerError":
    """What `streamer run` would run, or what it would end with."""
    try:
        return plan_of(topology, settings, settings.models or folder / "models")
    except StreamerError as error:
        return error


def _until_stuck(checks: "Callable[[], Iterator[Check]]") -> "Iterator[Check]":
    try:
        yield from checks()
    except _CannotGoOnError:
        return


# ---------------------------------------------------------------------- the way to the brokers


def _brokers(settings: "Settings", topics: "Topics", group: str, plan: "Plan | MatchPlan | StreamerError") -> "Iterator[Check]":
    for warning in settings.warnings():
        yield Check(ok=True, warning=True, what=warning)
    reached = False
    for address in settings.bootstrap.split(","):
        check = reach(address.strip(), "bootstrap")
        reached |= check.ok
        yield check
    if not reached:
        raise _CannotGoOnError
    reasons: list[KafkaError] = []
    config: dict[str, Any] = {**settings.admin_config(), "log_level": 0, "error_cb": reasons.append}
    admin = KafkaClients().admin(config)
    try:
        cluster = admin.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        admin.poll(0.1)  # hands over what the client was told meanwhile; the first is the cause
        why = reasons[0].str() if reasons else error.args[0].str()
        protocol = config.get("security.protocol", "plaintext")
        fix = f"{why}. The port answers, but not as expected: wrong port, TLS or SASL settings (security.protocol={protocol})"
        yield Check(ok=False, what=f"metadata from {settings.bootstrap}", fix=fix)
        raise _CannotGoOnError from error
    yield Check(
        ok=True, what=f"metadata: cluster {cluster.cluster_id}, {len(cluster.brokers)} brokers, {len(cluster.topics)} topics"
    )
    for broker in cluster.brokers.values():
        yield reach(f"{broker.host}:{broker.port}", f"advertised listener of broker {broker.id}", advertised=True)
    yield from _topics(admin, cluster, topics, settings)
    for source, reader in topics.readers(group).items():
        if source in cluster.topics:
            yield from _group(settings, source, reader)
    if len(topics.sources) > 1 and all(source in cluster.topics for source in topics.sources):
        yield same_partitioner(settings, {source: len(cluster.topics[source].partitions) for source in topics.sources})
    if topics.changelog in cluster.topics:
        yield from _state(settings, topics.changelog, len(cluster.topics[topics.changelog].partitions), plan)


def reach(address: str, role: str, *, advertised: bool = False) -> Check:
    """Resolve HOST:PORT and open a TCP connection."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    what = f"{role} {address}"
    hint = (
        "clients are sent on to this address: set advertised.listeners of the broker to one that this machine can reach"
        if advertised
        else "start the broker (streamer dev broker start), or give its address with --bootstrap"
    )
    if not host or not port.isdecimal():
        return Check(ok=False, what=what, fix="this is no address; write HOST:PORT")
    places = _resolved(host, int(port))
    if isinstance(places, OSError):
        return Check(ok=False, what=what, fix=f"the name {host} does not resolve ({places}); {hint}")
    problem: OSError | None = None
    for family, kind, protocol, _, place in places:
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(TIMEOUT_S)
                connection.connect(place)
                return Check(ok=True, what=f"{what} answers")
        except OSError as error:
            problem = error
    return Check(ok=False, what=what, fix=f"no connection ({problem}); {hint}")


def _resolved(host: str, port: int) -> list[Any] | OSError:
    """Places behind a name; the resolver of the system has no time limit of its own."""
    answer: list[list[Any] | OSError] = []

    def resolve() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answer.append(error)

    thread = threading.Thread(target=resolve, name="streamer-resolve", daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return answer[0] if answer else OSError(f"no answer within {TIMEOUT_S:g} s")


# ---------------------------------------------------------------------- topics and group


def _topics(admin: "AdminClient", cluster: "ClusterMetadata", topics: "Topics", settings: "Settings") -> "Iterator[Check]":
    names, command = topics.all(), create_command(settings)
    for name in names:
        known = cluster.topics.get(name)
        if known is None or known.error is not None:
            yield Check(ok=False, what=f"topic {name}", fix=f"it does not exist; {command} makes it")
            continue
        leaderless = [number for number, partition in known.partitions.items() if partition.leader < 0]
        if leaderless:
            yield Check(ok=False, what=f"topic {name}", fix=f"partitions {leaderless} have no leader; look at the brokers")
        else:
            yield Check(ok=True, what=f"topic {name}, {len(known.partitions)} partitions")
    present = [name for name in names if name in cluster.topics]
    if topics.changelog in present and topics.lead in present:
        yield _same_partitions(cluster, topics.lead, topics.changelog)
    for joined in topics.joined:
        if joined in present and topics.lead in present:
            yield _copartitioned(cluster, topics.lead, joined)
    yield from _topic_configs(admin, topics, present)


def _same_partitions(cluster: "ClusterMetadata", source: str, changelog: str) -> Check:
    count, kept = len(cluster.topics[source].partitions), len(cluster.topics[changelog].partitions)
    if count == kept:
        return Check(ok=True, what=f"changelog and source both have {count} partitions")
    return Check(
        ok=False,
        what=f"{source} has {count} partitions, {changelog} has {kept}",
        fix="keys have moved and the kept windows no longer fit; run with a new --group to start new windows from the input",
    )


def _copartitioned(cluster: "ClusterMetadata", source: str, joined: str) -> Check:
    count, others = len(cluster.topics[source].partitions), len(cluster.topics[joined].partitions)
    if count == others:
        return Check(ok=True, what=f"{source} and {joined} both have {count} partitions")
    return Check(ok=False, what=f"{source} and {joined} do not belong together", fix=apart(source, count, joined, others))


def _topic_configs(admin: "AdminClient", topics: "Topics", names: list[str]) -> "Iterator[Check]":
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return
    for resource, future in admin.describe_configs(resources, request_timeout=TIMEOUT_S).items():
        try:
            config = {name: entry.value for name, entry in future.result(TIMEOUT_S).items()}
        except (KafkaException, TimeoutError) as error:
            why = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
            yield Check(ok=True, warning=True, what=f"configuration of {resource.name} cannot be read ({why})")
            continue
        if resource.name in topics.sources:
            yield _timestamps(resource.name, config.get("message.timestamp.type"))
        size = int(config.get("max.message.bytes") or 0)
        if size < _MESSAGE_BYTES_MIN:
            yield Check(
                ok=False,
                what=f"max.message.bytes of {resource.name} is {size:,}",
                fix=f"records of up to {_MESSAGE_BYTES_MIN:,} bytes are written there; raise it",
            )
        if resource.name == topics.changelog:
            yield from _retention(topics.changelog, config)


def _timestamps(source: str, kind: str | None) -> Check:
    if kind == "LogAppendTime":
        return Check(ok=True, what=f"{source} has log-append timestamps")
    return Check(
        ok=True,
        warning=True,
        what=f"{source} has message.timestamp.type={kind}",
        fix="event times are judged against our clock at the first poll instead of the broker's, and latency counts from the "
        "producer's clock; set LogAppendTime",
    )


def _retention(changelog: str, config: dict[str, str | None]) -> "Iterator[Check]":
    """The state is what the changelog says: it must not be deleted by age or size, nor compacted; what it sheds must go."""
    kept = config.get("retention.ms") == "-1" and config.get("retention.bytes") == "-1"
    if kept and config.get("cleanup.policy") == "delete":
        yield Check(ok=True, what=f"{changelog} is kept for ever")
    else:
        yield Check(
            ok=False,
            what=f"{changelog} loses records (retention.ms={config.get('retention.ms')}, retention.bytes="
            f"{config.get('retention.bytes')}, cleanup.policy={config.get('cleanup.policy')})",
            fix="windows could not be rebuilt; set retention.ms=-1, retention.bytes=-1, cleanup.policy=delete",
        )
    wide = {name: config[name] for name, most in SEGMENTS.items() if int(config.get(name) or 0) > int(most)}
    if wide:
        better = ",".join(f"{name}={SEGMENTS[name]}" for name in wide)
        yield Check(
            ok=True,
            warning=True,
            what=f"{changelog} has segments of {', '.join(f'{name}={value}' for name, value in wide.items())}",
            fix=f"records that are deleted keep their disk until a segment is full or old: kafka-configs --alter --topic "
            f"{changelog} --add-config {better}",
        )


def _group(settings: "Settings", source: str, group: str) -> "Iterator[Check]":
    config = settings.admin_config() | {"log_level": 0}
    admin = KafkaClients().admin(config)
    consumer = KafkaClients().consumer(config | {"group.id": group, "enable.auto.commit": False})
    try:
        state, members = members_of(admin, group, TIMEOUT_S)
        partitions = consumer.list_topics(source, timeout=TIMEOUT_S).topics[source].partitions
        places = consumer.committed([TopicPartition(source, number) for number in partitions], timeout=TIMEOUT_S)
        lag = started = 0
        for place in places:
            low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S, cached=False)
            started += place.offset >= 0
            lag += high - (place.offset if place.offset >= 0 else low)
        yield Check(
            ok=True,
            what=f"group {group}: {state}, {members} members; {source}: committed in {started} of "
            f"{len(places)} partitions, lag {lag:,} records",
        )
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0] if isinstance(error, KafkaException) else None
        why = f"{reason.name()} {reason.str()}".strip() if reason is not None else "no answer"
        refused = reason is not None and reason.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
        fix = "grant the rights that streamer topics plan lists" if refused else "look at the brokers, and try again"
        yield Check(ok=False, what=f"group {group}", fix=f"{why}; {fix}")
    finally:
        consumer.close()


# ---------------------------------------------------------------------- the state


def _state(settings: "Settings", changelog: str, partitions: int, plan: "Plan | MatchPlan | StreamerError") -> "Iterator[Check]":
    """Room for the windows, and whether those that are kept are the topology's: what `run` finds out, as it says it."""
    if isinstance(plan, StreamerError) or plan.store is None:
        return
    try:
        check_memory(plan.store, settings, plan.name, partitions)
        yield Check(ok=True, what=f"windows of {partitions} partitions fit the memory budget")
    except StreamerError as error:
        yield Check(ok=False, what="memory", fix=str(error))
    consumer = KafkaClients().consumer(reader_config(settings, committed=True) | {"log_level": 0})
    try:
        held = check_kept(consumer, changelog, partitions, plan.store.fingerprint, clock=SystemClock(), timeout_s=TIMEOUT_S)
        yield Check(ok=True, what=f"{changelog} keeps windows of this topology in {held} of {partitions} partitions")
    except StateError as error:
        yield Check(ok=False, what="kept windows", fix=str(error))
    except (KafkaException, TimeoutError) as error:
        why = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        yield Check(ok=True, warning=True, what=f"{changelog} cannot be read ({why})")
    finally:
        consumer.close()


# ---------------------------------------------------------------------- the model


def _model(plan: "Plan | MatchPlan | StreamerError") -> "Iterator[Check]":
    if isinstance(plan, StreamerError):
        yield Check(ok=False, what="model and features", fix=str(plan))
        return
    if plan.model is None:
        yield Check(ok=True, what="the topology needs no model")
        return
    file = plan.model.file
    flags = "flags nothing" if plan.threshold is None else f"flags scores above {plan.threshold:g}"
    yield Check(ok=True, what=f"model {file.name} version {file.version} takes the {len(plan.feature_shapes)} features, {flags}")
    for warning in plan.model.probed.warnings:
        yield Check(ok=True, warning=True, what=f"model {file.name} version {file.version}", fix=warning)
    if plan.model.probed.row is None:
        return
    clock = SystemClock()
    started = clock.monotonic()
    plan.model.run(plan.model.probed.row, 1)
    took = clock.monotonic() - started
    yield Check(ok=True, what=f"one inference of {file.name} took {took * 1e3:.2f} ms")
