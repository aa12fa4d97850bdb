"""`streamer topics`: plan or create the topics of a topology, and the access rights it needs at the least."""

from typing import Annotated

import typer

from streamer.cli.options import Bootstrap, Config, Group, TopologyName
from streamer.cli.say import say
from streamer.kafka.admin import acls, configs, create_topics
from streamer.settings.settings import Settings
from streamer.topology.loading import load_topology
from streamer.topology.topics import Topics, topics_of

app = typer.Typer(help="Plan or create the topics of a topology.", no_args_is_help=True)

Partitions = Annotated[int, typer.Option(min=1, help="Partitions of each topic; replicas cannot exceed it.")]
Replication = Annotated[int | None, typer.Option(min=1, help="Copies of each record; without it the brokers decide.")]


@app.command()
def plan(
    topology: TopologyName,
    *,
    partitions: Partitions = 4,
    replication: Replication = None,
    group: Group = None,
    config: Config = None,
) -> None:
    """Print the topics with their configuration, and the minimal ACLs."""
    settings = Settings.load(config, group=group)
    topics, group_name = _topics(topology, settings.group)
    for name, entries in configs(topics, settings.record_bytes_max).items():
        details = " ".join(f"{key}={value}" for key, value in entries.items())
        say(f"topic {name} partitions={partitions} replication={replication or 'default'} {details}")
    for line in acls(topics, group_name):
        say(line)


@app.command()
def create(
    topology: TopologyName,
    *,
    partitions: Partitions = 4,
    replication: Replication = None,
    bootstrap: Bootstrap = None,
    group: Group = None,
    config: Config = None,
) -> None:
    """Create the topics that are missing; existing ones are left alone."""
    settings = Settings.load(config, bootstrap=bootstrap, group=group)
    topics, owner = _topics(topology, settings.group)
    settings = settings.named(owner, "topics")
    for name, created in create_topics(settings, topics, partitions=partitions, replication=replication).items():
        say(f"{'created' if created else 'exists '} {name}")


def _topics(name: str, group: str | None) -> "tuple[Topics, str]":
    topology, _ = load_topology(name)
    return topics_of(topology, group), group or topology.name
