"""README's way through Kafka is walked on a real broker: topics, run, feed, tail, health, stop."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.docs.pages import ROOT, blocks, commands

README = ROOT / "README.md"
TIMEOUT_S = 60.0


def section(heading: str) -> list[str]:
    """The commands under a heading of README.md."""
    page = README.read_text("utf-8")
    first = page[: page.index(f"## {heading}")].count("\n") + 1
    last = first + page.partition(f"## {heading}")[2].partition("\n## ")[0].count("\n")
    return [line for block in blocks(README) if first < block.line <= last for line in commands(block)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the ready-made flows whose topics nobody else uses."""
    prefix = f"docs-{uuid.uuid4().hex[:8]}"
    place = tmp_path / prefix
    for path in (ROOT / "topologies").rglob("*"):
        copy = place / path.relative_to(ROOT)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif "__pycache__" not in path.parts:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    flow = place / "topologies/sensor.py"
    flow.write_text(re.sub(r'"sensor\.(\w+)"', rf'"{prefix}.\1"', flow.read_text()).replace('Topology("', f'Topology("{prefix}-'))
    return place


@pytest.fixture
def start(kafka: str, place: Path) -> Iterator["Start"]:
    runner = Start(kafka, place)
    yield runner
    runner.end()


class Start:
    """Runs the lines of the page in the copy, against the broker under test."""

    def __init__(self, kafka: str, place: Path) -> None:
        self.place, self.prefix = place, place.name
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMER_", "KAFKA_"))}
        ours = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "STREAMER_HTTP": "127.0.0.1:0", "STREAMER_LOG__FORMAT": "json"}
        self._environment = {**keep, **ours, "PYTHONPATH": str(ROOT)}
        self._running: list[subprocess.Popen[str]] = []

    def __call__(self, line: str) -> "subprocess.Popen[str]":
        words = shlex.split(line)
        words = [name for word in words for name in (sorted(map(str, self.place.glob(word))) if "*" in word else [word])]
        with (self.place / f"{len(self._running)}.err").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=self.place, env=self._environment, text=True,
                stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self._running.append(process)
        return process

    def said(self, number: int) -> list[dict[str, object]]:
        """What a process has logged."""
        lines = (self.place / f"{number}.err").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
        admin = AdminClient({"bootstrap.servers": self._environment["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0})
        ours = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(self.prefix)]
        for done in admin.delete_topics(ours).values() if ours else ():
            done.result(10)


def test_the_way_through_kafka(start: Start) -> None:
    lines = section("Run it against Kafka")
    assert lines[:2] == [". .venv/bin/activate", "streamer dev broker start"], "done already: by make and by the fixture"
    create, run, feed, tail = lines[2:]
    assert finished(start(create)).count("created") == 5
    service, reader = start(run), start(tail)
    wait_for(lambda: [said for said in start.said(1) if said["event"] == "partition_started"][3:], service)
    finished(start(feed.replace("--rate 2000", "--rate 20000")))
    assert reader.stdout is not None
    assert re.match(r"20\d\d-\d\d-\d\d ", reader.stdout.readline()), "an anomaly begins with its time"
    (listening,) = [said for said in start.said(1) if said["event"] == "listening"]
    for line in section("Health and metrics"):
        address = line.removeprefix("curl ").replace(":8080", f":{listening['port']}")
        with urllib.request.urlopen(f"http://{address}", timeout=10) as answer:
            assert answer.status == 200
    service.send_signal(signal.SIGTERM)
    assert service.wait(TIMEOUT_S) == 0


def finished(process: "subprocess.Popen[str]") -> str:
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, out
    return out


def wait_for(found: object, process: "subprocess.Popen[str]") -> None:
    assert callable(found)
    deadline = time.monotonic() + TIMEOUT_S
    while not found():
        assert process.poll() is None, "the service ended"
        assert time.monotonic() < deadline, "the service did not start reading"
        time.sleep(0.1)


def test_sections_are_found() -> None:
    assert len(section("Run it against Kafka")) == 6
    assert all(line.startswith("curl ") for line in section("Health and metrics"))
