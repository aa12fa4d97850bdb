"""A real broker, topics on it, and the order of tests.

One process leaves for the end what needs the broker: a broken unit test speaks first. `make test` has two processes. What
mostly waits, as for a broker, comes first there: each has one half of it to itself, one test at a time on a broker of its
own, so that nobody waits for another test of its kind. All else fills up both.
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from streamer.dev_broker import BrokerUnavailableError, DevBroker

pytest.register_assert_rewrite("tests.kit", "tests.laws")  # their assertions say what they found, as those of a test do

TESTS = Path(__file__).parent
NEED_KAFKA = (TESTS / "kafka", TESTS / "faults")
KAFKA_FIXTURES = {"kafka", "broker", "make_topic", "sasl_config"}
# Whose tests wait, for brokers, for processes they start, for deadlines: two halves.
FAULTS = ("tests/faults/",)
WAITING = ("tests/cli/", "tests/docs/", "tests/kafka/", "tests/unit/test_logs.py")
CREATE_TIMEOUT_S = 30

TopicFactory = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the broker and move it to the end; the order inside both halves stays."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & KAFKA_FIXTURES or any(folder in item.path.parents for folder in NEED_KAFKA):
            item.add_marker(pytest.mark.kafka)
            assert item.nodeid.startswith(FAULTS + WAITING), f"{item.nodeid} needs the broker: name it in WAITING"
    items.sort(key=lambda item: item.get_closest_marker("kafka") is not None)


class Halves(LoadScopeScheduling):
    """What mostly waits is two pieces of work, the largest, with which both processes begin; else each test is one."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(FAULTS):
            return "faults"
        return "waiting" if nodeid.startswith(WAITING) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Halves:
    """How the tests are spread over processes, where there are several."""
    return Halves(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once, whatever the options, why the tests against Kafka did not run."""
    skipped = (report for report in terminalreporter.stats.get("skipped", []) if "kafka" in report.keywords)
    for reason in dict.fromkeys(report.longrepr[2] for report in skipped):
        terminalreporter.write_line(f"Kafka tests SKIPPED: {reason.removeprefix('Skipped: ')}", yellow=True)


@pytest.fixture(scope="session")
def dev_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker | None]:
    """The broker that this run owns, None if `STREAMER_TEST_KAFKA` names another one."""
    if os.environ.get("STREAMER_TEST_KAFKA"):
        yield None
        return
    # The quick compiler alone: start 2.0 s instead of 2.8 s, and half the processor time in a short run.
    owned = DevBroker(tmp_path_factory.mktemp("kafka"), sasl=True, detour=True, java_options=["-XX:TieredStopAtLevel=1"])
    try:
        owned.start()
    except BrokerUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true does not accept skipped Kafka tests: {error}", pytrace=False)
        pytest.skip(str(error))
    yield owned
    owned.close()
    shutil.rmtree(owned.data / "kafka")  # pytest keeps the folder of the last runs; the log is enough


@pytest.fixture
def broker(dev_broker: DevBroker | None) -> Iterator[DevBroker]:
    """The broker object, to stop, kill or restart; it runs again when the test is over."""
    if dev_broker is None:
        pytest.skip("STREAMER_TEST_KAFKA names a broker that is not ours to restart")
    yield dev_broker
    dev_broker.start()


@pytest.fixture(scope="session")
def kafka(dev_broker: DevBroker | None) -> str:
    """`bootstrap.servers` of the broker under test."""
    return dev_broker.bootstrap if dev_broker is not None else os.environ["STREAMER_TEST_KAFKA"]


@pytest.fixture
def sasl_config(broker: DevBroker) -> dict[str, str]:
    """The librdkafka keys of a client that connects through SASL_PLAINTEXT and SCRAM-SHA-512."""
    return broker.sasl_config


@pytest.fixture(scope="session")
def make_topic(kafka: str, dev_broker: DevBroker | None) -> Iterator[TopicFactory]:
    """`make_topic(hint, partitions=4, **config) -> name`: a new topic that is ready for use.

    In `config` an underscore stands for a dot: `make_topic("in", cleanup_policy="compact")`. On a broker that
    is not ours the topics are deleted at the end of the run.
    """
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})  # restarts are no news
    made: list[str] = []

    def make(hint: str, partitions: int = 4, **config: object) -> str:
        name = f"{hint}-{uuid.uuid4().hex[:8]}"
        settings = {"message.timestamp.type": "LogAppendTime"}
        settings |= {key.replace("_", "."): str(value) for key, value in config.items()}
        for future in admin.create_topics([NewTopic(name, partitions, config=settings)]).values():
            future.result(CREATE_TIMEOUT_S)
        made.append(name)
        _wait_for_leaders(admin, name, partitions)
        return name

    yield make
    if dev_broker is None and made:
        for future in admin.delete_topics(made).values():
            future.result(CREATE_TIMEOUT_S)


@pytest.fixture(scope="session")
def topic(make_topic: TopicFactory) -> TopicFactory:
    """The topic factory under its short name."""
    return make_topic


def _wait_for_leaders(admin: AdminClient, topic: str, partitions: int) -> None:
    """Created is not yet known: a client that subscribes in between sees an unknown topic."""
    deadline = time.monotonic() + CREATE_TIMEOUT_S
    while time.monotonic() < deadline:
        found = admin.list_topics(topic, timeout=10).topics[topic].partitions
        if len(found) == partitions and all(partition.leader >= 0 for partition in found.values()):
            return
        time.sleep(0.02)
    raise TimeoutError(f"topic {topic} has no leader for each of its {partitions} partitions")


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What a test does to the logging of the process ends with it."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
