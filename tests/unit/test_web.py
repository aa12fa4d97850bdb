"""Health says why, metrics are what Prometheus reads, and nothing else is served."""

import asyncio
import socket
import urllib.request
from dataclasses import dataclass, field

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from streamer.errors import SettingsError
from streamer.settings import HttpAddress
from streamer.telemetry.metrics import Metrics
from streamer.testing import TopologyTest
from streamer.web.app import build
from streamer.web.server import serve_in_background
from tests.unit import flows


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


def test_healthy_is_200() -> None:
    client = Client(build(Watched()))
    for path in ("/health/live", "/health/ready"):
        answer = client.get(path)
        assert (answer.status_code, answer.text) == (200, "ok\n")


@pytest.mark.parametrize(
    ("watched", "live", "ready"),
    [
        (Watched(waits="windows are being restored"), 200, 503),
        (Watched(stuck="the loop hangs"), 503, 200),
        (Watched("the loop hangs", "no partitions are assigned"), 503, 503),
    ],
)
def test_unhealthy_is_503_and_says_why(watched: Watched, live: int, ready: int) -> None:
    client = Client(build(watched))
    answers = client.get("/health/live"), client.get("/health/ready")
    assert [answer.status_code for answer in answers] == [live, ready]
    for answer, problem in zip(answers, (watched.stuck, watched.waits), strict=True):
        assert answer.text == f"{problem or 'ok'}\n"
        assert answer.headers["content-type"].startswith("text/plain")


def test_metrics_are_what_prometheus_reads() -> None:
    watched = Watched()
    watched.metrics.add("streamer_commits_total", 3)
    answer = Client(build(watched)).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    values = {s.name: s.value for family in text_string_to_metric_families(answer.text) for s in family.samples}
    assert values["streamer_commits_total"] == 3
    assert values["process_resident_memory_bytes"] > 0


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/metrics/x"])
def test_nothing_else_is_served(path: str) -> None:
    assert Client(build(Watched())).get(path).status_code == 404


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_nothing_can_be_written(path: str) -> None:
    assert Client(build(Watched())).request("POST", path).status_code == 405


def test_a_real_worker_becomes_ready() -> None:
    with TopologyTest(flows.topology(), models=flows.score) as test:
        client = Client(build(test.worker))
        assert (client.get("/health/ready").status_code, client.get("/health/live").status_code) == (503, 200)
        test.run()
        for _ in range(20):
            test.worker.turn()
        assert client.get("/health/ready").status_code == 200
        test.clock.advance(500.0)
        assert client.get("/health/live").status_code == 503


def test_it_serves_beside_the_worker_and_ends_with_the_block() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serve_in_background(Watched(), HttpAddress("127.0.0.1", port)):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5) as answer:
            assert answer.read() == b"ok\n"
        with (
            pytest.raises(SettingsError, match=rf"cannot listen on 127\.0\.0\.1:{port}; is another worker running"),
            serve_in_background(Watched(), HttpAddress("127.0.0.1", port)),
        ):
            pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5)


def test_off_serves_nothing() -> None:
    with serve_in_background(Watched(), None):
        pass
