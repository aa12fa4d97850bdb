"""Health says why, metrics are what Prometheus reads, and nothing else is served."""

import select
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamer import limits
from streamer.errors import SettingsError
from streamer.settings.settings import HttpAddress
from streamer.web.app import build
from streamer.web.server import serve_in_background
from tests.kit import flows
from tests.kit.inside import InsideTest
from tests.kit.watched import Client, Watched


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
        (Watched("the loop hangs", "joining the group"), 503, 503),
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
    with InsideTest(flows.topology(), models=flows.score) as test:
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


def read_to_the_end(connection: socket.socket) -> bytes:
    """What comes until the other side ends it."""
    connection.settimeout(20)
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionError:
        pass
    return data


@contextmanager
def served(watched: Watched) -> Iterator[int]:
    """A server; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serve_in_background(watched, HttpAddress("127.0.0.1", port)):
        yield port


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab"],
    ids=["nothing", "half a head", "half a body"],
)
def test_half_open_requests_are_cut_off_and_health_answers_meanwhile(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_REQUEST_S", 1.0)
    monkeypatch.setattr(limits, "HTTP_KEEP_ALIVE_S", 1.0)
    with served(Watched()) as port:
        idle = []
        for number in range(300):
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            idle[-1].sendall(sent)
            if number % 100 == 99:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5) as answer:
                    assert answer.read() == b"ok\n"
        for connection in idle:
            assert b"200 OK" not in read_to_the_end(connection)
            connection.close()


def test_bytes_that_trickle_do_not_move_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_REQUEST_S", 0.3)
    with served(Watched()) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
        slow.sendall(b"GET /health/live HTTP/1.1\r\nX: ")
        slow.settimeout(0.01)
        for _ in range(2_000):
            try:
                slow.sendall(b"x")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("still connected")


def test_who_does_not_read_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_REQUEST_S", 0.5)
    monkeypatch.setattr(limits, "HTTP_KEEP_ALIVE_S", 0.5)
    watched = Watched()
    for number in range(30_000):  # some 7 MB, more than the sockets hold
        watched.metrics.set("streamer_consumer_lag_records", 1, "t" * 180, str(number))
    with served(watched) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        error = select.poll()
        error.register(deaf, select.POLLHUP | select.POLLERR)
        assert error.poll(20_000), "still connected"


def test_a_connection_that_asks_again_in_time_is_kept_and_one_that_rests_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Watched()) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as scraper:
        for number in range(3):
            if number == 2:
                monkeypatch.setattr(limits, "HTTP_KEEP_ALIVE_S", 0.3)
            scraper.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\nok\n"):
                answer += (more := scraper.recv(65536))
                assert more, "cut off too early"
        assert read_to_the_end(scraper) == b""


def test_an_endless_head_is_refused() -> None:
    with served(Watched()) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as talker:
        try:
            talker.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000)
        except ConnectionError:
            return
        assert b"200 OK" not in read_to_the_end(talker)


def test_off_serves_nothing() -> None:
    with serve_in_background(Watched(), None):
        pass
