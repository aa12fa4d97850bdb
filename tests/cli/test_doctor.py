"""The doctor finds what is wrong, says how to mend it, and never hangs."""

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamer.cli.check import TIMEOUT_S
from streamer.cli.doctor import examine, reach
from streamer.dev_broker import DevBroker
from streamer.kafka.admin import create_topics
from streamer.settings.settings import KafkaSettings, Settings
from streamer.topology.loading import load_topology
from streamer.topology.topics import topics_of

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = f"{ROOT / 'topologies' / 'sensor.py'}:sensor"


def settings(bootstrap: str, **more: object) -> Settings:
    return Settings(kafka=KafkaSettings(common={"bootstrap.servers": bootstrap})).model_copy(update=more)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    kept.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in kept:
            connection.close()


def test_closed_port_fails_fast_with_the_fix(closed_port: int) -> None:
    command = [sys.executable, "-m", "streamer", "doctor", TOPOLOGY, "--bootstrap", f"127.0.0.1:{closed_port}"]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ.copy(), timeout=60, check=False)
    assert time.monotonic() - started < 30
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert f"bootstrap 127.0.0.1:{closed_port}" in failed[0]
    assert "streamer dev broker start" in failed[0]
    assert "ok   model sensor-anomaly" in done.stdout, "the model is checked all the same"
    assert "one inference" in done.stdout


def test_something_else_answers(silent_port: int) -> None:
    started = time.monotonic()
    checks = list(examine(TOPOLOGY, settings(f"127.0.0.1:{silent_port}")))
    assert time.monotonic() - started < 4 * TIMEOUT_S
    (failed,) = [check for check in checks if not check.ok]
    assert failed.what.startswith("metadata")
    assert "security.protocol" in failed.fix


@pytest.mark.parametrize("address", ["nowhere.invalid:9092", "localhost", "localhost:kafka", ":9092"])
def test_addresses_that_cannot_be(address: str) -> None:
    check = reach(address, "bootstrap")
    assert not check.ok
    assert "resolve" in check.fix or "HOST:PORT" in check.fix


def test_topology_that_is_not_there(tmp_path: Path) -> None:
    (check,) = examine(f"{tmp_path / 'none.py'}:sensor", settings("127.0.0.1:1"))
    assert not check.ok
    assert "no file" in check.fix


def test_model_that_is_not_there(tmp_path: Path, closed_port: int) -> None:
    checks = list(examine(TOPOLOGY, settings(f"127.0.0.1:{closed_port}", models=tmp_path)))
    assert not checks[-1].ok
    assert checks[-1].what.startswith("model")
    assert "sensor-anomaly" in checks[-1].fix


def test_missing_topics_on_a_real_broker(kafka: str) -> None:
    checks = list(examine(TOPOLOGY, settings(kafka, group="nobody-ever-ran-this")))
    failed = [check for check in checks if not check.ok]
    assert any("nobody-ever-ran-this-sensor-anomaly-window-changelog" in check.what for check in failed)
    assert all("streamer topics create" in check.fix for check in failed)
    assert any(check.ok and check.what.startswith("advertised listener") for check in checks)


def test_a_broker_that_has_never_had_a_group(tmp_path: Path) -> None:
    """It makes the topic of committed offsets when it is first asked, which takes a moment."""
    with DevBroker(tmp_path) as broker:
        topology, _ = load_topology(TOPOLOGY)
        create_topics(Settings.load(None, bootstrap=broker.bootstrap), topics_of(topology, None), partitions=2)
        checks = list(examine(TOPOLOGY, settings(broker.bootstrap)))
    (group,) = [check for check in checks if check.what.startswith("group ")]
    assert group.ok, group.fix
    assert "committed in 0 of 2 partitions" in group.what
    (segments,) = [check for check in checks if check.what.endswith("is kept for ever")]
    assert segments.ok
    assert not [check for check in checks if "has segments of" in check.what]


def test_a_changelog_that_keeps_what_is_deleted(kafka: str) -> None:
    own = settings(kafka, group=f"wide-{uuid.uuid4().hex[:8]}")
    topology, _ = load_topology(TOPOLOGY)
    topics = topics_of(topology, own.group)
    changelog = NewTopic(str(topics.changelog), 1, config={"retention.ms": "-1", "retention.bytes": "-1"})
    admin = AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics([changelog]).values():
        made.result(20)
    (wide,) = [check for check in examine(TOPOLOGY, own) if "has segments of" in check.what]
    assert wide.warning
    assert "segment.bytes=67108864" in wide.fix
    assert "segment.ms=21600000" in wide.fix
