"""Tables that repeat what the code says cannot drift from it: settings, metrics, reasons, limits, exit codes, logs."""

import ast
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from streamer import errors, limits
from streamer.dev_broker import errors as broker_errors
from streamer.kafka.admin import acls
from streamer.operators.rekey import receive
from streamer.rows import oversize
from streamer.settings.kafka_keys import _OWNED, refusal
from streamer.settings.settings import Settings
from streamer.stages.produce.encode import dead_letter
from streamer.telemetry.ledger import parts_of
from streamer.telemetry.metrics import TABLE
from streamer.telemetry.steps import Steps
from streamer.topology.loading import load_topology
from streamer.topology.topics import topics_of
from tests.docs.pages import ROOT, Block, blocks, name, pages, rows

DOCS = ROOT / "docs"
SNAKE = re.compile(r'"([a-z0-9]+(?:_[a-z0-9]+)+)"')


def code(cell: str) -> list[str]:
    """Everything between backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def sources(folder: str = "streamer") -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("*.py")))


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a process with an empty environment."""
    for variable in list(os.environ):
        if variable.startswith(("STREAMER_", "KAFKA_")):
            monkeypatch.delenv(variable)
    return Settings.load()


def leaves(model: type[BaseModel], outer: str = "") -> Iterator[str]:
    for field, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{outer}{field}.")
        else:
            yield f"{outer}{field}"


def test_settings_are_all_there(defaults: Settings) -> None:
    table = {code(row[0])[0]: row for row in rows(DOCS / "settings.md", "setting")}
    assert list(table) == [leaf for leaf in leaves(Settings) if not leaf.startswith("kafka.")]
    shown = {row.name: row.value for row in defaults.describe()}
    for setting, (_, default, environment, _) in table.items():
        assert code(environment) == ["STREAMER_" + setting.replace(".", "__").upper()]
        if shown[setting] != "-":
            assert code(default) == [shown[setting]], setting


@pytest.mark.parametrize("row", rows(DOCS / "settings.md", "setting"), ids=lambda row: row[0])
def test_environment_names_work(row: list[str], monkeypatch: pytest.MonkeyPatch, defaults: Settings) -> None:
    """Each documented default, given through its documented variable, is what the setting already is."""
    setting, variable = code(row[0])[0], code(row[2])[0]
    default = next(shown.value for shown in defaults.describe() if shown.name == setting)
    value = "0.5" if default == "-" else default
    monkeypatch.setenv(variable, value)
    loaded = next(shown for shown in Settings.load().describe() if shown.name == setting)
    assert (loaded.value, loaded.origin) == (value, f"environment {variable}")


def test_refused_kafka_keys_are_all_there() -> None:
    table = {code(row[0])[0]: code(row[1]) for row in rows(DOCS / "settings.md", "key")}
    for key, allowed in table.items():
        assert refusal("common", key, "surely-not") is not None, key
        assert [refusal("common", key, value) for value in allowed] == [None] * len(allowed), key
    assert set(table) == set(_OWNED)


def test_metrics_are_all_there() -> None:
    """What is missing is printed as the row to paste."""
    cells = [[f"`{m.name}`", m.kind, ", ".join(f"`{label}`" for label in m.labels) or "-", m.help.rstrip(".")] for m in TABLE]
    page = rows(DOCS / "metrics.md", "metric")
    assert [f"| {' | '.join(row)} |" for row in cells if row not in page] == []
    assert page == cells


def test_metrics_named_anywhere_exist() -> None:
    known = {metric.name for metric in TABLE} | {"streamer_end_to_end_seconds_bucket"}
    for page in pages():
        found = set(re.findall(r"\bstreamer_[a-z_]+(?:_total|_seconds|_records|_seconds_bucket)\b", page.read_text("utf-8")))
        assert found <= known, name(page)


def test_dead_letter_reasons_are_all_there() -> None:
    written = {(reason, stage) for stage in ("decode", "window", "infer") for reason in reasons(stage)}
    written |= {(receive.FOREIGN, "decode"), (oversize.TOO_LARGE, "produce")}
    assert {"oversize", "model_failed"} <= {reason for reason, _ in written}
    documented = [(code(row[0])[0], row[1]) for row in rows(DOCS / "topologies.md", "reason")]
    assert sorted(documented) == sorted(written)


# What closing windows call late is no dead letter.
STAGES = {
    "decode": ["stages/decode/decode", "codecs/codec", "codecs/json", "codecs/raw"],
    "window": ["operators/rolling/stage", "operators/closing/stage"],
    "infer": ["operators/infer/stage"],
}


