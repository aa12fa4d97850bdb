"""The service as users run it: its own process, signals, and the records that come out."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer

from tests.faults.make_model import write_model

ROOT = Path(__file__).resolve().parents[2]
FLOW = "tests/kafka/service_flow.py:flow"
WAIT_S = 40.0
PARTITIONS = 4


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the small model of the torture rig."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    return folder


class Flow:
    """One set of topics, and the commands to work on them.

    Args:
        kafka: librdkafka keys of all clients, as environment for the service and as configuration for the test's own.
        models: repository.
        topology: which one.
    """

    def __init__(self, kafka: dict[str, str], models: Path, topology: str = FLOW) -> None:
        self.kafka, self.models, self.topology = kafka, models, topology
        self.prefix = f"svc-{uuid.uuid4().hex[:8]}"
        names = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in kafka.items()}
        self.environment = {**os.environ, **names, "FLOW_PREFIX": self.prefix, "KAFKA_SESSION_TIMEOUT_MS": "6000"}
        self.command("topics", "create", topology, "--partitions", str(PARTITIONS), "--group", self.prefix)
        # idempotent: without it a retry, after a broker has died, changes the order or writes a reading twice
        self.producer = Producer({**kafka, "partitioner": "murmur2_random", "linger.ms": 5, "enable.idempotence": True})
        self.sent = 0
        self.log = Path()

    def command(self, *words: str) -> str:
        """Run a command to its end."""
        command = [sys.executable, "-m", "streamer", *words]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, *options: str, ends: int = signal.SIGTERM) -> Iterator["subprocess.Popen[bytes]"]:
        """A worker process; SIGTERM at the end must give status 0."""
        words = ["run", self.topology, "--group", self.prefix, "--models", str(self.models), "--http", "off", *options]
        with tempfile.TemporaryDirectory() as folder:
            log = self.log = Path(folder) / "log"
            with log.open("ab") as stderr:
                command = [sys.executable, "-m", "streamer", *words]
                worker = subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=stderr)
            try:
                self.wait_for_assignment(worker, log)
                yield worker
                worker.send_signal(ends)
                assert worker.wait(20) == (0 if ends == signal.SIGTERM else -ends)
            finally:
                worker.kill()
                worker.wait()
                sys.stderr.write(log.read_text())

    @staticmethod
    def wait_for_assignment(worker: "subprocess.Popen[bytes]", log: Path) -> None:
        """Return once the worker logged that it owns partitions."""
        deadline = time.monotonic() + WAIT_S
        while worker.poll() is None and time.monotonic() < deadline:
            if "partitions_assigned" in log.read_text():
                return
            time.sleep(0.1)
        raise AssertionError("the worker did not come up; its log is above")

    def send(self, count: int) -> None:
        """Readings of five sensors, values counting up."""
        for number in range(self.sent, self.sent + count):
            key = f"s{number % 5}"
            value = json.dumps({"sensor_id": key, "site": f"t{number % 3}", "ts": 1.7e9 + number, "value": float(number)})
            self.producer.produce(f"{self.prefix}.in", value.encode(), key.encode())
        assert self.producer.flush(20) == 0
        self.sent += count

    def predictions(self, count: int) -> list[dict[str, object]]:
        """At least `count` committed predictions, or fewer after the waiting time."""
        return bodies(self.committed(f"{self.prefix}.predictions", count))

    def committed(self, topic: str, count: int) -> list[Message]:
        """At least `count` committed records of a topic, or fewer after the waiting time."""
        return self.committed_until(topic, lambda found: len(found) >= count)

    def committed_until(self, topic: str, enough: Callable[[list[Message]], bool]) -> list[Message]:
        """Committed records of a topic, read until there are enough, or the waiting time is over."""
        reader = Consumer(
            {**self.kafka, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
        )
        reader.subscribe([topic])
        found: list[Message] = []
        deadline = time.monotonic() + WAIT_S
        while not enough(found) and time.monotonic() < deadline:
            found += [message for message in reader.consume(500, 0.2) if message.error() is None]
        # A moment more: what should not be there must have its chance to appear.
        found += [message for message in reader.consume(500, 0.5) if message.error() is None]
        reader.close()
        return found


def bodies(messages: list[Message]) -> list[dict[str, object]]:
    """The JSON objects in these records."""
    return [json.loads(message.value() or b"") for message in messages]


def expected(count: int) -> dict[str, tuple[int, float]]:
    """Sensor/value -> window_n and mean, by hand."""
    windows: dict[str, list[float]] = {}
    found = {}
    for number in range(count):
        key = f"s{number % 5}"
        windows[key] = [*windows.get(key, []), float(number)][-8:]
        found[f"{key}/{number}"] = (len(windows[key]), sum(windows[key]) / len(windows[key]))
    return found


def seen(predictions: list[dict[str, object]]) -> dict[str, tuple[int, float]]:
    """The same from predictions; a repeated one is an error of the test's claim."""
    found: dict[str, tuple[int, float]] = {}
    for prediction in predictions:
        features = prediction["features"]
        assert isinstance(features, dict)
        name = f"{prediction['key']}/{round(features['last'])}"
        assert name not in found, f"{name} was predicted twice"
        found[name] = (int(str(prediction["window_n"])), features["mean"])
    return found


def same(found: dict[str, tuple[int, float]], wanted: dict[str, tuple[int, float]]) -> bool:
    """Every prediction once, windows of the right length and mean."""
    return found.keys() == wanted.keys() and all(
        n == wanted[name][0] and mean == pytest.approx(wanted[name][1], rel=1e-6) for name, (n, mean) in found.items()
    )
