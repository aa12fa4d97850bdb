"""Records that must never pass, one recipe per kind; several only look good when joined to a neighbour.

Kinds on which honest JSON readers disagree (lone surrogates, bad UTF-8 inside a field nobody reads) are left
out: the checker's verdict on a record must not depend on whose parser it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

DEPTH = 30_000
HUGE_BYTES = 100_000
CENTURY_S = 3_155_760_000.0


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before it is sent: key and value as they go over the wire."""

    key: bytes | None
    value: bytes | None


def good_value(sensor: str, ts: float, value: float | None) -> bytes:
    return json.dumps({"sensor_id": sensor, "ts": ts, "value": value}, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Context:
    """What a recipe may use: sensor and time the record claims, a good record to spoil, seeded dice."""

    sensor: str
    ts: float
    good: bytes
    dice: random.Random

    @property
    def key(self) -> bytes:
        return self.sensor.encode()

    def with_field(self, name: str, literal: str) -> bytes:
        """An otherwise good record in which one field holds this JSON text."""
        fields = {"sensor_id": json.dumps(self.sensor), "ts": repr(self.ts), "value": "1.5"}
        fields[name] = literal
        return ("{" + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}").encode()


Recipe = Callable[[Context], Sequence[Draft]]


def _values(*values: bytes | None) -> Recipe:
    return lambda c: [Draft(c.key, c.dice.choice(values))]


def _field(name: str, *literals: str) -> Recipe:
    return lambda c: [Draft(c.key, c.with_field(name, c.dice.choice(literals)))]


def _missing_field(c: Context) -> Sequence[Draft]:
    fields = {"sensor_id": c.sensor, "ts": c.ts, "value": 1.0}
    del fields[c.dice.choice(sorted(fields))]
    return [Draft(c.key, json.dumps(fields).encode())]


def _joined_pair(c: Context) -> Sequence[Draft]:
    """Two neighbours that a reader which joins records with a comma would take for good ones."""
    head = c.good + b"," + f'{{"sensor_id":{json.dumps(c.sensor)}'.encode()
    tail = f'"ts":{c.ts!r},"value":1.0}}'.encode()
    return [Draft(c.key, head), Draft(c.key, tail)]


def _newline_pair(c: Context) -> Sequence[Draft]:
    """Two neighbours that a reader which joins records with a newline would take for one good record."""
    cut = c.good.index(b",") + 1
    return [Draft(c.key, c.good[:cut]), Draft(c.key, c.good[cut:])]


def _double_and_nothing(c: Context) -> Sequence[Draft]:
    """As many values as records, so that a reader which only counts them is fooled."""
    pair = [Draft(c.key, c.good + c.dice.choice([b"", b" ", b"\t"]) + c.good), Draft(c.key, c.dice.choice([b"", b" "]))]
    c.dice.shuffle(pair)
    return pair


def _halves_and_double(c: Context) -> Sequence[Draft]:
    """Three records that hold three values between them, none of them its own."""
    return [*_newline_pair(c), Draft(c.key, c.good + c.good)]


def _array_pair(c: Context) -> Sequence[Draft]:
    return [Draft(c.key, b"[" + c.good), Draft(c.key, c.good + b"]")]


def _other_key(c: Context) -> Sequence[Draft]:
    return [Draft(c.key + b"-other", c.good)]


RECIPES: dict[str, Recipe] = {
    "not_json": _values(b"temperature is 21.5"),
    "cut_off": lambda c: [Draft(c.key, c.good[: c.dice.randrange(1, len(c.good))])],
    "trailing_comma": lambda c: [Draft(c.key, c.good[:-1] + b",}")],
    "two_in_one": lambda c: [Draft(c.key, c.good + c.dice.choice([b",", b"\n", b" ", b""]) + c.good)],
    "trailing_nul": lambda c: [Draft(c.key, c.good + b"\x00")],
    "byte_order_mark": lambda c: [Draft(c.key, b"\xef\xbb\xbf" + c.good)],
    "utf16": lambda c: [Draft(c.key, c.good.decode().encode("utf-16"))],
    "raw_newline_in_string": _field("sensor_id", '"a\nb"'),
    "bad_utf8": lambda c: [Draft(c.key, c.good.replace(b'"sensor_id": "', b'"sensor_id": "\xff\xfe'))],
    "binary": lambda c: [Draft(c.key, b"\xff" + c.dice.randbytes(40))],
    "time_wrong_type": _field("ts", '"1"', "true", "null", "[1]", "{}"),
    "value_wrong_type": _field("value", '"1"', "true", "null", "[1]", "{}"),
    "sensor_wrong_type": _field("sensor_id", "7", "null", '["a"]'),
    "not_an_object": _values(b"null", b"[]", b"17", b'"text"'),
    "empty_object": _values(b"{}"),
    "missing_field": _missing_field,
    "nan_literal": _field("value", "NaN", "Infinity", "-Infinity"),
    "beyond_float64": _field("value", "1e400", "-1e400"),
    "beyond_float32": _field("value", "1e39", "-1e308"),
    "odd_number": _field("value", "01", "1.", ".5", "+1", "0x10"),
    "deep_field": _field("extra", "[" * DEPTH + "]" * DEPTH),
    "deep_open": _values(b'{"sensor_id":' * 4_000),
    "empty_value": _values(b""),
    "null_value": _values(None),
    "whitespace": _values(b" ", b"\n", b" \t\r\n "),
    "null_key": lambda c: [Draft(None, c.good)],
    "null_key_null_value": lambda _: [Draft(None, None)],
    "empty_key": lambda c: [Draft(b"", c.good)],
    "key_mismatch": _other_key,
    "key_not_utf8": lambda c: [Draft(b"\xff\xfe" + c.key, c.good)],
    "far_future": lambda c: [Draft(c.key, good_value(c.sensor, c.ts + CENTURY_S, 1.0))],
    "milliseconds_for_seconds": lambda c: [Draft(c.key, good_value(c.sensor, c.ts * 1000.0, 1.0))],
    "negative_time": lambda c: [Draft(c.key, good_value(c.sensor, -c.ts, 1.0))],
    "joined_pair": _joined_pair,
    "newline_pair": _newline_pair,
    "array_pair": _array_pair,
    "double_and_nothing": _double_and_nothing,
    "halves_and_double": _halves_and_double,
    "huge_junk": lambda c: [Draft(c.key, b"{" + c.dice.randbytes(HUGE_BYTES))],
}


class Poisoner:
    """Draws bad records so that every kind comes up before any comes twice."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._waiting: list[str] = []
        self.counts: dict[str, int] = {}

    def draw(self, sensor: str, ts: float) -> Sequence[Draft]:
        """One bad record or an adversarial run of neighbours, in the order they must be sent."""
        if not self._waiting:
            self._waiting = sorted(RECIPES)
            self._dice.shuffle(self._waiting)
        kind = self._waiting.pop()
        self.counts[kind] = self.counts.get(kind, 0) + 1
        good = good_value(sensor, ts, round(self._dice.gauss(100.0, 10.0), 3))
        return RECIPES[kind](Context(sensor, ts, good, self._dice))
