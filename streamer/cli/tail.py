"""`streamer tail`: committed predictions, anomalies or dead letters as they come, for people or as JSON lines."""

import os
import signal
import sys
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from streamer.cli.options import Bootstrap, Config, TopologyName
from streamer.cli.say import tell
from streamer.kafka.reader import read_committed
from streamer.settings.settings import Settings
from streamer.telemetry.plain import plain, plain_json
from streamer.topology.loading import load_topology
from streamer.topology.topics import Topics, inputs_of, topics_of
from streamer.units import format_duration

if TYPE_CHECKING:
    from confluent_kafka import Message

app = typer.Typer()

_VALUE_BYTES_SHOWN = 120
_ERROR_HEADER = "streamer.error."


class What(StrEnum):
    """Which output topic."""

    PREDICTIONS = "predictions"
    ANOMALIES = "anomalies"
    DEAD_LETTERS = "dead-letters"
    LATE_EVENTS = "late-events"
    MATCHED = "matched"
    UNMATCHED = "unmatched"


_LETTERS = (What.DEAD_LETTERS, What.LATE_EVENTS)


class From(StrEnum):
    """Where to begin."""

    EARLIEST = "earliest"
    LATEST = "latest"


@app.command()
def tail(
    topology: TopologyName,
    what: Annotated[What, typer.Argument(help="Which output.")] = What.PREDICTIONS,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as published.")] = False,
    start: Annotated[From, typer.Option("--from", help="Begin with the oldest record, or wait for new ones.")] = From.LATEST,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show what a topology publishes (committed records only) until Ctrl-C."""
    settings = Settings.load(config, bootstrap=bootstrap)
    declared, _ = load_topology(topology)
    wanted, settings = _topics(topics_of(declared, settings.group), what), settings.named(declared.name, "tail")
    raw = any(given == "raw" for _, given in inputs_of(declared).values())
    letter = _raw_dead_letter_json if raw else _dead_letter_json
    show = (letter if what in _LETTERS else _json_line) if as_json else _READABLE[what]
    if start is From.LATEST and sys.stderr.isatty():
        tell(f"waiting for new records in {', '.join(wanted)}; --from earliest shows the old ones too")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop ends it as Ctrl-C does
    left = count if count is not None else sys.maxsize
    try:
        for messages in read_committed(settings, *wanted, latest=start is From.LATEST):
            sys.stdout.writelines(show(message) + "\n" for message in messages[:left])
            sys.stdout.flush()
            left -= len(messages)
            if left <= 0:
                break
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Whoever read us has seen enough; what is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _topics(topics: "Topics", what: What) -> list[str]:
    """Where an output lies; dead letters of all inputs are one.

    Raises:
        typer.BadParameter: the topology has no such output.
    """
    scored = topics.unmatched is None
    known = {
        What.PREDICTIONS: topics.predictions if scored else None, What.ANOMALIES: topics.anomalies,
        What.LATE_EVENTS: topics.late_events, What.MATCHED: None if scored else topics.predictions,
        What.UNMATCHED: topics.unmatched,
    }  # fmt: skip
    named = {name: [topic] for name, topic in known.items() if topic}
    named[What.DEAD_LETTERS] = list(dict.fromkeys((topics.dead_letters, *topics.joined.values())))
    if what not in named:
        raise typer.BadParameter(f"this topology publishes no {what}; it has {', '.join(named)}")
    return named[what]


def _json_line(message: "Message") -> str:
    """The value as published, numbers to the digit; one that is no JSON becomes a string of an object that says so."""
    value = message.value() or b"null"
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return plain_json(orjson.dumps({"origin": _origin(message), "not_json": _text(value)}).decode())
    return plain_json(value.decode())


def _dead_letter_json(message: "Message") -> str:
    """Dead letters keep their reason in headers: show both sides."""
    return plain_json(orjson.dumps(_both_sides(message)).decode())


def _raw_dead_letter_json(message: "Message") -> str:
    """The same where records are read as they are: bytes that are no text stand beside it as base64."""
    shown = _both_sides(message)
    for name, data in (("key", message.key()), ("value", message.value())):
        if data is not None and not _is_text(data):
            shown[f"{name}_base64"] = b64encode(data).decode()
    return plain_json(orjson.dumps(shown).decode())


def _both_sides(message: "Message") -> dict[str, str | None]:
    shown: dict[str, str | None] = dict(_error_headers(message))
    for name, data in (("key", message.key()), ("value", message.value())):
        shown[name] = None if data is None else _text(data)
    return shown


def prediction_line(value: dict[str, Any]) -> str:
    """One prediction: event time, key, score, flag, samples in the window, latency."""
    flag = "ANOMALY" if value["flag"] else "-"
    return plain(
        f"{_moment(value['time'])}  {_key(value['key'])}  {value['score']:>9.4g}  {flag:<7}  "
        f"n={value['window_n']:<5} {value['latency_ms']:.1f} ms{_span(value)}"
    )


def _span(value: dict[str, Any]) -> str:
    """The window, where windows close."""
    if "final" not in value:
        return ""
    return f"  [{_moment(value['window_start'])}, {_moment(value['window_end'])}) {'final' if value['final'] else 'early'}"


def anomaly_line(value: dict[str, Any]) -> str:
    """One anomaly: event time, key, score, and the features that drove it, as value and deviations from usual."""
    drivers = "  ".join(f"{d['feature']}={d['value']:.4g} ({d['deviation']:+.1f})" for d in value.get("drivers", ()))
    return plain(f"{_moment(value['time'])}  {_key(value['key'])}  {value['score']:>9.4g}  {drivers or '-'}")


def matched_line(value: dict[str, Any]) -> str:
    """One prediction that has its label, or whose time was over: event time, key, delay, label and prediction."""
    delay = f"after {format_duration(value['delay_s'])}" if "delay_s" in value else "no label"
    told = ((name, orjson.dumps(value[name]).decode()) for name in ("label", "prediction") if name in value)
    return plain(
        f"{_moment(value['time'])}  {_key(value['key'])}  {delay:<12}  {'  '.join(f'{name} {row}' for name, row in told)}"
    )


def dead_letter_line(headers: dict[str, str], value: bytes | None) -> str:
    """One dead letter: origin, reason, detail, and how the record begins."""
    origin = "/".join(headers.get(part, "?") for part in ("topic", "partition", "offset"))
    start = _start(value)
    size = headers.get("truncated", str(len(value or b"")))
    why = f"{headers.get('stage', '?')}: {headers.get('reason', '?')}"
    return plain(f"{origin}  {why}  {headers.get('detail', '')}") + "\n" + plain(f"    {size} bytes: {start}")


def _readable(line: Callable[[dict[str, Any]], str]) -> "Callable[[Message], str]":
    def show(message: "Message") -> str:
        try:
            return line(orjson.loads(message.value() or b"null"))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return plain(f"{_origin(message)}  not of this service: {_start(message.value())}")

    return show


def _readable_dead_letter(message: "Message") -> str:
    return dead_letter_line(_error_headers(message), message.value())


_READABLE: "dict[What, Callable[[Message], str]]" = {
    What.PREDICTIONS: _readable(prediction_line),
    What.ANOMALIES: _readable(anomaly_line),
    What.DEAD_LETTERS: _readable_dead_letter,
    What.LATE_EVENTS: _readable_dead_letter,
    What.MATCHED: _readable(matched_line),
    What.UNMATCHED: _readable(matched_line),
}


def _error_headers(message: "Message") -> dict[str, str]:
    """`streamer.error.*` without the prefix."""
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {
        name.removeprefix(_ERROR_HEADER): value if isinstance(value, str) else (value or b"").decode("utf-8", "replace")
        for name, value in pairs
        if name.startswith(_ERROR_HEADER)
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _key(key: str | None) -> str:
    return f"{'-' if key is None else key:<24}"


def _origin(message: "Message") -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def _start(value: bytes | None) -> str:
    """How a value begins."""
    return "null" if value is None else ascii(value[:_VALUE_BYTES_SHOWN].decode("utf-8", "replace"))


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
