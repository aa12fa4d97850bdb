"""A join of two topics on a real broker: a worker is killed, partitions move, and each event has its one result."""

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tests.kit.service import ROOT, Flow, models

__all__ = ["models"]
FLOW = "tests/kafka/join_flow.py:flow"
START_S = 1_700_000_000
USERS = 6
AHEAD_S = 6


class Feed:
    """Payments and logins of some users, one of each a second, logins a few seconds ahead in their topic.

    So whatever a payment may see lies in the log before the payment does: what it sees is the same however workers read.
    """

    def __init__(self, flow: Flow) -> None:
        self._producer = Producer({**flow.kafka, "partitioner": "murmur2_random", "linger.ms": 5})
        self._prefix, self._stop = flow.prefix, threading.Event()
        self.seconds = 0

    def _send(self, topic: str, user: int, ts: int, **numbers: float) -> None:
        value = json.dumps({"user": f"u{user}", "ts": ts, **numbers}).encode()
        self._producer.produce(f"{self._prefix}.{topic}", value, f"u{user}".encode())

    def second(self, now: int) -> None:
        for user in range(USERS):
            if now % (user + 1) == 0:
                self._send("logins", user, START_S + now, risk=float(now))
            if now >= AHEAD_S:
                self._send("paid", user, START_S + now - AHEAD_S, amount=float(now - AHEAD_S))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Produce some hundred records a second until `stop`."""

        def produce() -> None:
            for now in itertools.count():
                self.second(now)
                self._producer.poll(0)
                self.seconds = now + 1
                if self._stop.wait(0.02):
                    return

        self._thread = threading.Thread(target=produce)
        self._thread.start()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Produce no more, and have all of it delivered."""
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(20) == 0

    def expected(self) -> dict[tuple[str, int], list[float]]:
        """User and time -> own count and sum, logins seen, their sum, the last of them."""
        found = {}
        for user in range(USERS):
            logins = [t for t in range(self.seconds) if t % (user + 1) == 0]
            for t in range(self.seconds - AHEAD_S):
                own = range(max(0, t - 9), t + 1)
                seen = [u for u in logins if t - 8 <= u <= t + 4]
                found[f"u{user}", t] = [len(own), sum(own), len(seen), sum(seen), seen[-1] if seen else 0.0]
        return found


def results(flow: Flow, count: int) -> dict[tuple[str, int], list[float]]:
    """The same from predictions; a repeated one is an error of the test's claim."""
    found: dict[tuple[str, int], list[float]] = {}
    for prediction in flow.predictions(count):
        features = prediction["features"]
        assert isinstance(features, dict)
        place = str(prediction["key"]), round(features["last"])
        assert place not in found, f"{place} was predicted twice"
        found[place] = [features[name] for name in ("n", "mean", "std", "min", "max")]
    return found


@pytest.mark.parametrize("protocol", ["classic", pytest.param("consumer", marks=pytest.mark.again)])
def test_a_worker_is_killed(kafka: str, models: Path, protocol: str) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models, FLOW)
    flow.environment["STREAMER_KEYS_MAX"] = "1000"
    if protocol == "consumer":
        flow.environment["KAFKA_GROUP_PROTOCOL"] = "consumer"
        del flow.environment["KAFKA_SESSION_TIMEOUT_MS"]
    feed = Feed(flow)
    with flow.running("--slot", "a"), feed.running():
        with flow.running("--slot", "b", ends=signal.SIGKILL):
            assert len(flow.predictions(USERS * 100)) >= USERS * 100
        # A new worker in the slot of the dead one fences what it left open.
        with flow.running("--slot", "b"):
            flow.predictions(USERS * 400)
            feed.stop()
            wanted = feed.expected()
            assert len(results(flow, len(wanted))) == len(wanted)
    found = results(flow, len(wanted))
    assert found.keys() == wanted.keys()
    assert {place: row for place, row in found.items() if row != pytest.approx(wanted[place])} == {}


def test_partition_counts_must_agree(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models, FLOW)
    flow.environment["STREAMER_KEYS_MAX"] = "1000"
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_partitions([NewPartitions(f"{flow.prefix}.logins", 6)]).values():
        future.result(20)
    with pytest.raises(AssertionError, match="has 4 partitions") as caught:
        flow.command("run", FLOW, "--group", flow.prefix, "--models", str(models), "--http", "off")
    assert f"{flow.prefix}.logins, which is joined to it, has 6" in str(caught.value)


def test_the_doctor_sees_that_producers_have_different_partitioners(kafka: str, models: Path) -> None:
    """One as it should be, one as confluent-kafka and kcat have it unless told otherwise."""
    flow = Flow({"bootstrap.servers": kafka}, models, FLOW)
    flow.environment["STREAMER_KEYS_MAX"] = "1000"
    for topic, more in (("paid", {"partitioner": "murmur2_random"}), ("logins", {})):
        producer = Producer({**flow.kafka, **more})
        for n in range(100):
            key = f"u{n}"
            value = json.dumps({"user": key, "ts": START_S, "amount": 1.0, "risk": 1.0}).encode()
            producer.produce(f"{flow.prefix}.{topic}", value, key.encode())
        assert producer.flush(20) == 0
    words = ["doctor", FLOW, "--group", flow.prefix, "--models", str(models)]
    done = subprocess.run(
        [sys.executable, "-m", "streamer", *words], cwd=ROOT, env=flow.environment, capture_output=True, text=True, check=False
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL partitioner")]
    assert done.returncode == 1
    assert len(failed) == 1, done.stdout
    assert f"{flow.prefix}.logins by crc32, {flow.prefix}.paid by murmur2" in failed[0]
