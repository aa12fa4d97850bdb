"""The service as users run it: its own process, a real broker, signals, and the records that come out."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.service import PARTITIONS, ROOT, WAIT_S, Flow, expected, models, same, seen

__all__ = ["models"]


@pytest.mark.parametrize("guarantee", ["exactly-once", pytest.param("at-least-once", marks=pytest.mark.again)])
def test_windows_survive_a_restart(kafka: str, models: Path, guarantee: str) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models)
    flow.send(60)
    with flow.running("--guarantee", guarantee):
        assert len(flow.predictions(60)) == 60
    flow.send(60)
    with flow.running("--guarantee", guarantee):
        assert same(seen(flow.predictions(120)), expected(120))


def test_partitions_move_between_workers(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models)
    flow.send(50)
    with flow.running("--slot", "a"):
        assert len(flow.predictions(50)) == 50
        with flow.running("--slot", "b"):
            flow.send(100)
            assert len(flow.predictions(150)) == 150
        flow.send(50)
        assert same(seen(flow.predictions(200)), expected(200))


def test_children_share_the_work(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models)
    flow.send(100)
    with flow.running("--workers", "2"):
        assert same(seen(flow.predictions(100)), expected(100))


def test_the_service_speaks_sasl(sasl_config: dict[str, str], models: Path) -> None:
    flow = Flow(sasl_config, models)
    flow.send(20)
    with flow.running():
        assert same(seen(flow.predictions(20)), expected(20))


def test_the_new_group_protocol(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models)
    flow.environment["KAFKA_GROUP_PROTOCOL"] = "consumer"
    del flow.environment["KAFKA_SESSION_TIMEOUT_MS"]
    flow.send(50)
    with flow.running("--slot", "a"), flow.running("--slot", "b"):
        assert same(seen(flow.predictions(50)), expected(50))


def test_of_two_workers_with_one_slot_the_loser_says_so(kafka: str, models: Path, tmp_path: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models)
    words = ["run", flow.topology, "--group", flow.prefix, "--models", str(models), "--http", "off", "--slot", "a-7"]
    workers, logs = list["subprocess.Popen[bytes]"](), [tmp_path / "one", tmp_path / "two"]
    try:
        for log in logs:
            with log.open("wb") as stderr:
                command = [sys.executable, "-m", "streamer", *words]
                workers.append(subprocess.Popen(command, cwd=ROOT, env=flow.environment, stderr=stderr))
        deadline = time.monotonic() + WAIT_S
        while all(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
            for partition in range(PARTITIONS):  # both have work: who begins is fenced, and fences
                value = json.dumps({"sensor_id": "s", "ts": 1.7e9, "value": 1.0}).encode()
                flow.producer.produce(f"{flow.prefix}.in", value, b"s", partition)
            flow.producer.flush(20)
            time.sleep(0.1)
        ended = next(n for n, worker in enumerate(workers) if worker.poll() is not None)
        assert workers[ended].returncode == 7
        assert "our slot 'a-7' was taken over 3 times" in logs[ended].read_text()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
