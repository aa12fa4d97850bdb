"""Topics that change underneath a worker, on a real broker: it stops with status 3 and names them, or takes what came."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from streamer import Event, Model, Topology, rolling
from streamer.errors import StreamerError
from streamer.kafka.admin import create_topics
from streamer.planning.plan import plan_of
from streamer.settings.settings import Settings
from streamer.testing import constant, stand_in
from streamer.topology.topics import topics_of
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker

WAIT_S = 60.0


class Running:
    """A worker on a thread, its topics with two partitions, and what ended it."""

    def __init__(self, kafka: str, *, keyed: bool) -> None:
        self.name = f"change-{uuid.uuid4().hex[:8]}"

        class Reading(Event, topic=f"{self.name}.in", key="key", time="ts"):
            key: str
            ts: float
            value: float

        flow = Topology(self.name).source(Reading, dead_letters=f"{self.name}.dead")
        if keyed:
            flow = flow.window(rolling(count=3))
        flow = flow.features(lambda w: {"value": w.event("value")}).infer(Model("m")).publish(predictions=f"{self.name}.out")
        self.settings = Settings.load(None, bootstrap=kafka)
        self.topics = topics_of(flow, None)
        create_topics(self.settings, self.topics, partitions=2)
        self.kafka, self.admin = kafka, AdminClient({"bootstrap.servers": kafka, "log_level": 0})
        plan = plan_of(flow, self.settings, Path(), model=stand_in(constant(0.5)))
        self.worker = Worker(parts_of(plan.flows[0], self.settings))
        self.worker.open()
        self.failure: BaseException | None = None
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:  # noqa: BLE001 - it is what the test asks for
            self.failure = error

    def send(self, count: int) -> None:
        """Records of ten keys."""
        producer = Producer({"bootstrap.servers": self.kafka, "log_level": 0})
        for n in range(count):
            value = json.dumps({"key": f"k{n % 10}", "ts": 1.7e9 + n, "value": float(n)})
            producer.produce(self.topics.source, value.encode(), f"k{n % 10}".encode())
        assert producer.flush(WAIT_S) == 0
        self.sent += count

    def predictions(self) -> int:
        """Wait for one of each record that was sent; how many there are."""
        config = {"bootstrap.servers": self.kafka, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
        reader = Consumer({**config, "isolation.level": "read_committed", "topic.metadata.refresh.interval.ms": 500})
        reader.subscribe([self.topics.predictions])
        found, deadline = 0, time.monotonic() + WAIT_S
        while found < self.sent and time.monotonic() < deadline:
            found += sum(message.error() is None for message in reader.consume(500, 0.2))
        reader.close()
        return found

    def done(self, change: Callable[[AdminClient], object]) -> None:
        """Carry a change of topics out, and wait until it is through."""
        for future in change(self.admin).values():  # type: ignore[attr-defined]
            future.result(WAIT_S)

    def words(self) -> str:
        """What the worker says when it stops for it."""
        self._thread.join(WAIT_S)
        assert isinstance(self.failure, StreamerError), self.failure
        assert self.failure.exit_code == 3
        return str(self.failure)

    def close(self) -> None:
        """End it, whatever it does."""
        self.worker.stop()
        self._thread.join(WAIT_S)


@pytest.fixture
def start(kafka: str) -> Iterator[Callable[..., Running]]:
    """Starts workers, and ends them."""
    made: list[Running] = []

    def make(*, keyed: bool) -> Running:
        made.append(Running(kafka, keyed=keyed))
        return made[-1]

    yield make
    for running in made:
        running.close()


def test_each_change_is_noticed(start: Callable[..., Running]) -> None:
    anew, grown, gone, taken = start(keyed=True), start(keyed=True), start(keyed=True), start(keyed=False)
    for running in (anew, grown, gone, taken):
        running.send(100)
        assert running.predictions() == 100
    source = anew.topics.source
    anew.done(lambda admin: admin.delete_topics([source]))
    anew.done(lambda admin: admin.create_topics([NewTopic(source, 2)]))
    grown.done(lambda admin: admin.create_partitions([NewPartitions(grown.topics.source, 4)]))
    gone.done(lambda admin: admin.delete_topics([gone.topics.predictions]))
    taken.done(lambda admin: admin.create_partitions([NewPartitions(taken.topics.source, 4)]))
    words = anew.words()
    assert f"input topic {source} was deleted and made again: it had id " in words or f"topic {source} (id " in words
    assert f"{grown.topics.source} had 2 partitions and has 4" in grown.words()
    assert f"topic {gone.topics.predictions} (id " in gone.words()
    taken.send(200)
    assert taken.predictions() == 300
    assert taken.failure is None
