"""`streamer broker start|stop|status`: a real Kafka for development, without containers."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from streamer.broker import BrokerError, DevBroker
from streamer.broker.detached import Detached, default_data
from streamer.broker.process import answers, tail
from streamer.cli.say import say, tell

DEFAULT_PORT = 9092
NOT_ANSWERING, NOT_RUNNING = 1, 3  # the exit codes that init scripts use

broker_app = typer.Typer(name="broker", help="Run a real Apache Kafka for development, without containers.", no_args_is_help=True)


@broker_app.command()
def start(
    port: Annotated[int | None, typer.Option(help=f"Port on 127.0.0.1 [default: {DEFAULT_PORT}].")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder for its data, kept between runs [default: in the cache folder]."),
    ] = None,
    *,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay and stop it with Ctrl-C.")] = False,
) -> None:
    """Start the broker and print its address; it runs until `streamer broker stop`."""
    if (running := Detached.read()) is not None:
        _already_running(running, port, data)
        return
    broker = DevBroker(data or default_data(), port=port or DEFAULT_PORT, tell=tell)
    if foreground:
        _run_in_foreground(broker)
        return
    _start(broker, detached=True)


@broker_app.command()
def stop() -> None:
    """Stop the broker; its data stays. Does nothing if none runs."""
    running = Detached.read()
    if running is None:
        tell("no broker runs")
        return
    try:
        running.stop()
    except BrokerError as error:
        raise _failed(error) from None
    tell(f"stopped the broker on {running.bootstrap}; its data stays in {running.data}")


@broker_app.command()
def status() -> None:
    """Print what runs, a `name value` a line. Exit status: 0 answers, 1 does not answer, 3 none runs."""
    running = Detached.read()
    if running is None:
        say("status stopped")
        raise typer.Exit(NOT_RUNNING)
    healthy = answers(int(running.bootstrap.rpartition(":")[2]))
    say(f"status {'running' if healthy else 'not-answering'}")
    _show(running)
    if not healthy:
        tell(f"the process lives but does not answer; the end of its log:\n{tail(running.log)}")
        raise typer.Exit(NOT_ANSWERING)


def _already_running(running: Detached, port: int | None, data: Path | None) -> None:
    """Fine if it is the one asked for; an error if the caller would talk to another than it thinks."""
    tell(f"a broker already runs on {running.bootstrap}")
    other_port = port is not None and not running.bootstrap.endswith(f":{port}")
    other_data = data is not None and data.absolute() != running.data
    if other_port or other_data:
        tell(f"it has other settings (data in {running.data}): run `streamer broker stop` first")
        raise typer.Exit(1)
    _show(running)


def _start(broker: DevBroker, *, detached: bool) -> None:
    try:
        broker.start(detached=detached)
    except BrokerError as error:
        raise _failed(error) from None
    started = Detached(pid=broker.pid or 0, bootstrap=broker.bootstrap, data=broker.data, log=broker.log)
    started.write()
    _show(started)


def _run_in_foreground(broker: DevBroker) -> None:
    asked_to_stop = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: asked_to_stop.set())
    _start(broker, detached=False)
    while broker.running and not asked_to_stop.wait(0.5):
        pass
    died = not broker.running and not asked_to_stop.is_set()
    broker.stop()
    if died:
        raise _failed(BrokerError(f"the broker ended, but not by this command; the end of {broker.log}:\n{tail(broker.log)}"))


def _show(broker: Detached) -> None:
    for name in ("bootstrap", "pid", "data", "log"):
        say(f"{name} {getattr(broker, name)}")


def _failed(error: BrokerError) -> typer.Exit:
    tell(f"error: {error}")
    return typer.Exit(error.exit_code)
