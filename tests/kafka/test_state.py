"""Base snapshots, deleted records and `streamer state` on a real broker."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from streamer.changelog.blocks import CommitMetadata
from streamer.cli import app
from streamer.cli.doctor import examine
from streamer.kafka.admin import create_topics
from streamer.planning.plan import Plan, bind
from streamer.settings.settings import Settings
from streamer.testing import stand_in
from streamer.topology.loading import load_topology
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker
from tests.kit.bases import small_snapshots
from tests.kit.models import write_model

PARTITIONS = 2
KEYS = tuple(f"s{n}" for n in range(6))
FLOW = """
from streamer import Event, Model, Topology, rolling

class Reading(Event, topic="{prefix}.in", key="sensor", time="ts"):
    sensor: str
    ts: float
    value: float
    load: float = 0.0

flow = (
    Topology("{prefix}")
    .source(Reading, dead_letters="{prefix}.dead")
    .window(rolling(count=50))
    .features(lambda w: {{"mean": w.mean("value"), "rate": w.rate("value")}})
    .infer(Model("torture"))
    .publish(predictions="{prefix}.predictions")
)
"""


class Life:
    """A flow on topics of its own: workers in this process, and commands beside them."""

    def __init__(self, kafka: str, folder: Path, guarantee: str) -> None:
        self.kafka, self.prefix = kafka, f"state-{uuid.uuid4().hex[:8]}"
        self.file = folder / "flow.py"
        self.file.write_text(FLOW.format(prefix=self.prefix))
        self.settings = Settings.load(None, bootstrap=kafka, guarantee=guarantee)
        self.plan = self._plan()
        create_topics(self.settings, self.plan.topics, partitions=PARTITIONS)
        self.sent = 0
        self.producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})

    def _plan(self) -> Plan:
        topology, _ = load_topology(str(self.file))
        return bind(topology, self.settings, Path(), model=stand_in(lambda columns: columns["mean"][:, None]))

    def run(self, rounds: int, during: Callable[[], None] = lambda: None) -> None:
        """A worker for so many rounds of one row per key, each committed before the next is sent."""
        worker = Worker(parts_of(self.plan, self.settings))
        worker.open()
        done, left = 0, rounds

        def until() -> bool:
            nonlocal done, left
            if worker.metrics.value("streamer_records_total") < done:
                return False
            if not left:
                during()
                return True
            self.send()
            done, left = done + len(KEYS), left - 1
            return False

        worker.run(until)

    def send(self) -> None:
        for key in KEYS:
            value = json.dumps({"sensor": key, "ts": 1.7e9 + self.sent, "value": float(self.sent)})
            self.producer.produce(f"{self.prefix}.in", value.encode(), key.encode())
        assert self.producer.flush(20) == 0
        self.sent += 1

    def low(self, partition: int) -> int:
        """First offset of the changelog that is still there."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "looks"})
        try:
            assert self.plan.topics.changelog is not None
            return int(consumer.get_watermark_offsets(TopicPartition(self.plan.topics.changelog, partition), timeout=20)[0])
        finally:
            consumer.close()

    def mark(self, partition: int) -> CommitMetadata:
        """What the group's metadata says."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": self.plan.group})
        try:
            (found,) = consumer.committed([TopicPartition(f"{self.prefix}.in", partition)], 20)
            return CommitMetadata.parse(found.metadata)
        finally:
            consumer.close()

    def counts(self) -> list[int]:
        """`window_n` of all committed predictions, in order per key; keys one after the other."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "looks", "isolation.level": "read_committed",
                             "enable.partition.eof": True})  # fmt: skip
        consumer.assign([TopicPartition(f"{self.prefix}.predictions", p, 0) for p in range(PARTITIONS)])
        rows, ends = [], 0
        while ends < PARTITIONS:
            for message in consumer.consume(500, 5.0):
                if message.error() is None:
                    rows.append(json.loads(message.value() or b""))
                else:
                    ends += 1
        consumer.close()
        return [row["window_n"] for key in KEYS for row in rows if row["key"] == key]

    def command(self, *words: str) -> Result:
        arguments = ["state", words[0], f"{self.file}:flow", *words[1:], "--bootstrap", self.kafka]
        return CliRunner().invoke(app, arguments)


