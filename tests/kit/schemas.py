"""The published schemas as validators."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

from streamer.kafka.memory_log import Record

NAMES = ("prediction", "anomaly", "dead_letter", "matched")


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema file of an output, as shipped in the package."""
    text = files("streamer").joinpath("schemas", f"{name}.v1.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def problems(name: str, instance: object) -> list[str]:
    """What the schema finds wrong."""
    return [error.message for error in Draft202012Validator(schema(name)).iter_errors(instance)]


def headers(letter: Record) -> dict[str, str]:
    """Headers of a dead letter; each name stands once."""
    assert len(dict(letter.headers)) == len(letter.headers)
    return {name: text if isinstance(text, str) else text.decode() for name, text in letter.headers}
