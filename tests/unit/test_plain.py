"""Text of strangers never steers a terminal: not from records, keys, headers, errors or logs, on any way out."""

import ast
import io
import json
import logging
import re
import unicodedata
from pathlib import Path
from typing import Any, Literal, cast

import orjson
import pytest
from confluent_kafka import Message
from rich.console import Console

from streamer import cli
from streamer.cli.check import Check
from streamer.cli.tail import _READABLE, What, _dead_letter_json, _json_line
from streamer.errors import StreamerError
from streamer.live.numbers import Share, Status, Watch
from streamer.live.view import Frame, draw, line
from streamer.telemetry.logs import configure_logs, get_logger
from streamer.telemetry.metrics import Metrics
from streamer.telemetry.plain import plain, plain_json, plain_lines
from streamer.telemetry.steps import STAGES
from streamer.web.app import build
from tests.kit.tailed import HEADERS, PREDICTION, FakeMessage
from tests.kit.watched import Client, Watched

# Title, colours, a forged line, C1's CSI, a bidi override, zero width, a tag, half a surrogate pair.
EVIL = "k\x1b]0;owned\x07\x1b[2J\r\nforged\x9b31m\u202eback\u200b\u2066\ufeff\U000e0041\x7f\u2028"
FORBIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def assert_safe(text: str, lines: int = 1) -> None:
    assert not FORBIDDEN.findall(text), ascii(text)
    assert len(text.splitlines()) == lines, ascii(text)
    assert not any(part.startswith("forged") for part in text.splitlines())


def message(value: bytes | None, **more: Any) -> Message:
    return cast("Message", FakeMessage(value, **more))


def test_every_control_and_every_invisible_character_is_escaped() -> None:
    for code in range(0x110000):
        char = chr(code)
        kind = unicodedata.category(char)
        hidden = kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF")
        if hidden or unicodedata.bidirectional(char) in ("LRI", "RLI", "FSI", "PDI", "BN"):
            assert plain(char) != char, hex(code)
            assert plain(char).isascii()


def test_readable_text_stays_as_it_is() -> None:
    for text in ("sensor-1", "Zürich/Ост/東京", "C:\\new", "مرحبا", "🙂", " a  b "):
        assert plain(text) == text
        assert plain_lines(text) == text
        assert plain_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("what", list(What), ids=lambda what: str(what.value))
@pytest.mark.parametrize("field", ["key", "window_n", "feature", "header", "not of this service", "window"])
def test_tail_for_people(what: What, field: str) -> None:
    drivers = [{"feature": EVIL, "value": 1.0, "deviation": 2.0}] if field == "feature" else []
    value = orjson.dumps(PREDICTION | {"drivers": drivers} | ({field: EVIL} if field in PREDICTION else {}))
    if field == "not of this service":
        value = EVIL.encode()
    headers = dict.fromkeys(HEADERS, EVIL) if field == "header" else HEADERS
    shown = _READABLE[what](message(value, headers=headers))
    assert_safe(shown, 2 if what in (What.DEAD_LETTERS, What.LATE_EVENTS) else 1)


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"key": EVIL, "score": 1.5}, ensure_ascii=False).encode(),
        b'{\n "key": "\x7f\xc2\x9b",\r\n "n": 1e3}',
        b'{"n": 123456789012345678901234567890.10}',
        EVIL.encode(),
        b'{"key": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"",
        None,
    ],
)
def test_tail_as_json_is_one_json_value_a_line(value: bytes | None) -> None:
    shown = _json_line(message(value))
    assert_safe(shown)
    try:
        published = json.loads((value or b"null").decode("utf-8"))
    except ValueError:
        published = {"origin": "t/0/9", "not_json": (value or b"").decode("utf-8", "replace")}
    assert json.loads(shown) == published
    assert "1234567890.10" in shown if b"1234567890.10" in (value or b"") else True, "numbers stay to the digit"


def test_dead_letters_as_json() -> None:
    shown = _dead_letter_json(message(EVIL.encode(), key=EVIL.encode(), headers=HEADERS | {"detail": EVIL}))
    assert_safe(shown)
    assert {orjson.loads(shown)[name] for name in ("key", "value", "detail")} == {EVIL}


def frame() -> Frame:
    watch = Watch(Metrics())
    watch.look(0.0)
    anomaly = PREDICTION | {"key": EVIL, "drivers": [{"feature": EVIL, "value": 1.0, "deviation": 2.0}]}
    return Frame(
        title=EVIL, notice=EVIL, seconds=1.0, fed=1, total=2, status=Status("running", EVIL, good=True), rates=watch.rates(),
        shares={stage: Share(0.0, 0.0) for stage in STAGES}, lag=0, latency=watch.latency(), predicted=0, anomalous=0, dead=0,
        anomalies=[anomaly],
    )  # fmt: skip


def test_the_live_view() -> None:
    console = Console(width=300, height=40, file=io.StringIO(), color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(draw(frame(), 300, 40))
    assert not FORBIDDEN.findall(captured.get()), ascii(captured.get())
    assert not re.search(r"^\s*forged", captured.get(), re.MULTILINE)
    assert_safe(line(frame()))


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("fmt", ["json", "console"])
def test_logs(fmt: Literal["json", "console"]) -> None:
    stream = io.StringIO()
    configure_logs(fmt=fmt, stream=stream)
    log = get_logger("x")
    log.info("rolling_back", error=EVIL.replace(" ", ""), nested={"deep": [EVIL]}, topic=EVIL)
    logging.getLogger("librdkafka").error("FAIL %s", EVIL)
    assert_safe(stream.getvalue(), 2)
    log.error("failed", exc_info=ValueError(EVIL))
    assert_safe(stream.getvalue(), len(stream.getvalue().splitlines()))
    if fmt == "json":
        assert json.loads(stream.getvalue().splitlines()[0])["event"] == "rolling_back"


def test_errors_of_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StreamerError(EVIL)

    monkeypatch.setattr("typer.Typer.__call__", refuse)
    with pytest.raises(SystemExit):
        cli.app()
    written = capsys.readouterr().err
    assert written.startswith("streamer: k")
    assert_safe(written, 2)


def test_doctor_and_health() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream := io.StringIO())
        cli.say.say(str(Check(ok=False, what=f"topic {EVIL}", fix=EVIL)))
    assert_safe(stream.getvalue(), 3)
    answer = Client(build(Watched(waits=EVIL))).get("/health/ready")
    assert_safe(answer.text)


def test_commands_have_no_other_way_out() -> None:
    """What a command prints goes through `streamer.cli.say`; `tail` and `foot` write what they have made safe."""
    for path in sorted(Path(cli.__file__).parent.glob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        found = {ast.unparse(call) for call in calls} & {
            "print", "typer.echo", "typer.secho", "click.echo", "sys.stdout.write", "sys.stdout.writelines", "sys.stderr.write",
        }  # fmt: skip
        allowed = {"say": {"typer.echo"}, "tail": {"sys.stdout.writelines"}, "foot": {"sys.stderr.write"}}.get(path.stem, set())
        assert found <= allowed, f"{path.name}: {found - allowed}"
