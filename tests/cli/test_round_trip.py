"""feed, run and tail together on a real broker, each as its own process."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from streamer.cli import app
from streamer.errors import TopicError
from streamer.feeding.rows import FeedError
from tests.faults.make_model import write_model
from tests.faults.names import PREFIX_VARIABLE, Names

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = "tests/faults/topology.py:torture"
EVENTS = 300


class Shell:
    """The command line with the names of this test: in this process, or `start`ed as one of its own."""

    def __init__(self, names: Names, kafka: str) -> None:
        self._environment = {PREFIX_VARIABLE: names.prefix, "STREAMER_GROUP": names.group, "COLUMNS": "300"}
        self._kafka = kafka

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "streamer", *arguments, "--bootstrap", self._kafka]
        environment = os.environ | self._environment
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> str:
        before = signal.getsignal(signal.SIGTERM)
        result = CliRunner(env=self._environment).invoke(app, [*arguments, "--bootstrap", self._kafka])
        signal.signal(signal.SIGTERM, before)
        if result.exception is not None:
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture(scope="module")
def shell(kafka: str) -> Iterator[Shell]:
    names = Names(f"round-trip-{uuid.uuid4().hex[:8]}")
    shell = Shell(names, kafka)
    shell.run("topics", "create", TOPOLOGY, "--group", names.group, "--partitions", "2")
    yield shell
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    for future in admin.delete_topics([names.input, *names.outputs, *names.changelogs]).values():
        future.result(30)


def test_what_is_fed_comes_out(shell: Shell, tmp_path: Path) -> None:
    models = str(write_model(tmp_path / "models").parents[2])
    data = tmp_path / "pump.csv"
    data.write_text("timestamp,value\n" + "".join(f"{1_700_000_000 + n},{n % 7}\n" for n in range(EVENTS)))
    fed = shell.run("feed", TOPOLOGY, str(data), "--key-from-file", "--shift", "now")
    assert fed.startswith(f"fed {EVENTS} events")
    assert ", 0 failed" in fed

    worker = shell.start("run", TOPOLOGY, "--models", models, "--http", "off")
    try:
        lines = shell.run("tail", TOPOLOGY, "--json", "--from", "earliest", "--count", str(EVENTS)).splitlines()
        predictions = [orjson.loads(line) for line in lines]
        assert len({prediction["id"] for prediction in predictions}) == EVENTS
        assert {prediction["key"] for prediction in predictions} == {"pump"}
        assert [prediction["features"]["last"] for prediction in predictions] == [n % 7 for n in range(EVENTS)]
        readable = shell.run("tail", TOPOLOGY, "--from", "earliest", "--count", "3").splitlines()
        assert len(readable) == 3
        assert all("pump" in line and "n=" in line for line in readable)
    finally:
        worker.terminate()
        _, log = worker.communicate(timeout=30)
    assert worker.returncode == 0, log

    with shell.start("tail", TOPOLOGY, "--from", "earliest") as tail:
        assert tail.stdout is not None
        assert "pump" in tail.stdout.readline()
        tail.terminate()
        assert tail.wait(30) == 0, "a container's stop ends it in order"

    found = shell.run("doctor", TOPOLOGY, "--models", models)
    assert "lag 0 records" in found
    assert "FAIL" not in found


def test_bad_rows_end_the_feed_or_are_counted(shell: Shell, tmp_path: Path) -> None:
    data = tmp_path / "pump.csv"
    data.write_text("timestamp,value\n1,1\n2,two\n3,3\n")
    with pytest.raises(FeedError, match=r"pump\.csv:3: .*--skip-bad \(1 events before it were fed\)"):
        shell.run("feed", TOPOLOGY, str(data), "--key-from-file")
    assert "fed 2 events" in (told := shell.run("feed", TOPOLOGY, str(data), "--key-from-file", "--skip-bad"))
    assert "1 bad rows skipped" in told


def test_topic_that_is_not_there(kafka: str) -> None:
    nobody = Shell(Names(f"round-trip-{uuid.uuid4().hex[:8]}"), kafka)
    for command in (("feed", TOPOLOGY, "generator"), ("tail", TOPOLOGY)):
        with pytest.raises(TopicError, match="streamer topics create"):
            nobody.run(*command)
