"""A canary password that must not get out: not in any form, by any log, by any command."""

import base64
import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest

from streamer import cli
from streamer.settings.secrets import know, redacted
from streamer.settings.settings import Settings
from streamer.telemetry.logs import configure_logs, get_logger, tell_of_bugs

CORE = "c4n4ry91ce"
# Everything that one form or another writes differently.
CANARY = f"""{CORE}-"q"'s'\\n/ü +%&=:@;{CORE}"""
PEM = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(f"{CORE}{line}{'A' * 40}" for line in "abc") + "\n-----END PRIVATE KEY-----"


def forms() -> dict[str, str]:
    data = CANARY.encode()
    return {
        "as it is": CANARY,
        "repr": repr({"x": CANARY}),
        "repr of bytes": repr(data),
        "ascii": ascii(CANARY),
        "JSON": json.dumps({"x": CANARY}),
        "JSON of orjson": orjson.dumps([CANARY]).decode(),
        "JSON in JSON": json.dumps(json.dumps({"x": CANARY})),
        "URL": f"https://host/?p={quote(CANARY)}&q={quote_plus(CANARY)}&r={quote(CANARY, safe='')}",
        "URL, small digits": re.sub("%..", lambda found: found[0].lower(), quote(CANARY, safe="")),
        "base64": f"p={base64.b64encode(data).decode()} {base64.urlsafe_b64encode(data).decode()}",
        "SASL PLAIN": base64.b64encode(b"\0ann\0" + data).decode(),
        "Basic": base64.b64encode(b"ann:" + data).decode(),
        "hex": data.hex(),
    }


def leaked(text: str) -> list[str]:
    """What of the canary is in a text: its core, or a form in which that cannot be read."""
    tokens = {"core": CORE, "hex": CORE.encode().hex()}
    for before in ("", "\0ann\0", "ann:"):
        for shift in range(3):  # base64 of the core wherever it lies among three bytes
            whole = base64.b64encode((" " * shift + CORE).encode()).decode()
            tokens[f"base64 {before!r} {shift}"] = whole[4:-4]
    return [name for name, token in tokens.items() if token in text]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, hooks = logging.getLogger(), (threading.excepthook, sys.unraisablehook)
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    threading.excepthook, sys.unraisablehook = hooks
    know(())


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", CANARY)
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "ann")
    monkeypatch.setenv("KAFKA_SSL_KEY_PEM", PEM)
    return Settings.load()


def test_the_check_sees_a_leak_in_every_form() -> None:
    assert [name for name, text in forms().items() if not leaked(text)] == []


@pytest.mark.parametrize("form", list(forms()))
def test_a_form_is_cut_out_of_text(form: str, settings: Settings) -> None:
    assert leaked(redacted(f"before {forms()[form]} behind")) == []
    assert redacted(f"before {forms()[form]} behind").startswith("before ")
    assert redacted(f"before {forms()[form]} behind").endswith(" behind")
    assert settings.secrets()


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_logs(fmt: Any, settings: Settings) -> None:
    stream = io.StringIO()
    configure_logs("debug", fmt, stream, secrets=settings.secrets())
    log = get_logger("streamer.x")
    for text in forms().values():
        log.info(text, field=text, inner={"deep": [text, {text}]}, key={text: 1}, deeper={"a": {"b": {text: {"c": (text,)}}}})
        log.info("too deep", a={"a": {"a": {"a": {"a": {"a": {"a": {text: text}}}}}}})
        logging.getLogger("librdkafka").error("conf %s", {text: text, "x": text.encode()})
        log.error("failed", exc_info=ValueError(text))
    log.info("settings", settings=settings, rows=settings.describe(), config=settings.admin_config())
    log.info("a line of a key", line=PEM.splitlines()[2], text=f"cannot parse {PEM.splitlines()[1]!r}")
    assert leaked(stream.getvalue()) == []
    assert stream.getvalue().count("***") > 20


@pytest.mark.parametrize(
    "text",
    [
        f'password="{CORE} {CORE}"', f"password: '{CORE} x{CORE}'", f'{{"password": "{CORE} a\\"{CORE}"}}', f"api_key={CORE}",
        json.dumps(json.dumps({"secret": f"{CORE} {CORE}"})), f"https://ann:{CORE}@host/", f"Authorization: Bearer {CORE}",
        f"'authorization': 'Basic {CORE}'", f"got Bearer {CORE}{CORE}{CORE}",
    ],
)  # fmt: skip
def test_unknown_secrets_are_known_by_what_stands_before_them(text: str) -> None:
    know(())
    assert leaked(redacted(text)) == []
    assert redacted("a basic question of tokens: none") == "a basic question of tokens: none"


def test_tracebacks_of_threads_and_of_objects_that_die(settings: Settings) -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream, secrets=settings.secrets())
    tell_of_bugs()

    class Dies:
        def __del__(self) -> None:
            raise ValueError(CANARY)

    def fail() -> None:
        raise ValueError(CANARY)

    thread = threading.Thread(target=fail, name="the-one")
    thread.start()
    thread.join()
    Dies()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in told] == ["thread_failed", "failed_unheard"]
    assert all("ValueError" in line["exception"] for line in told)
    assert leaked(stream.getvalue()) == []


COMMANDS = {
    "run": ["run", "{flow}"], "doctor": ["doctor", "{flow}"], "plan": ["topics", "plan", "{flow}"],
    "create": ["topics", "create", "{flow}"], "feed": ["feed", "{flow}", "generator"], "tail": ["tail", "{flow}"],
    "show": ["state", "show", "{flow}", "k"], "reset": ["state", "reset", "{flow}", "--to", "latest", "--yes"],
}  # fmt: skip


@pytest.mark.parametrize("failure", ["a setting is wrong", "the topology fails", "a bug"])
@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.usefixtures("settings")
def test_commands(
    command: str, failure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No broker is asked: what goes wrong does so before, with the password in the middle of it."""
    flow, arguments = tmp_path / "flow.py", list(COMMANDS[command])
    secret = "import os\nfrom pathlib import Path\nsecret = os.environ['KAFKA_SASL_PASSWORD']\n"
    flow.write_text(secret + ("exit_now = {}[secret]" if failure == "the topology fails" else ""))
    if failure == "a setting is wrong":
        config = tmp_path / "streamer.toml"
        config.write_text(f'[kafka.common]\n"sasl.pasword" = {json.dumps(CANARY)}\nhttp = 3\n')
        arguments += ["--config", str(config)]
    if failure == "a bug":
        module = {"run": "serve", "plan": "topics", "create": "topics", "show": "state", "reset": "state"}.get(command, command)
        monkeypatch.setattr(f"streamer.cli.{module}.load_topology", lambda _: {"a": 1}[CANARY])
    monkeypatch.setattr(sys, "argv", ["streamer", *(part.format(flow=f"{flow}:flow") for part in arguments)])
    with pytest.raises(SystemExit) as end:
        cli.app()
    written = capfd.readouterr()
    assert end.value.code != 0
    assert leaked(written.out + written.err) == []
    if failure == "a bug":
        assert "KeyError" in written.err
