"""One stream of logs: libraries speak in it as events, and none of them can flood it."""

import ast
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import streamer
from streamer import limits
from streamer.clock import ManualClock
from streamer.inference.model import LoadedModel
from streamer.inference.repository import ModelFile
from streamer.telemetry.logs import configure_logs, get_logger
from streamer.telemetry.restraint import Kind, RestrainedHandler, Restraint

OURS, THEIRS = Kind("streamer.worker.worker", "rolling_back", ""), Kind("librdkafka", "kafka_client", "FAIL")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    target = io.StringIO()
    configure_logs(fmt="json", stream=target)
    yield target
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was written, the end of the process included."""
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, RestrainedHandler))
    handler.close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_of_a_kind_the_first_few_pass_and_the_rest_is_counted() -> None:
    clock = ManualClock()
    restraint = Restraint(clock)
    assert [restraint.passes(THEIRS) for _ in range(400)] == [True] * 3 + [False] * 397
    assert [restraint.passes(OURS) for _ in range(60)].count(True) == limits.LOG_LINES_OURS_MAX
    assert restraint.passes(THEIRS._replace(source="MAXPOLL")), "another kind has its own count"
    assert list(restraint.over()) == []
    clock.advance(limits.LOG_WINDOW_S)
    assert dict(restraint.over()) == {THEIRS: 397, OURS: 10}
    assert list(restraint.over()) == []
    assert restraint.passes(THEIRS)


def test_many_kinds_take_no_memory_and_are_not_held_back() -> None:
    restraint = Restraint(ManualClock())
    assert all(restraint.passes(Kind("x", f"event {number}", "")) for number in range(3 * limits.LOG_KINDS_MAX))
    assert restraint.passes(Kind("x", "event 0", ""))


def test_a_client_whose_broker_is_away_says_it_a_few_times(stream: io.StringIO) -> None:
    for number in range(400):
        get_logger("librdkafka").error("kafka_client", source="FAIL", client=f"rdkafka#{number}", text="Connection refused")
    logging.getLogger("some.library").warning("retry %d", 1)
    *written, last = lines(stream)
    assert [line["event"] for line in written] == ["kafka_client"] * 3 + ["retry 1"]
    assert (last["event"], last["lines"], last["said"], last["source"]) == ("held_back", 397, "kafka_client", "FAIL")


def test_lines_of_a_library_are_alike_by_what_they_are_filled_into(stream: io.StringIO) -> None:
    for number in range(10):
        logging.getLogger("some.library").warning("retry %d of %s", number, "broker")
    written = lines(stream)
    assert [line["event"] for line in written[:3]] == [f"retry {number} of broker" for number in range(3)]
    assert (len(written), written[3]["lines"], written[3]["said"]) == (4, 7, "retry %d of %s")


def test_the_kafka_client_speaks_in_our_log_and_not_to_stderr() -> None:
    """In a process of its own, for what is written to file descriptor 2 from C is seen only there."""
    code = """
from streamer.kafka.clients import KafkaClients
from streamer.telemetry.logs import configure_logs
configure_logs(fmt="json")
nowhere = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}
for client in (KafkaClients().consumer(nowhere), KafkaClients().producer(nowhere), KafkaClients().admin(nowhere)):
    try:
        client.list_topics(timeout=0.3)
    except Exception:
        pass
    client.poll(0.1)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    written = [json.loads(line) for line in ran.stderr.splitlines()]
    said = [line for line in written if line["event"] == "kafka_client" and line["source"] == "FAIL"]
    assert 1 <= len(said) <= limits.LOG_LINES_THEIRS_MAX
    assert "Connection refused" in said[0]["text"]
    assert said[0]["client"].startswith("rdkafka#")
    assert sum(line["lines"] for line in written if line["event"] == "held_back") >= 1
    assert ran.stdout == ""


def test_onnx_runtime_speaks_in_our_log(stream: io.StringIO, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unused = helper.make_tensor("unused", TensorProto.FLOAT, [1], [1.0])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 3])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])], [unused, shape],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    model = LoadedModel.load(ModelFile("m", 1, path), max_batch=4)
    for _ in range(10):
        with pytest.raises(Exception, match="cannot be reshaped"):
            model.run({"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}, 1)
    written = lines(stream)
    assert {line["event"] for line in written} == {"engine", "held_back"}
    assert {line["logger"] for line in written} == {"onnxruntime"}
    assert any(line["level"] == "warning" and "unused" in line.get("text", "") for line in written)
    assert sum(line["level"] == "error" for line in written) == limits.LOG_LINES_THEIRS_MAX
    assert capfd.readouterr() == ("", "")


def test_every_client_is_made_where_its_log_is_ours() -> None:
    package = Path(streamer.__file__).parent
    for path in sorted(package.rglob("*.py")):
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        made = {"Consumer", "Producer", "AdminClient"} & set(calls)
        assert not made or path.relative_to(package).as_posix() in ("kafka/clients.py", "dev_broker/dev.py"), f"{path}: {made}"
