"""`streamer run`: one worker, or the parent of several with `--workers` (`streamer.cli.supervise`)."""

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.foot import Foot, ParentFoot
from streamer.cli.options import Bootstrap, Config, Group, Models, TopologyName
from streamer.cli.supervise import supervise
from streamer.first_instant import stops_held
from streamer.settings.settings import Settings
from streamer.telemetry.compiling import tell_of_compiling
from streamer.telemetry.logs import configure_logs, tell_of_bugs

if TYPE_CHECKING:
    import subprocess

app = typer.Typer()


@app.command()
def run(  # noqa: PLR0913 - one parameter per flag
    topology: TopologyName,
    *,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    bootstrap: Bootstrap = None,
    group: Group = None,
    slot: Annotated[str | None, typer.Option(help="Fixed name of this replica: a restart ends what it left open.")] = None,
    guarantee: Annotated[str | None, typer.Option(help="exactly-once or at-least-once.")] = None,
    models: Models = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT of health and metrics, or off.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Show the live view in place of the log and its status line.")] = False,
    config: Config = None,
) -> None:
    """Run a topology until SIGTERM or Ctrl-C; both finish what was read and commit it."""
    if workers > 1 and slot is not None:
        raise typer.BadParameter("--slot names one replica; with --workers each child gets its own number")
    if workers > 1 and live:
        raise typer.BadParameter("--live shows one worker; with --workers the status line shows all of them")
    stopper = Stopper()
    settings = Settings.load(config, bootstrap=bootstrap, group=group, slot=slot, guarantee=guarantee, models=models, http=http)
    if workers > 1:
        parent = ParentFoot(workers)
        configure_logs(settings.log.level, settings.log.format, parent.logs, secrets=settings.secrets())
        with parent.shown():
            status = supervise(_child_of(settings, parent), workers, settings.drain_timeout)
        raise typer.Exit(status)
    foot = Foot(live=live)
    configure_logs(settings.log.level, settings.log.format, foot.logs, secrets=settings.secrets())
    tell_of_bugs()
    tell_of_compiling()
    from streamer.cli.serve import serve  # noqa: PLC0415 - kernels may be compiled for that, and the log must be there to say so

    serve(topology, settings, stopper, foot)


class Stopper:
    """SIGTERM and Ctrl-C: before there is a worker nothing is held and the process just ends, with status 0."""

    def __init__(self) -> None:
        self._stop: Callable[[], None] = self._leave
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())

    def hand_over(self, stop: Callable[[], None]) -> None:
        """From now on signals call `stop`."""
        self._stop = stop

    @staticmethod
    def _leave() -> None:
        raise SystemExit(0)


def _child_of(settings: "Settings", foot: "ParentFoot") -> "Callable[[int], subprocess.Popen[bytes]]":
    """Makes child processes of this command: slots 0..n-1, on ports one apart."""
    arguments, http = _without_workers(sys.argv[1:]), settings.http

    def start(number: int) -> "subprocess.Popen[bytes]":
        # Port 0 takes any free one; a fixed port is the first child's, the others follow it.
        port = http.port + number if http and http.port else 0
        address = f"{http.host}:{port}" if http else "off"
        command = [sys.executable, "-m", "streamer", *arguments, "--slot", str(number), "--http", address]
        with stops_held():
            return foot.start(number, command, console=settings.log.format == "auto")

    return start


def _without_workers(arguments: list[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--workers":
            skip = True
        elif not argument.startswith("--workers="):
            kept.append(argument)
    return kept
