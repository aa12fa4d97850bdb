"""Predictions that wait for labels on a real broker: they outlive a worker that is killed, and leave once."""

import json
import signal
import time
from pathlib import Path

from confluent_kafka import Producer

from tests.kit.service import Flow, models

__all__ = ["models"]
FLOW = "tests/kafka/match_flow.py:flow"
DAY_S = 86_400
ROWS = 60


def test_who_waits_outlives_a_worker(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models, FLOW)
    producer, now = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"}), time.time()

    def send(topic: str, record_key: str, **fields: object) -> None:
        producer.produce(f"{flow.prefix}.{topic}", json.dumps(fields).encode(), record_key.encode())

    for n in range(ROWS):  # the time of each second one is over before its label could come
        send("scored", f"p{n}", id=f"paid/0/{n}", key=f"p{n}", time=now - n % 2 * 2 * DAY_S, score=n / 100)
    assert producer.flush(20) == 0
    with flow.running("--slot", "a", ends=signal.SIGKILL):
        assert len(flow.committed(f"{flow.prefix}.unmatched", ROWS // 2)) == ROWS // 2
    with flow.running("--slot", "a"):
        for n in range(ROWS):
            send("labels", f"p{n}", payment=f"p{n}", at=now + 5, fraud=n % 4 == 0)
        assert producer.flush(20) == 0
        matched = [json.loads(message.value() or b"") for message in flow.committed(f"{flow.prefix}.matched", ROWS // 2)]
    unmatched = [json.loads(message.value() or b"") for message in flow.committed(f"{flow.prefix}.unmatched", ROWS // 2)]
    assert sorted(row["id"] for row in matched) == sorted(f"paid/0/{n}" for n in range(0, ROWS, 2))
    assert sorted(row["id"] for row in unmatched) == sorted(f"paid/0/{n}" for n in range(1, ROWS, 2))
    assert {row["delay_s"] for row in matched} == {5.0}
    assert all(row["label"]["fraud"] == (int(row["key"][1:]) % 4 == 0) for row in matched)
    doctor = flow.command("doctor", FLOW, "--group", flow.prefix)
    assert "the topology needs no model" in doctor