def reasons(stage: str) -> set[str]:
    """Reason codes in a stage: its only strings with an underscore, and what stands before a sentence."""
    source = "".join((ROOT / f"streamer/{file}.py").read_text("utf-8") for file in STAGES[stage])
    return set(SNAKE.findall(source)) | set(re.findall(r'(?:\(|return )"([a-z0-9_]+)", f?"(?=[^"]* )', source))


def test_dead_letter_headers_are_all_there() -> None:
    from streamer.rows.dead_letter import DeadLetter  # noqa: PLC0415 - with the value that makes all headers appear

    letter = DeadLetter(
        topic="t",
        partition=0,
        offset=0,
        key=b"k",
        value=b"x" * (limits.DEAD_LETTER_BYTES_MAX + 1),
        stage="s",
        reason="r",
        detail="d",
        timestamp_ms=7,
        headers=(("h", b"x" * limits.DEAD_LETTER_HEADERS_BYTES_MAX),),
    )
    _, _, headers = dead_letter(letter, limits.MESSAGE_BYTES_DEFAULT)
    written = {header.removeprefix("streamer.error") for header, _ in headers}
    documented = {word.removeprefix("streamer.error") for row in rows(DOCS / "topologies.md", "header") for word in code(row[0])}
    assert documented == written


def test_limits_are_as_said() -> None:
    table = rows(DOCS / "backpressure.md", "limit")
    assert table
    for constant, value, _ in table:
        assert getattr(limits, code(constant)[0]) == int(value.split()[0].replace(",", "")), constant


def test_ledger_parts_are_all_there() -> None:
    named = parts_of(Steps("rolling-1", "infer-1", "flag-1"))
    assert [code(row[0])[0] for row in rows(DOCS / "latency.md", "part")] == list(named)


def test_exit_codes_are_all_there() -> None:
    kinds = [kind for kind in (*vars(errors).values(), *vars(broker_errors).values()) if isinstance(kind, type)]
    known = {(kind.__name__, str(kind.exit_code)) for kind in kinds if issubclass(kind, errors.StreamerError)}
    table = rows(DOCS / "operations.md", "status")
    assert {(word, row[0]) for row in table for word in code(row[1]) if word.endswith("Error")} == known


def test_log_lines_are_all_there() -> None:
    written = {word for path in sorted((ROOT / "streamer").rglob("*.py")) for word in logged(path.read_text("utf-8"))}
    documented = {word for row in rows(DOCS / "metrics.md", "line") for word in code(row[0])}
    assert {"starting", "rolling_back"} <= written
    assert documented == written


def logged(source: str) -> Iterator[str]:
    """First arguments of `log.info(...)` and its like."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(ast.Attribute(logger, "debug" | "info" | "warning" | "error"), [ast.Constant(str(word)), *_]):
                if "log" in ast.unparse(logger):
                    yield word
            case ast.Call(ast.Attribute(logger, "log"), [_, ast.Constant(str(word)), *_]) if "log" in ast.unparse(logger):
                yield word


def test_access_rights_are_as_printed() -> None:
    topology, _ = load_topology(str(ROOT / "topologies/sensor.py"))
    (block,) = [block for block in blocks(DOCS / "operations.md", "text") if block.text.startswith("allow")]
    assert block.text.splitlines() == acls(topics_of(topology, None), topology.name)


def test_state_errors_are_as_said() -> None:
    table = rows(DOCS / "state.md", "the message says")
    assert [row[0] for row in table if code(row[0])[0] not in joined("streamer/changelog")] == []


def joined(folder: str = "streamer") -> str:
    """The source with texts that go over several lines in one piece."""
    return re.sub(r'"\s*\n\s*f?"', "", sources(folder))


def test_error_messages_in_troubleshooting_exist() -> None:
    """The quoted part of a message stands in the source, f-string seams removed."""
    text = joined()
    said = [part for row in rows(DOCS / "troubleshooting.md", "you see") for part in code(row[0])]
    assert said
    assert [part for part in said if part not in text] == []


TOML = [block for page in pages() for block in blocks(page, "toml")]


@pytest.mark.parametrize("block", TOML, ids=lambda block: block.where)
def test_toml_blocks_load(block: Block, tmp_path: Path, defaults: Settings) -> None:
    tomllib.loads(block.text)
    path = tmp_path / "streamer.toml"
    path.write_text(block.text)
    assert {row.origin for row in Settings.load(path).describe()} > {f"file {path}"}


def test_data_blocks_parse() -> None:
    for page in pages():
        for block in blocks(page, "json"):
            json.loads(block.text)
        for block in blocks(page, "yaml"):
            assert yaml.safe_load(block.text), block.where
