"""Clients reach the broker through SASL/SCRAM, and only with the right password."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from streamer.dev_broker import BrokerError, DevBroker


def test_produce_and_consume_through_scram(sasl_config: dict[str, str], make_topic: Callable[..., str]) -> None:
    name = make_topic("sasl", partitions=1)
    producer = Producer(sasl_config)
    producer.produce(name, b"through scram")
    assert producer.flush(20) == 0
    consumer = Consumer({**sasl_config, "group.id": f"{name}-reader", "auto.offset.reset": "earliest"})
    consumer.subscribe([name])
    deadline = time.monotonic() + 20
    message = None
    while message is None and time.monotonic() < deadline:
        message = consumer.poll(1)
    consumer.close()
    assert message is not None
    assert message.error() is None
    assert message.value() == b"through scram"


@pytest.mark.parametrize("wrong", [{"sasl.password": "wrong"}, {"sasl.username": "nobody"}])
def test_wrong_credentials_are_refused(sasl_config: dict[str, str], wrong: dict[str, str]) -> None:
    seen: list[KafkaError] = []
    config: dict[str, Any] = {**sasl_config, **wrong, "error_cb": seen.append, "log_level": 0}
    client = AdminClient(config)
    deadline = time.monotonic() + 20
    while not seen and time.monotonic() < deadline:
        client.poll(0.1)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=0.5)
    assert any(error.code() == KafkaError._AUTHENTICATION for error in seen)


def test_the_plain_protocol_does_not_pass_on_the_sasl_listener(broker: DevBroker) -> None:
    client = AdminClient({"bootstrap.servers": broker.sasl_bootstrap, "log_level": 0})
    with pytest.raises(KafkaException):
        client.list_topics(timeout=1)


def test_a_broker_without_sasl_says_so(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="no SASL listener"):
        _ = DevBroker(tmp_path).sasl_bootstrap
