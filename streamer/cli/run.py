"""`streamer run`: one worker, or the parent of several with `--workers` (`streamer.cli.supervise`)."""

import gc
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.options import Bootstrap, Config, Group, Models, TopologyName
from streamer.first_instant import stops_held
from streamer.limits import YOUNG_OBJECTS_MAX

if TYPE_CHECKING:
    import subprocess

    from streamer.cli.foot import ParentFoot
    from streamer.operators.match.plan import MatchPlan
    from streamer.planning.plan import Plan
    from streamer.settings.settings import Settings


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
    stopper = _Stopper()
    from streamer.settings.settings import Settings  # noqa: PLC0415 - --help stays quick

    settings = Settings.load(config, bootstrap=bootstrap, group=group, slot=slot, guarantee=guarantee, models=models, http=http)
    if workers > 1:
        from streamer.cli.foot import ParentFoot  # noqa: PLC0415
        from streamer.cli.supervise import supervise  # noqa: PLC0415
        from streamer.telemetry.logs import configure_logs  # noqa: PLC0415

        foot = ParentFoot(workers)
        configure_logs(settings.log.level, settings.log.format, foot.logs, secrets=settings.secrets())
        with foot.shown():
            status = supervise(_child_of(settings, foot), workers, settings.drain_timeout)
        raise typer.Exit(status)
    serve(topology, settings, stopper, live=live)


def serve(name: str, settings: "Settings", stopper: "_Stopper", *, live: bool) -> None:
    """Bind, check topics, run the flows of a topology with their web server."""
    from streamer.cli.foot import Foot  # noqa: PLC0415
    from streamer.cli.hanging import ended_when_hanging  # noqa: PLC0415 - --help stays quick
    from streamer.telemetry.compiling import tell_of_compiling  # noqa: PLC0415
    from streamer.telemetry.logs import configure_logs, get_logger, tell_of_bugs  # noqa: PLC0415

    foot = Foot(live=live)
    configure_logs(settings.log.level, settings.log.format, foot.logs, secrets=settings.secrets())
    tell_of_bugs()
    tell_of_compiling()
    from streamer.kafka.config import check_topics  # noqa: PLC0415
    from streamer.operators.checks import check_memory  # noqa: PLC0415
    from streamer.planning.plan import plan_of  # noqa: PLC0415
    from streamer.topology.loading import load_topology  # noqa: PLC0415
    from streamer.web.server import serve_in_background  # noqa: PLC0415
    from streamer.worker.service import Service  # noqa: PLC0415

    log = get_logger(__name__)
    for warning in settings.warnings():
        log.warning("unsafe_setting", problem=warning)
    topology, folder = load_topology(name)
    settings = settings.named(topology.name, settings.slot_name)
    plan = plan_of(topology, settings, settings.models or folder / "models")
    partitions = check_topics(settings, plan.topics)
    if plan.store is not None:
        check_memory(plan.store, settings, plan.name, partitions)
    if plan.model is not None:
        for warning in plan.model.probed.warnings:
            log.warning("doubtful_model", model=str(plan.model.file.path), problem=warning)
    service = Service(plan, settings)
    _spare_the_collector()
    stopper.hand_over(service.stop)
    _announce(plan, settings, partitions)
    below = foot.below(service, f"streamer run: {plan.name}")
    with serve_in_background(service, settings.http), below, ended_when_hanging(service.live):
        service.run()
    log.info("stopped")


def _spare_the_collector() -> None:
    """Let Python's cycle collector rest: a batch is thousands of young objects that die by their count, no cycles among them.

    With the default thresholds each batch was walked several times over: 11 % of the worker's time an event. What is
    loaded by now stays for good and is not walked again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 20)


class _Stopper:
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


def _announce(plan: "Plan | MatchPlan", settings: "Settings", partitions: int) -> None:
    from streamer.telemetry.logs import get_logger  # noqa: PLC0415

    model: dict[str, object] = {"unmatched": plan.topics.unmatched}
    if plan.model is not None:
        model = {"model": plan.model.file.name, "version": plan.model.file.version, "threshold": plan.threshold}
    per_key = plan.store.bytes_per_key if plan.store else 0
    get_logger(__name__).info(
        "starting", topology=plan.name, group=plan.group, guarantee=settings.guarantee, source=plan.topics.source,
        rekeyed=plan.topics.rekeyed,
        **model, new_group_starts=settings.start,
        bytes_per_key=per_key, keys_max=settings.keys_max, partitions=partitions,
        state_bytes_max=per_key * settings.keys_max * partitions,
    )  # fmt: skip


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