@pytest.fixture
def life(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Life:
    small_snapshots(monkeypatch)
    return Life(kafka, tmp_path, getattr(request, "param", "exactly-once"))


@pytest.mark.parametrize("life", ["exactly-once", pytest.param("at-least-once", marks=pytest.mark.again)], indirect=True)
def test_old_records_really_go_and_windows_stay(life: Life) -> None:
    life.run(40)
    assert [life.mark(p).base is not None for p in range(PARTITIONS)] == [True, True]
    lows = [life.low(p) for p in range(PARTITIONS)]
    assert min(lows) > 0, "nothing was deleted"
    life.run(10)
    assert life.counts() == [min(n, 50) for n in range(1, 51)] * len(KEYS)


def test_a_group_that_the_broker_has_forgotten_goes_on_where_the_changelog_ends(life: Life) -> None:
    life.run(12)
    admin = AdminClient({"bootstrap.servers": life.kafka})
    for gone in admin.delete_consumer_groups([life.plan.group]).values():
        gone.result(20)
    life.run(3)
    assert life.counts() == list(range(1, 16)) * len(KEYS)


def test_looking_at_a_key_and_starting_over(life: Life) -> None:
    def while_it_runs() -> None:
        seen = json.loads(life.command("show", "s3", "--json").output)
        assert [sample["value"] for sample in seen["samples"]] == [float(n) for n in range(12)]
        assert seen["samples"][0]["time"] == "2023-11-14T22:13:20Z"
        refused = life.command("reset", "--to", "committed", "--yes")
        assert "has 1 members; stop all workers first" in str(refused.exception)

    life.run(12, while_it_runs)
    assert life.command("show", "s3").output.startswith("key s3  partition ")
    assert "no window for key 'nobody'" in str(life.command("show", "nobody").exception)
    assert "say --yes" in str(life.command("reset", "--to", "latest").exception)

    done = life.command("reset", "--to", "committed", "--yes")
    assert done.exit_code == 0, done.output
    assert "will be forgotten" in done.output
    assert [life.mark(p) for p in range(PARTITIONS)] == [CommitMetadata(0)] * PARTITIONS
    assert "no window for key 's3'" in str(life.command("show", "s3").exception)
    life.run(3)
    assert life.counts() == [*range(1, 13), 1, 2, 3] * len(KEYS)

    assert life.command("reset", "--to", "earliest", "--yes").exit_code == 0
    assert [life.mark(p) for p in range(PARTITIONS)] == [CommitMetadata(0)] * PARTITIONS
    life.run(14)  # waits for as many rows as it sends, and finds the fifteen of before in front of them
    again = life.counts()[: 15 + 14]
    assert again[:15] == [*range(1, 13), 1, 2, 3]
    assert again[15:] == list(range(1, 15))


@pytest.mark.parametrize("mistake", ["another window", "too many keys"])
def test_doctor_says_what_run_ends_with(life: Life, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words and status are the same, whichever is asked."""
    write_model(tmp_path / "models", "torture", inputs={"x": ("rows", 2)})
    life.run(2)
    before = list(examine(f"{life.file}:flow", life.settings))
    assert all(check.ok for check in before), "\n".join(map(str, before))
    assert any("keeps windows of this topology in 2 of 2 partitions" in check.what for check in before)
    if mistake == "another window":
        life.file.write_text(life.file.read_text().replace("count=50", "count=20"))
        # Python knows what it compiled by size and second: within one it would take the file for the old one.
        os.utime(life.file, (time.time() + 10, time.time() + 10))
    else:
        store = life.plan.store
        assert store is not None
        # One partition would fit.
        monkeypatch.setenv("STREAMER_KEYS_MAX", str(life.settings.state_memory // store.bytes_per_key))
    after = list(examine(f"{life.file}:flow", Settings.load(None, bootstrap=life.kafka)))
    assert sum(not check.ok for check in after) == 1, "\n".join(map(str, after))
    failed = next(check for check in after if not check.ok)
    command = [sys.executable, "-m", "streamer", "run", f"{life.file}:flow", "--bootstrap", life.kafka, "--http", "off"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == (5 if mistake == "another window" else 2)
    said = run.stderr.splitlines()[-1].removeprefix("streamer: ")
    if mistake == "another window":
        # Each names the first block that it meets.
        assert said.startswith(f"{life.plan.topics.changelog}/")
        assert said.partition(" was written")[2] == failed.fix.partition(" was written")[2] != ""
    else:
        assert said == failed.fix
        assert "keys_max) x 2 partitions =" in said
