"""What `streamer run` does in each worker: everything that takes a second to import stands here."""

import gc
from typing import TYPE_CHECKING

from streamer.cli.foot import Foot
from streamer.cli.hanging import ended_when_hanging
from streamer.kafka.config import check_topics
from streamer.limits import YOUNG_OBJECTS_MAX
from streamer.operators.checks import check_memory
from streamer.operators.match.plan import MatchPlan
from streamer.planning.assemble import served_of
from streamer.planning.plan import Plan, plan_of
from streamer.settings.settings import Settings
from streamer.telemetry.logs import get_logger
from streamer.topology.loading import load_topology
from streamer.web.server import serve_in_background
from streamer.worker.service import service_of

if TYPE_CHECKING:
    from streamer.cli.run import Stopper


def serve(name: str, settings: Settings, stopper: "Stopper", foot: Foot) -> None:
    """Bind, check topics, run the flows of a topology with their web server."""
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
    service = service_of(plan, settings)
    service.open()
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


def _announce(plan: Plan | MatchPlan, settings: Settings, partitions: int) -> None:
    model: dict[str, object] = {"unmatched": plan.topics.unmatched}
    if plan.model is not None:
        served = served_of(plan)
        model = {"model": served.model, "version": served.version, "digest": served.digest, "threshold": served.threshold}
    per_key = plan.store.bytes_per_key if plan.store else 0
    most = getattr(settings, plan.store.bounded_by) if plan.store else 0
    get_logger(__name__).info(
        "starting", topology=plan.name, group=plan.group, guarantee=settings.guarantee, source=plan.topics.source,
        rekeyed=plan.topics.rekeyed,
        **model, new_group_starts=settings.start_from,
        bytes_per_key=per_key, keys_max=most, partitions=partitions, state_bytes_max=per_key * most * partitions,
    )  # fmt: skip
