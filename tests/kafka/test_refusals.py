"""What a broker refuses for good: records larger than their topic takes, and topics that are not there."""

import json
import re
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from streamer import Event, Model, Topology
from streamer.errors import TopicError
from streamer.planning.plan import plan_of
from streamer.settings.settings import Settings
from streamer.testing import constant, stand_in
from streamer.worker.parts import parts_of
from tests.conftest import TopicFactory
from tests.kit.service import WAIT_S, Flow, expected, models, same, seen

__all__ = ["models"]
LONG = "k" * 500


def limit(kafka: str, topic: str, size: int) -> None:
    """Set `max.message.bytes` of a topic."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka})
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(20)


def test_a_result_too_large_for_its_topic_is_a_dead_letter_and_whole_batches_pass(kafka: str, models: Path) -> None:
    """The limit is on a batch of records: without a smaller one of ours those of short keys would be refused too."""
    flow = Flow({"bootstrap.servers": kafka}, models)
    limit(kafka, f"{flow.prefix}.predictions", 1_000)
    limit(kafka, f"{flow.prefix}.dead", 1_024)
    value = json.dumps({"sensor_id": LONG, "ts": 1.7e9, "value": 1.0, "note": "n" * 2_000}).encode()
    flow.producer.produce(f"{flow.prefix}.in", value, LONG.encode())
    flow.send(500)
    with flow.running():
        assert same(seen(flow.predictions(500)), expected(500))
        (letter,) = flow.committed(f"{flow.prefix}.dead", 1)
        headers = dict(letter.headers() or [])
        assert headers["streamer.error.reason"] == b"too_large"
        assert f"{flow.prefix}.predictions takes" in str(headers["streamer.error.detail"])
        assert LONG.encode().startswith(letter.key() or b"-")
        assert headers["streamer.error.truncated"] == str(len(value)).encode()
        assert "rolling_back" not in flow.log.read_text()


def test_a_limit_that_is_lowered_makes_it_wait_and_name_the_record(kafka: str, models: Path) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models)
    topic = f"{flow.prefix}.predictions"
    flow.send(20)
    with flow.running():
        assert len(flow.predictions(20)) == 20
        limit(kafka, topic, 100)
        flow.send(20)
        # The first try does not know yet which record it was.
        named = re.compile(rf"{topic}/\d refuses a record \(id '{flow.prefix}.in/\d/\d+', \d+ bytes.* raise max.message.bytes")
        until = time.monotonic() + WAIT_S
        while not named.search(flow.log.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        assert named.search(flow.log.read_text())
        limit(kafka, topic, 1_048_588)
        assert same(seen(flow.predictions(40)), expected(40))


def test_a_topic_that_is_not_there_is_told_before_anything_is_read(kafka: str, topic: TopicFactory) -> None:
    source, letters, missing = topic("in", 1), topic("dead", 1), f"missing-{uuid.uuid4().hex}"

    class Reading(Event, topic=source, key="id"):
        id: str
        value: float

    flow = (
        Topology("refused").source(Reading, dead_letters=letters).features(lambda w: {"v": w.event("value")})
        .infer(Model("any")).publish(predictions=missing)
    )  # fmt: skip
    settings = Settings.model_validate({"kafka": {"common": {"bootstrap.servers": kafka}}, "group": missing})
    plan = plan_of(flow, settings, Path(), model=stand_in(constant(0.0)))
    with pytest.raises(TopicError, match=f"{missing}.*streamer topics create"):
        parts_of(plan, settings)
