"""The development broker: it answers, keeps its data, dies with its parent, and says what is wrong."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from streamer.dev_broker import BrokerError, DevBroker

MakeTopic = Callable[..., str]
REPOSITORY = Path(__file__).parents[2]


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def read_all(bootstrap: str, topic: str, count: int, **config: str) -> list[bytes]:
    """The first `count` values of the topic, fewer if they do not come within 20 s."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-reader",
            "auto.offset.reset": "earliest",
            "log_level": 0,
            **config,
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            values.append(message.value() or b"")
    consumer.close()
    return values


def is_alive(pid: int) -> bool:
    """True for a process that runs; one that ended and waits for its parent does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


class TestTopics:
    def test_the_broker_answers_with_itself(self, kafka: str) -> None:
        brokers = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).brokers
        assert kafka in {f"{broker.host}:{broker.port}" for broker in brokers.values()}

    def test_a_topic_has_what_was_asked_for(self, kafka: str, make_topic: MakeTopic) -> None:
        name = make_topic("shape", partitions=3, cleanup_policy="compact")
        admin = AdminClient({"bootstrap.servers": kafka})
        assert len(admin.list_topics(name, timeout=10).topics[name].partitions) == 3
        (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
        config = future.result(10)
        assert config["cleanup.policy"].value == "compact"
        assert config["message.timestamp.type"].value == "LogAppendTime"

    def test_topics_do_not_appear_by_mistake(self, broker: DevBroker) -> None:
        topics = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics("misspelt", timeout=10).topics
        assert topics["misspelt"].error is not None

    def test_what_is_produced_can_be_read(self, kafka: str, make_topic: MakeTopic) -> None:
        name = make_topic("round-trip")
        values = [b"%d" % n for n in range(100)]
        produce(kafka, name, values)
        assert sorted(read_all(kafka, name, 100)) == sorted(values)


class TestRestart:
    def test_data_and_address_stay_after_a_restart(self, broker: DevBroker, make_topic: MakeTopic) -> None:
        """Restarted from a thread that ends, as a fault test does it: the broker must not end with the thread."""
        name, address, pid = make_topic("restart", partitions=1), broker.bootstrap, broker.pid
        produce(address, name, [b"before"])
        thread = threading.Thread(target=broker.restart)
        thread.start()
        thread.join()
        assert broker.bootstrap == address
        assert broker.pid not in {pid, None}
        produce(address, name, [b"after"])
        assert read_all(address, name, 2) == [b"before", b"after"]

    def test_data_stays_after_a_kill(self, broker: DevBroker, make_topic: MakeTopic) -> None:
        name, pid = make_topic("kill", partitions=1), broker.pid
        produce(broker.bootstrap, name, [b"before"])
        broker.kill()
        assert not broker.running
        broker.start()
        assert broker.pid not in {pid, None}
        produce(broker.bootstrap, name, [b"after"])
        assert read_all(broker.bootstrap, name, 2) == [b"before", b"after"]

    def test_starting_twice_changes_nothing(self, broker: DevBroker) -> None:
        pid = broker.pid
        broker.start()
        assert broker.pid == pid


class TestFailure:
    def test_a_second_broker_on_the_same_data_is_refused(self, broker: DevBroker) -> None:
        with pytest.raises(BrokerError, match=rf"another broker \(process {broker.pid}\) runs on"):
            DevBroker(broker.data).start()
        assert broker.running

    def test_a_taken_port_is_named(self, broker: DevBroker, tmp_path: Path) -> None:
        port = int(broker.bootstrap.rpartition(":")[2])
        with pytest.raises(BrokerError, match=f"port {port} is taken"):
            DevBroker(tmp_path, port=port).start()

    def test_the_end_of_the_log_says_why_it_did_not_start(self, broker: DevBroker, tmp_path: Path) -> None:
        assert broker.running  # the jars are there
        failing = DevBroker(tmp_path, java_options=["-XX:NoSuchOption"])
        with pytest.raises(BrokerError, match="Unrecognized VM option 'NoSuchOption'"):
            failing.start()
        assert not failing.running

    def test_settings_kafka_refuses_are_named(self, broker: DevBroker, tmp_path: Path) -> None:
        assert broker.running  # the jars are there
        with pytest.raises(BrokerError, match=r"log\.retention\.ms"):
            DevBroker(tmp_path, settings={"log.retention.ms": "0"}).start()


class TestGuard:
    def test_the_broker_has_one(self, broker: DevBroker) -> None:
        assert broker._guard is not None
        assert broker._guard._shell.poll() is None

    def test_a_child_dies_with_a_parent_that_is_killed(self) -> None:
        parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=REPOSITORY)
        assert parent.stdout is not None
        with parent.stdout:
            child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
        parent.wait()
        assert wait_for(lambda: not is_alive(child), 10)


PARENT = """
import subprocess, time
from streamer.dev_broker.process import Guard
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, start_new_session=True)
guard = Guard(child.pid)
print(child.pid, flush=True)
time.sleep(600)
"""
