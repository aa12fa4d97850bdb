"""A worker as the web sees it, and who asks."""

import asyncio
from dataclasses import dataclass, field

import httpx
from starlette.applications import Starlette

from streamer.telemetry.metrics import Metrics


@dataclass
class Watched:
    """A worker as the web sees it."""

    stuck: str | None = None
    waits: str | None = None
    metrics: Metrics = field(default_factory=Metrics)

    def live(self) -> str | None:
        return self.stuck

    def ready(self) -> str | None:
        return self.waits


class Client:
    """Asks the application without a socket."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def request(self, method: str, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self._app), base_url="http://service") as client:
                return await client.request(method, path)

        return asyncio.run(ask())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)
