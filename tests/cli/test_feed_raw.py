"""Files as records, for a source that reads values as they are."""

from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from typer.testing import CliRunner

from streamer.cli import app
from streamer.cli.tail import _raw_dead_letter_json
from streamer.clock import ManualClock
from streamer.feeding.pace import Pace
from streamer.feeding.rows import FeedError
from streamer.feeding.send import Feeder
from streamer.feeding.whole import WholeFiles
from tests.kit.fed import FakeProducer
from tests.kit.tailed import FakeMessage

TOPOLOGY = """
from streamer import Event, Model, Topology

class Frame(Event, topic="frames"):
    value: bytes

flow = (
    Topology("frames").source(Frame, format="raw", dead_letters="dead")
    .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions="out")
)
"""


def test_each_file_is_a_record(tmp_path: Path) -> None:
    for name, data in {"b.jpg": b"\xff\xd8\n\n", "a.bin": b"", "c.csv": b"id,x\n1,2\n"}.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in ("b.jpg", "a.bin", "c.csv")]
    files = WholeFiles(paths)
    assert files.total() == 3
    assert list(files.times_us()) == []
    assert [(row.key, row.value, row.moved(5).time_us) for row in files.rows()] == [
        (None, b"\xff\xd8\n\n", 0), (None, b"", 0), (None, b"id,x\n1,2\n", 0),
    ]  # fmt: skip
    assert [row.key for row in WholeFiles(paths, key_from_file=True).rows()] == [b"b", b"a", b"c"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"cannot read .*none\.jpg: No such file"):
        list(WholeFiles([tmp_path / "none.jpg"]).rows())


def test_a_file_larger_than_any_topic_takes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.feeding.whole.FEED_LINE_CHARS_MAX", 9)
    (tmp_path / "a").write_bytes(b"x" * 9)
    (tmp_path / "b").write_bytes(b"x" * 10)
    assert len(list(WholeFiles([tmp_path / "a"]).rows())) == 1
    with pytest.raises(FeedError, match="b: more than 9 bytes; each file is fed as one record"):
        list(WholeFiles([tmp_path / "b"]).rows())


class Narrow(FakeProducer):
    """A producer that takes two bytes."""

    def produce(self, topic: str, value: bytes | None, key: bytes | None, on_delivery: Any) -> None:
        if len(value or b"") > 2:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        super().produce(topic, value, key, on_delivery)


def test_a_record_that_the_producer_does_not_take_has_failed_and_the_others_go(tmp_path: Path) -> None:
    for name, size in (("a", 1), ("b", 3), ("c", 2)):
        (tmp_path / name).write_bytes(b"x" * size)
    producer = Narrow(ManualClock())
    feeder = Feeder(cast("Producer", producer), "frames", producer.clock)
    feeder.feed(WholeFiles([tmp_path / name for name in "abc"]).rows(), Pace())
    assert (feeder.sent, feeder.delivered, feeder.failed) == (3, 2, 1)
    assert "size" in feeder.last_error


@pytest.mark.parametrize(("arguments", "says"), [
    (["generator"], "the generator makes fields, and frames reads format='raw'; feed files"),
    (["a.jpg", "--speed", "1"], "--speed needs event times, and Frame has no time field"),
])  # fmt: skip
def test_what_goes_by_fields_is_refused(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "flow.py").write_text(TOPOLOGY)
    runner = CliRunner(env={"TERM": "dumb", "COLUMNS": "200"})
    result = runner.invoke(app, ["feed", f"{tmp_path / 'flow.py'}:flow", *arguments])
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())


def test_a_dead_letter_of_any_bytes_can_be_had_back() -> None:
    message = FakeMessage(b"\xff\x00", key=b"k", headers={"reason": "wrong_type"})
    assert orjson.loads(_raw_dead_letter_json(cast("Message", message))) == {
        "reason": "wrong_type", "key": "k", "value": "\ufffd\x00", "value_base64": "/wA=",
    }  # fmt: skip
