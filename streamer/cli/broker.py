"""`streamer dev broker start|stop|status`: a real Kafka for development, without containers."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from streamer.cli.say import say, tell
from streamer.dev_broker import BrokerError, DevBroker
from streamer.dev_broker.detached import Detached, default_data
from streamer.dev_broker.process import answers, tail

DEFAULT_PORT = 9092
NOT_ANSWERING, NOT_RUNNING = 1, 3  # the exit codes that init scripts use

app = typer.Typer(name="broker", help="Run a real Apache Kafka for development, without containers.", no_args_is_help=True)


Port = Annotated[int | None, typer.Option(help="Which broker, where several run.")]


@app.command()
def start(
    port: Annotated[
        int | None, typer.Option(help=f"Port on 127.0.0.1 [default: {DEFAULT_PORT}]. Each has a broker of its own.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder for its data, kept between runs [default: in the cache folder, one a port]."),
    ] = None,
    *,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay and stop it with Ctrl-C.")] = False,
) -> None:
    """Start the broker and print its address; it runs until `streamer dev broker stop`."""
    if running := Detached.running(port):
        _already_running(running[0], data)
        return
    other = port if port != DEFAULT_PORT else None
    broker = DevBroker(data or default_data(other), port=port or DEFAULT_PORT, tell=tell)
    if foreground:
        _run_in_foreground(broker)
        return
    _start(broker, detached=True)


@app.command()
def stop(port: Port = None) -> None:
    """Stop the broker; its data stays. Does nothing if none runs."""
    running = _the_one(port)
    if running is None:
        tell("no broker runs" if port is None else f"no broker runs on port {port}")
        return
    try:
        running.stop()
    except BrokerError as error:
        raise _failed(error) from None
    tell(f"stopped the broker on {running.bootstrap}; its data stays in {running.data}")


@app.command()
def status(port: Port = None) -> None:
    """Print what runs, a `name value` a line. Exit status: 0 answers, 1 does not answer, 3 none runs."""
    running = _the_one(port)
    if running is None:
        say("status stopped")
        raise typer.Exit(NOT_RUNNING)
    healthy = answers(running.port)
    say(f"status {'running' if healthy else 'not-answering'}")
    _show(running)
    if not healthy:
        tell(f"the process lives but does not answer; the end of its log:\n{tail(running.log)}")
        raise typer.Exit(NOT_ANSWERING)


def _the_one(port: int | None) -> Detached | None:
    """The broker that is meant; which one must be said where several run."""
    running = Detached.running(port)
    if len(running) > 1:
        raise _failed(BrokerError("several brokers run; say which: " + ", ".join(f"--port {each.port}" for each in running)))
    return running[0] if running else None


def _already_running(running: Detached, data: Path | None) -> None:
    """Fine if it is the one asked for; an error if the caller would talk to another than it thinks."""
    tell(f"a broker already runs on {running.bootstrap}")
    if data is not None and data.absolute() != running.data:
        tell(f"its data is in {running.data}: run `streamer dev broker stop` first, or start another one with --port")
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
