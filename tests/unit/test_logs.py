"""Logs: one stream, one line an event, and a canary password that must not get out by any way."""

import io
import json
import logging
import subprocess
import sys
import warnings
from typing import Any

import pytest

from streamer.settings.kafka_keys import Secret
from streamer.settings.settings import Settings
from streamer.telemetry.logs import configure_logs, get_logger

pytestmark = pytest.mark.usefixtures("logging_as_before")
CANARY = "canary-91ce-Pa55"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fail(message: str, local: object = None) -> None:
    raise RuntimeError(message) from ValueError(message)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_away_from_a_terminal() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    get_logger("streamer.worker.worker").info("assigned", partitions=[0, 3], topic="t")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "assigned",
        "level": "info",
        "logger": "streamer.worker.worker",
        "partitions": [0, 3],
        "topic": "t",
    }


def test_readable_in_a_terminal() -> None:
    stream = Terminal()
    configure_logs(stream=stream)
    get_logger("x").warning("lag_grows", lag=17)
    text = stream.getvalue()
    assert not text.startswith("{")
    assert "lag_grows" in text
    assert "\x1b[" in text
    configure_logs(fmt="json", stream=stream)
    get_logger("x").warning("forced")
    assert json.loads(stream.getvalue().splitlines()[-1])["event"] == "forced"


def test_level_is_kept() -> None:
    stream = io.StringIO()
    configure_logs("warning", stream=stream)
    log = get_logger("x")
    log.info("no")
    log.warning("yes")
    logging.getLogger("library").info("no")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_libraries_speak_the_same_language() -> None:
    stream = io.StringIO()
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.addHandler(logging.StreamHandler(io.StringIO()))
    uvicorn.propagate = False
    configure_logs(stream=stream)
    uvicorn.warning("Invalid HTTP request %s", "received")
    uvicorn.info("Started server process")
    logging.getLogger("uvicorn.access").info("GET /metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a library is unhappy", stacklevel=1)
    first, second = lines(stream)
    assert (first["event"], first["logger"]) == ("Invalid HTTP request received", "uvicorn.error")
    assert (second["logger"], "a library is unhappy" in second["event"]) == ("py.warnings", True)


def test_a_strange_value_does_not_lose_the_line() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    get_logger("x").info("strange", big=2**80, lone="\ud800", thing=object(), nan=float("nan"), m={1: (2,)})
    (line,) = lines(stream)
    assert line["big"] == 2**80
    assert line["thing"].startswith("<object object")
    assert line["m"] == {"1": [2]}


def test_an_exception_is_text_without_local_variables() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    try:
        fail("broker gone", local=CANARY)
    except RuntimeError:
        get_logger("x").exception("failed")
    (line,) = lines(stream)
    assert "RuntimeError: broker gone" in line["exception"]
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_canary_password_by_every_way(fmt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", CANARY)
    settings = Settings.load()
    stream = io.StringIO()
    configure_logs("debug", fmt, stream, secrets=settings.secrets())
    log = get_logger("x")
    log.info("settings", settings=settings, rows=settings.describe(), config=settings.consumer_config())
    log.info("by name", password=CANARY, nested={"deep": [{"api_key": CANARY}]})
    log.info("by type", value=Secret(CANARY))
    log.info(f"in the text {CANARY}", url=f"https://u:{CANARY}@host/")
    log.info("too deep", a={"a": {"a": {"a": {"a": {"a": {"a": {"a": {"x": CANARY}}}}}}}})
    logging.getLogger("faust.app").warning("joined %s", CANARY)
    logging.getLogger("uvicorn").warning("%s", {"sasl.password": CANARY})
    try:
        fail(f"SASL failed for {CANARY}")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("mode").exception("failed")
    text = stream.getvalue()
    assert text.count("***") >= 11
    assert CANARY not in text


def test_unknown_secrets_are_hidden_where_their_name_tells() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    log = get_logger("x")
    log.info(f"conf sasl.password={CANARY}, next=1")
    log.info("conf", sasl_config={"sasl.jaas.config": CANARY, "ssl.unheard.of": CANARY, "client.id": "seen"})
    text = stream.getvalue()
    assert CANARY not in text
    assert "seen" in text
    assert "next=1" in text


def test_names_on_the_allow_list_are_shown() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    get_logger("x").info("conf", conf={"ssl.key.location": "/keys/a", "sasl.username": "ann"})
    assert lines(stream)[0]["conf"] == {"ssl.key.location": "/keys/a", "sasl.username": "ann"}


def test_a_module_that_never_configured_logs_warns_on_stderr_only() -> None:
    code = "from streamer.telemetry import logs; l = logs.get_logger('x'); l.info('no'); l.warning('yes')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    assert "yes" in ran.stderr
    assert "no" not in ran.stderr
