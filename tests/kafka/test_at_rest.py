"""Behind a transactional producer the group's lag comes to rest at 0, as every tool sees it."""

import json
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.kit.service import PARTITIONS, WAIT_S, Flow, models

__all__ = ["models"]


@pytest.mark.again  # half a minute, and unit/test_at_rest.py has what we decide
def test_lag_behind_transactions_comes_to_rest(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models)
    topic = f"{flow.prefix}.in"
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": flow.prefix})
    producer.init_transactions(20)
    outside = Consumer({"bootstrap.servers": kafka, "group.id": flow.prefix, "enable.auto.commit": False})

    def transaction(rows: int, *, aborted: bool = False) -> None:
        producer.begin_transaction()
        for n in range(rows):
            value = json.dumps({"sensor_id": f"s{n}", "ts": 1.7e9, "value": 1.0}).encode()
            producer.produce(topic, value, f"s{n}".encode(), partition=n % PARTITIONS)
        producer.flush(20)
        (producer.abort_transaction if aborted else producer.commit_transaction)()

    def lag() -> list[tuple[int, int]]:
        """End and committed offset of the partitions that have a lag."""
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        ends = [outside.get_watermark_offsets(place, timeout=20)[1] for place in places]
        both = zip(ends, outside.committed(places, timeout=20), strict=True)
        return [(end, tp.offset) for end, tp in both if end != max(tp.offset, 0)]

    def after_a_while() -> list[tuple[int, int]]:
        until = time.monotonic() + WAIT_S
        while (left := lag()) and time.monotonic() < until:
            time.sleep(0.2)
        return left

    def comes_to_rest() -> None:
        assert after_a_while() == [], flow.log.read_text()

    transaction(20)
    with flow.running():
        comes_to_rest()
        transaction(20, aborted=True)
        comes_to_rest()
    transaction(20)
    with flow.running():  # a restore behind such an end
        comes_to_rest()
        assert len(flow.predictions(40)) == 40
        assert "rolling_back" not in flow.log.read_text()
    outside.close()
