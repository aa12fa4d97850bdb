"""`streamer topics`: plan or create the topics of a topology, and the access rights it needs at the least."""

from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.options import Bootstrap, Config, Group, TopologyName
from streamer.cli.say import say

if TYPE_CHECKING:
    from streamer.settings.settings import Settings
    from streamer.topology.topics import Topics

# Of a changelog: Kafka's defaults, 1 GiB and a week, would keep a partition of a few megabytes a thousand times over.
SEGMENTS = {"segment.bytes": str(64 * 2**20), "segment.ms": str(6 * 3600 * 1000)}

topics_app = typer.Typer(help="Plan or create the topics of a topology.", no_args_is_help=True)

Partitions = Annotated[int, typer.Option(min=1, help="Partitions of each topic; replicas cannot exceed it.")]
Replication = Annotated[int, typer.Option(min=1, help="Copies of each record.")]


@topics_app.command()
def plan(
    topology: TopologyName,
    *,
    partitions: Partitions = 4,
    replication: Replication = 1,
    group: Group = None,
    config: Config = None,
) -> None:
    """Print the topics with their configuration, and the minimal ACLs."""
    from streamer.settings.settings import Settings  # noqa: PLC0415 - --help stays quick

    settings = Settings.load(config, group=group)
    topics, group_name = _topics(topology, settings.group)
    for name, entries in _configs(topics, settings.record_bytes_max).items():
        details = " ".join(f"{key}={value}" for key, value in entries.items())
        say(f"topic {name} partitions={partitions} replication={replication} {details}")
    for line in acls(topics, group_name):
        say(line)


@topics_app.command()
def create(
    topology: TopologyName,
    *,
    partitions: Partitions = 4,
    replication: Replication = 1,
    bootstrap: Bootstrap = None,
    group: Group = None,
    config: Config = None,
) -> None:
    """Create the topics that are missing; existing ones are left alone."""
    from streamer.settings.settings import Settings  # noqa: PLC0415 - --help stays quick

    settings = Settings.load(config, bootstrap=bootstrap, group=group)
    topics, owner = _topics(topology, settings.group)
    settings = settings.named(owner, "topics")
    for name, created in create_topics(settings, topics, partitions=partitions, replication=replication).items():
        say(f"{'created' if created else 'exists '} {name}")


def create_topics(settings: "Settings", topics: "Topics", *, partitions: int, replication: int = 1) -> dict[str, bool]:
    """Create what is missing; topic -> whether it was created.

    Raises:
        TopicError: the broker refuses, or a changelog exists with another number of partitions than the source.
    """
    from confluent_kafka import KafkaError, KafkaException  # noqa: PLC0415
    from confluent_kafka.cimpl import NewTopic  # noqa: PLC0415 - its public home does not export it to type checkers

    from streamer.errors import TopicError  # noqa: PLC0415
    from streamer.kafka.clients import KafkaClients  # noqa: PLC0415
    from streamer.kafka.config import admin_config, partitions_of  # noqa: PLC0415

    existing = next((count for count in partitions_of(settings, topics.sources).values() if count), partitions)
    # Inputs and state belong together partition by partition; outputs are as wide as asked for.
    alike = {*topics.sources, topics.changelog}
    new = [
        NewTopic(name, existing if name in alike else partitions, replication, config=config)
        for name, config in _configs(topics, settings.record_bytes_max).items()
    ]
    done = {}
    admin = KafkaClients().admin(admin_config(settings))
    for name, future in admin.create_topics(new).items():
        try:
            future.result()
            done[name] = True
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"topic {name} cannot be created: {error.args[0].str()}") from error
            done[name] = False
    return done


def _topics(name: str, group: str | None) -> "tuple[Topics, str]":
    from streamer.topology.loading import load_topology  # noqa: PLC0415
    from streamer.topology.topics import topics_of  # noqa: PLC0415

    topology, _ = load_topology(name)
    return topics_of(topology, group), group or topology.name


def _configs(topics: "Topics", record_bytes_max: int) -> dict[str, dict[str, str]]:
    """Configuration of each topic. Log time is the broker's: event times are judged against it."""
    from streamer.kafka.config import rekeyed_bytes_max  # noqa: PLC0415

    plain = {"message.timestamp.type": "LogAppendTime"}
    configs = {name: plain for name in topics.all() if name != topics.changelog}
    if topics.rekeyed:
        # A record of the source, however large, passes with its header in front.
        configs[topics.rekeyed] = plain | {"max.message.bytes": str(rekeyed_bytes_max(record_bytes_max))}
    if topics.changelog:
        # The state is what the log says: nothing may be deleted by age. What is deleted by offset frees its disk only by whole
        # segments, and of a log that is hardly written to only once its segment has been closed.
        configs[topics.changelog] = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete", **SEGMENTS}
    return configs


def acls(topics: "Topics", group: str) -> list[str]:
    """The rights a worker needs, no more, one a line."""
    from streamer.kafka.config import READERS  # noqa: PLC0415

    readers = topics.readers(group)
    lines = [f"allow read,describe topic {name}" for name in readers]
    # Their configuration says how large a record they take.
    lines += [f"allow write,describe,describe_configs topic {name}" for name in topics.outputs()]
    if topics.changelog:
        lines.append(f"allow read,delete topic {topics.changelog}")
    groups = dict.fromkeys(readers.values())
    if topics.changelog:
        groups |= {READERS: None}  # nothing is committed in it, but a client that reads has to name one
    lines += [f"allow read group {name}" for name in groups]
    lines.append(f"allow write,describe transactional-id prefix {group}-")
    return lines
