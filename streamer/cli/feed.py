"""`streamer feed`: events from files or the generator into a topology's source topic."""

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streamer.cli.options import Bootstrap, Config, TopologyName
from streamer.cli.say import say, tell
from streamer.clock import Clock, SystemClock
from streamer.errors import TopicError
from streamer.feeding.files import Files
from streamer.feeding.generator import Generator
from streamer.feeding.pace import Pace, shift_to_now_us
from streamer.feeding.rows import FeedError, Row
from streamer.feeding.send import Feeder
from streamer.feeding.whole import WholeFile, WholeFiles
from streamer.kafka.clients import KafkaClients
from streamer.kafka.config import create_command, partitions_of, producer_config
from streamer.settings.settings import Settings
from streamer.topology.event_key import check_key
from streamer.topology.loading import load_topology
from streamer.topology.steps import Source

if TYPE_CHECKING:
    from collections.abc import Iterator


app = typer.Typer()

Fed = Row | WholeFile

GENERATOR = "generator"
_GENERATED_ROWS = 10_000
_TELL_EVERY_S = 5.0
_BAR_EVERY_S = 0.1
_BAD_ROWS_SHOWN = 5


class Shift(StrEnum):
    """Where event times move."""

    NOW = "now"


@app.command()
def feed(  # noqa: PLR0913 - the options of a command
    topology: TopologyName,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files (.csv, .ndjson, .jsonl) or `generator`.")],
    *,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Events per second. Default: as fast as possible.")] = None,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Event-time speed: 1 as it happened, 60 faster.")] = None,
    shift: Annotated[Shift | None, typer.Option(help="Move event times up to now, distances kept.")] = None,
    key_from_file: Annotated[bool, typer.Option("--key-from-file", help="The file's name fills the key field.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and count them.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Events to generate. Default: 10,000; with --rate no end.")] = None,
    keys: Annotated[int, typer.Option(min=1, help="Keys of the generator.")] = 10,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Feed events into the source topic of a topology. Exit status 1 if one was not delivered.

    A source with format="raw" takes any files: each is a record as it stands.
    """
    if rate is not None and speed is not None:
        raise typer.BadParameter("--rate and --speed exclude each other")
    if GENERATOR in sources and (len(sources) > 1 or speed is not None):
        raise typer.BadParameter("the generator goes alone, flat out or with --rate: it makes its own event times")
    settings = Settings.load(config, bootstrap=bootstrap)
    declared, _ = load_topology(topology)
    read, settings = declared.need(Source), settings.named(declared.name, "feed")
    event, raw = read.event, read.format == "raw"
    check_key(event, None if raw else event.__event__.key, f"class {event.__name__}")
    if speed is not None and event.__event__.time is None:
        raise typer.BadParameter(f"--speed needs event times, and {event.__name__} has no time field; use --rate")
    bad = BadRows(skip=skip_bad)
    source: Rows
    if raw and sources == [GENERATOR]:
        raise typer.BadParameter(
            f"the generator makes fields, and {declared.name} reads format='raw'; feed files, each is a record"
        )
    if raw:
        source = WholeFiles([Path(name) for name in sources], key_from_file)
    elif sources == [GENERATOR]:
        shift = Shift.NOW
        # At a rate the times go with the clock, else each key has one a second.
        spacing_us = round(1e6 / (rate or keys))
        source = Generator(event, keys, count or (None if rate else _GENERATED_ROWS), spacing_us)
    else:
        source = Files([Path(name) for name in sources], event, bad, key_from_file)
    raise typer.Exit(_run(settings, read.topic, source, Pace(rate, speed), shift=shift, bad=bad))


class BadRows:
    """Counts rows that are no events, or stops at the first."""

    def __init__(self, *, skip: bool) -> None:
        self._skip = skip
        self.count = 0

    def __call__(self, problem: str) -> None:
        """Take note of one."""
        if not self._skip:
            raise FeedError(f"{problem}. Correct the row, or leave such rows out with --skip-bad")
        self.count += 1
        if self.count <= _BAD_ROWS_SHOWN:
            tell(f"skipped {problem}" + (" (more are only counted)" if self.count == _BAD_ROWS_SHOWN else ""))


class Rows(Protocol):
    """Where rows come from."""

    def rows(self) -> "Iterator[Fed]":
        """All rows, each time it is called."""

    def times_us(self) -> "Iterator[int]":
        """What is needed of their event times to know how far to move them."""

    def total(self) -> int | None:
        """At most how many rows there are, None for no end."""


def _run(settings: "Settings", topic: str, source: Rows, pace: "Pace", *, shift: Shift | None, bad: BadRows) -> int:
    """Send everything; the exit status."""
    if partitions_of(settings, [topic])[topic] is None:
        raise TopicError(f"missing on {settings.bootstrap}: {topic}. Create it with {create_command(settings)}")
    clock = SystemClock()
    shift_us = shift_to_now_us(source.times_us(), pace, clock.wall_us()) if shift else 0
    feeder = Feeder(KafkaClients().producer(producer_config(settings, linger_ms=5)), topic, clock)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop ends it as Ctrl-C does
    rows = (row.moved(shift_us) for row in source.rows())
    started = clock.monotonic()
    try:
        feeder.feed(_watched(rows, source.total(), feeder, clock), pace)
    except KeyboardInterrupt:
        pass
    except FeedError as error:
        raise FeedError(f"{error} ({feeder.delivered:,} events before it were fed)") from error
    took = max(clock.monotonic() - started, 1e-6)
    skipped = f", {bad.count:,} bad rows skipped" if bad.count else ""
    say(f"fed {feeder.delivered:,} events to {topic} in {took:.1f} s ({feeder.delivered / took:,.0f}/s), "
               f"{feeder.failed:,} failed{skipped}")  # fmt: skip
    if feeder.failed:
        tell(f"error: {feeder.failed:,} events were not delivered, the last because: {feeder.last_error}")
    return 1 if feeder.failed else 0


def _watched(rows: "Iterator[Fed]", total: int | None, feeder: "Feeder", clock: "Clock") -> "Iterator[Fed]":
    """The rows, with progress on standard error: a bar in a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield from _told(rows, feeder, clock)
        return
    speed = TextColumn("{task.fields[rate]}/s")
    columns = (TextColumn("feeding"), BarColumn(), MofNCompleteColumn(), speed, TimeElapsedColumn())
    started = clock.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, rate="-")
        told = started
        for row in rows:
            yield row
            if (now := clock.monotonic()) - told > _BAR_EVERY_S:
                told = now
                progress.update(task, completed=feeder.delivered, rate=f"{feeder.delivered / (now - started):,.0f}")


def _told(rows: "Iterator[Fed]", feeder: "Feeder", clock: "Clock") -> "Iterator[Fed]":
    told = clock.monotonic()
    for row in rows:
        yield row
        if (now := clock.monotonic()) - told > _TELL_EVERY_S:
            told = now
            tell(f"fed {feeder.delivered:,} events, {feeder.failed:,} failed")
