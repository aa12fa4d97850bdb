"""`streamer demo`: recorded sensor data through the real worker, with a live view, on a broker inside this process."""

import signal
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from streamer.cli.say import say, tell
from streamer.demo.embedded import CONSUMER_CONFIG, NOTICE, EmbeddedBroker
from streamer.demo.recording import Recording
from streamer.demo.run import Demo
from streamer.demo.summary import lines
from streamer.dev_broker import DevBroker
from streamer.kafka.admin import create_topics
from streamer.live.line import LastLines
from streamer.live.view import Frame, draw, line
from streamer.planning.plan import Plan, bind
from streamer.settings.settings import KafkaSettings, Settings
from streamer.telemetry.logs import configure_logs
from streamer.topology.loading import load_topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamer.topology.topics import Topics

app = typer.Typer()

_PLAYS_S = 20.0
_PARTITIONS = 4
_PLAIN_EVERY_S = 1.0


class Broker(StrEnum):
    """Where the demo's topics live."""

    EMBEDDED = "embedded"
    REAL = "real"


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Play the recording again and again until Ctrl-C.")] = False,
    broker: Annotated[
        Broker, typer.Option(help="`embedded`: in memory, nothing to install. `real`: Apache Kafka, as `streamer dev broker`.")
    ] = Broker.EMBEDDED,
    rate: Annotated[float | None, typer.Option(min=1, help="Events per second. Default: the recording in 20 s.")] = None,
) -> None:
    """Score recorded sensor data and watch it live; ends by itself when every event has its outcome."""
    log = LastLines()
    configure_logs("warning", "json", stream=log)
    tell("starting (the first start compiles the window kernels, which takes some seconds)")
    with _broker(broker) as (settings, make_topics, notice):
        plan, recording = _load(settings)
        make_topics(plan.topics)
        rate = rate or recording.total / _PLAYS_S
        within_s = None if keep else _limit_s(recording.total / rate)
        run = Demo(
            plan, settings, recording, rate=rate, within_s=within_s, takes_back=broker is Broker.REAL,
            title=f"streamer demo: {plan.name}", notice=notice,
        )  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: run.stop())
        with _screen() as show:
            outcome = run.run(show)
        for line in lines(outcome, run.worker.metrics):
            say(line)
    if outcome.problem is not None:
        tell(f"error: {outcome.problem}\n{log}")
        raise typer.Exit(1)
    whose = "every event has" if not outcome.rolled_back else "every other event has"
    say(f"{whose} its outcome" + ("" if broker is Broker.REAL else "; nothing of it was kept: the broker was in memory"))


def _load(settings: "Settings") -> "tuple[Plan, Recording]":
    folder = _topologies()
    topology, _ = load_topology(f"{folder / 'sensor.py'}:sensor")
    plan = bind(topology, settings, folder / "models")
    return plan, Recording.load(folder / "data", plan.event)


def _limit_s(feed_s: float) -> float:
    """How long everything may take: a minute, or longer when a low rate was asked for."""
    return max(60.0, 1.5 * feed_s + 20.0)


def _topologies() -> Path:
    """The folder of ready-made flows: in the source tree, or where an installed package is started."""
    beside = Path(__file__).resolve().parents[2] / "topologies"
    return beside if beside.is_dir() else Path("topologies")


@contextmanager
def _broker(which: Broker) -> "Iterator[tuple[Settings, Callable[[Topics], object], str]]":
    """A broker that ends with the block: settings to reach it, how to make topics, and what to say about it.

    The environment is not read: the demo must not meet a broker or a password that is meant for others.
    """
    if which is Broker.EMBEDDED:
        with EmbeddedBroker() as embedded:
            make = lambda topics: embedded.create(topics.all())  # noqa: E731
            kafka = KafkaSettings(common={"bootstrap.servers": embedded.bootstrap}, consumer=CONSUMER_CONFIG)
            yield Settings(kafka=kafka, http=None), make, NOTICE
        return
    with DevBroker(tell=tell) as real:
        to_real = Settings(kafka=KafkaSettings(common={"bootstrap.servers": real.bootstrap}), http=None)
        make_real = lambda topics: create_topics(to_real, topics, partitions=_PARTITIONS)  # noqa: E731
        yield to_real, make_real, f"Apache Kafka on {real.bootstrap}, exactly-once; it ends with the demo"


@contextmanager
def _screen() -> "Iterator[Callable[[Frame], None]]":
    """How to show a frame: on the whole terminal, or as a plain line a second."""
    if not sys.stdout.isatty():
        yield _Plain()
        return
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda frame: live.update(draw(frame, console.width, console.height), refresh=True)


class _Plain:
    """A line a second."""

    def __init__(self) -> None:
        self._told = -_PLAIN_EVERY_S

    def __call__(self, frame: "Frame") -> None:
        if frame.seconds - self._told >= _PLAIN_EVERY_S:
            if self._told < 0:
                say(f"{frame.title}. {frame.notice}")
            self._told = frame.seconds
            say(line(frame))
