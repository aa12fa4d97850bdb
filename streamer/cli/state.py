"""`streamer state`: look at the windows of one key, or start over on purpose."""

import json
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer
from confluent_kafka import OFFSET_END, TopicPartition

from streamer.changelog.blocks import CommitMetadata
from streamer.changelog.restore import Restore
from streamer.cli.groups import members_of
from streamer.cli.options import Bootstrap, Config, Group, TopologyName
from streamer.cli.say import say
from streamer.clock import SystemClock
from streamer.errors import StateError
from streamer.kafka.clients import KafkaClients
from streamer.kafka.config import admin_config, check_topics, partitions_of, reader_config
from streamer.kafka.ends import Ends
from streamer.planning.plan import windows_of
from streamer.settings.settings import Settings
from streamer.state.murmur2 import partitions
from streamer.topology.loading import load_topology
from streamer.topology.topics import Topics, topics_of

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from streamer.operators.samples import SampleStore

app = typer.Typer(help="Look at the windows of a topology, or start over.", no_args_is_help=True)

_TIMEOUT_S = 30.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Start(StrEnum):
    """Where the input goes on after a reset."""

    EARLIEST = "earliest"
    LATEST = "latest"
    COMMITTED = "committed"


@app.command()
def show(
    topology: TopologyName,
    key: Annotated[str, typer.Argument(help="Key of the records, as text.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    bootstrap: Bootstrap = None,
    group: Group = None,
    config: Config = None,
) -> None:
    """Print the samples that the windows of a key hold, as of the last commit; reads the changelog of its partition."""
    declared, _ = load_topology(topology)
    settings = Settings.load(config, bootstrap=bootstrap, group=group).named(declared.name, "state")
    spec, topics = windows_of(declared), topics_of(declared, settings.group)
    if spec is None:
        raise StateError(f"topology {declared.name} keeps no windows, or rows of joins, which state show does not read")
    partition = int(partitions([key.encode()], check_topics(settings, topics))[0])
    store = spec.open(settings.keys_max)
    restore_beside(settings, topics, settings.group or declared.name, partition, store)
    found = describe(store, key.encode())
    if found is None:
        raise StateError(f"no window for key {key!r} in partition {partition} ({len(store):,} keys there); is it the record key?")
    for line in [json.dumps({"partition": partition, **found})] if as_json else _lines(partition, found):
        say(line)


def restore_beside(settings: "Settings", topics: "Topics", group: str, partition: int, store: "SampleStore") -> None:
    """Fill a store from the changelog as a worker would, beside the worker that owns the partition.

    Raises:
        StateError: the changelog cannot be read, or does not come to its end.
    """
    clock, topic = SystemClock(), topics.changelog or ""
    consumer = KafkaClients().consumer({**reader_config(settings, committed=True), "group.id": group})
    ends = Ends(KafkaClients().admin(admin_config(settings)), [(topic, partition)])
    # A commit may come between these two answers: the chain then goes on further than the offsets, which is fine here.
    restore = Restore(consumer, topic, clock, strict=False)
    try:
        (lead,) = consumer.committed([TopicPartition(topics.lead, partition)], _TIMEOUT_S)
        offsets: list[int | None] = [None for _ in topics.sources]
        if not ends.wait(_TIMEOUT_S) or (topic, partition) not in ends.known:
            raise StateError(f"no answer about the ends of {topic}/{partition}: {ends.error or 'it takes too long'}; try again")
        restore.begin(partition, store, offsets, CommitMetadata.parse(lead.metadata), ends.known[topic, partition])
        until, read = clock.monotonic() + _TIMEOUT_S, 0
        while not restore.step(0.1, 0.5):
            if restore.bytes > read:
                until, read = clock.monotonic() + _TIMEOUT_S, restore.bytes
            if clock.monotonic() > until:
                raise StateError(f"{topic}/{partition} does not end: a transaction has been open for {_TIMEOUT_S:g} s")
    finally:
        restore.close()


def describe(store: "SampleStore", key: bytes) -> dict[str, Any] | None:
    """Key and samples, oldest first, None for a missing value; of panes, how many samples each holds. None for an unknown key."""
    found = store.samples(key)
    if found is None:
        return None
    times, values = found
    columns: dict[str, list[Any]] = {"time": [_iso(time) for time in times.tolist()]} if len(times) else {}
    columns |= {name: [None if isnan(x) else x for x in values[place].tolist()] for place, name in enumerate(store.names)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"key": key.decode(errors="backslashreplace"), "watermark": _iso(store.watermark), "samples": rows}


def _iso(time_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def _lines(partition: int, found: dict[str, Any]) -> list[str]:
    samples: list[dict[str, Any]] = found["samples"]
    head = f"key {found['key']}  partition {partition}  samples {len(samples)}  watermark {found['watermark']}"
    shown = ({name: "null" if value is None else value for name, value in sample.items()} for sample in samples)
    return [head, *("  ".join(f"{name}={value}" for name, value in sample.items()) for sample in shown)]


@app.command()
def reset(
    topology: TopologyName,
    *,
    start: Annotated[Start, typer.Option("--to", help="Where the input goes on: its start, its end, or where it stands.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    bootstrap: Bootstrap = None,
    group: Group = None,
    config: Config = None,
) -> None:
    """Forget all windows of a topology and set where its input goes on, in all its flows. No worker may run."""
    declared, _ = load_topology(topology)
    settings = Settings.load(config, bootstrap=bootstrap, group=group).named(declared.name, "state")
    topics, name = topics_of(declared, settings.group), settings.group or declared.name
    partitions, admin = check_topics(settings, topics), KafkaClients().admin(admin_config(settings))
    readers = topics.readers(name)
    for each in dict.fromkeys(readers.values()):
        _refuse_members(admin, each)
    for each in dict.fromkeys(readers.values()):
        say(f"Group {each}: offsets of {' and '.join(topic for topic, by in readers.items() if by == each)} will be set.")
    if topics.changelog:
        say(f"The windows of all keys in {partitions} partitions ({topics.changelog}) will be forgotten.")
    say(_CONSEQUENCES[start])
    if not yes and not (sys.stdin.isatty() and typer.confirm("Go on?")):
        raise StateError("nothing was changed; say --yes to do it without being asked")
    # First the offsets: the broker refuses them while the group has members, and until all is done no worker starts. Those of
    # the flow with the windows before those of the one in front of it: what that forwards once more must find them forgotten.
    _set_offsets(settings, name, topics.sources, _behind(start) if topics.rekeyed else start)
    if topics.rekeyed:
        _set_offsets(settings, readers[topics.source], [topics.source], start)
    if topics.changelog:
        _empty(admin, topics.changelog, partitions)
    say("done")


_CONSEQUENCES = {
    Start.EARLIEST: (
        "All input that is still there is read and scored again: its predictions appear a second time, with the same ids."
    ),
    Start.LATEST: "Input that was not read yet is skipped: it gets no predictions. Windows fill from now on.",
    Start.COMMITTED: "Input goes on where it stands, with empty windows.",
}


def _behind(start: Start) -> Start:
    """Where the internal topic of `.rekey` goes on: what the source gives once more must not be in it twice."""
    return Start.LATEST if start is Start.EARLIEST else start


def _refuse_members(admin: "AdminClient", group: str) -> None:
    _, members = members_of(admin, group, _TIMEOUT_S)
    if members:
        raise StateError(f"group {group} has {members} members; stop all workers first (a killed one leaves "
                         "the group after its session time-out)")  # fmt: skip


def _set_offsets(settings: "Settings", group: str, topics: list[str], start: Start) -> None:
    counts = partitions_of(settings, topics)
    consumer = KafkaClients().consumer({**reader_config(settings, committed=True), "group.id": group})
    try:
        places = [TopicPartition(topic, partition) for topic in topics for partition in range(counts[topic] or 0)]
        offsets = [_offset(consumer, place, start) for place in consumer.committed(places, _TIMEOUT_S)]
        # No id of the topic: it is whatever it is now.
        said = CommitMetadata(0).format()
        moved = [TopicPartition(at.topic, at.partition, offset, said) for at, offset in zip(places, offsets, strict=True)]
        consumer.commit(offsets=moved, asynchronous=False)
    finally:
        consumer.close()


def _offset(consumer: Any, committed: "TopicPartition", start: Start) -> int:
    low, high = consumer.get_watermark_offsets(committed, timeout=_TIMEOUT_S)
    if start is Start.COMMITTED and committed.offset > high:
        raise StateError(
            f"{committed.topic}/{committed.partition}: the committed offset {committed.offset} lies beyond the end of the log, "
            f"{high}; say --to earliest or --to latest"
        )
    if start is Start.COMMITTED and committed.offset >= 0:
        return int(committed.offset)
    return int(high if start is Start.LATEST else low)


def _empty(admin: "AdminClient", changelog: str, partitions: int) -> None:
    places = [TopicPartition(changelog, partition, OFFSET_END) for partition in range(partitions)]
    for answer in admin.delete_records(places, request_timeout=_TIMEOUT_S).values():
        answer.result()
