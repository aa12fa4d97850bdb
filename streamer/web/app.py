"""Health and metrics. Live: the loop turns. Ready: partitions assigned and restored, model warm. Never: lag."""

from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamer.telemetry.plain import plain


class Watched(Protocol):
    """What the web sees of a worker."""

    @property
    def metrics(self) -> Collector:
        """What Prometheus sees."""

    def live(self) -> str | None:
        """None, or why it should be restarted."""

    def ready(self) -> str | None:
        """None, or what it waits for."""


def build(worker: Watched) -> Starlette:
    """The application: `/health/live`, `/health/ready`, `/metrics`."""
    registry = CollectorRegistry()
    registry.register(worker.metrics)
    ProcessCollector(registry=registry)

    def health(problem: str | None) -> Response:
        return PlainTextResponse("ok\n" if problem is None else plain(problem) + "\n", 200 if problem is None else 503)

    async def live(_: Request) -> Response:
        return health(worker.live())

    async def ready(_: Request) -> Response:
        return health(worker.ready())

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", metrics)],
    )
