"""What a broker refuses for good: records larger than their topic takes."""

import json
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from tests.kafka.test_service import Flow, expected, models, same, seen

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
    limit(kafka, f"{flow.prefix}.rejected", 1_024)
    value = json.dumps({"sensor_id": LONG, "ts": 1.7e9, "value": 1.0, "note": "n" * 2_000}).encode()
    flow._producer.produce(f"{flow.prefix}.in", value, LONG.encode())
    flow.send(500)
    with flow.running():
        assert same(seen(flow.predictions(500)), expected(500))
        (letter,) = flow.committed(f"{flow.prefix}.rejected", 1)
        headers = dict(letter.headers() or [])
        assert headers["streamer.error.reason"] == b"too_large"
        assert f"{flow.prefix}.predictions takes" in str(headers["streamer.error.detail"])
        assert LONG.encode().startswith(letter.key() or b"-")
        assert headers["streamer.error.truncated"] == str(len(value)).encode()
        assert "rolling_back" not in flow.log.read_text()
