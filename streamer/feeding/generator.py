"""Made-up rows for any event class: each key a sensor with its own daily wave, some noise and a rare spike."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, get_type_hints

import msgspec

from streamer.feeding.rows import FeedError, Row
from streamer.topology.event import Event, EventSpec

_PERIOD = 288
"""Samples in one wave: a day of five-minute samples."""
_SPIKE_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class Generator:
    """Rows that go round the keys, evenly spaced, the first at time 0; the same every time.

    Attributes:
        event: class of the rows.
        keys: how many different keys.
        count: how many rows, None for no end.
        spacing_us: microseconds between two rows.
        seed: of the noise.
    """

    event: type[Event]
    keys: int
    count: int | None
    spacing_us: int
    seed: int = 1

    def rows(self) -> Iterator[Row]:
        """All rows.

        Raises:
            FeedError: a field has a type that nothing can be made up for.
        """
        makers = _makers(self.event)
        spec = self.event.__event__
        chance = random.Random(self.seed)
        for number in count() if self.count is None else range(self.count):
            key, sample = number % self.keys, number // self.keys
            values: dict[str, Any] = {name: make(key, sample, chance) for name, make in makers.items()}
            if spec.time is not None:
                values[spec.time] = _start(self.event, spec)
            yield Row(self.event(**values), 0).moved(number * self.spacing_us)

    def times_us(self) -> Iterator[int]:
        """Event times; of rows without end the first only, as all keep the same distance."""
        return (number * self.spacing_us for number in range(1 if self.count is None else self.count))

    def total(self) -> int | None:
        """How many rows there are, None for no end."""
        return self.count


def _start(event: type[Event], spec: EventSpec) -> object:
    """1970 as the time field keeps it."""
    if spec.time_unit == "iso":
        return msgspec.convert("1970-01-01T00:00:00+00:00", get_type_hints(event)[spec.time or ""])
    return msgspec.convert(0, get_type_hints(event)[spec.time or ""])


_Maker = Callable[[int, int, random.Random], object]


def _makers(event: type[Event]) -> dict[str, _Maker]:
    makers: dict[str, _Maker] = {}
    spec = event.__event__
    for field in msgspec.structs.fields(event):
        if field.name == spec.time:
            continue
        if field.name == spec.key and field.type in _KEYS:
            makers[field.name] = _KEYS[field.type]
        elif field.type in _MADE_UP:
            makers[field.name] = _MADE_UP[field.type]
        elif field.required:
            raise FeedError(
                f"the generator makes float, int, bool and str fields; {event.__name__}.{field.name} is {field.type!r}: "
                "give it a default, or feed a file"
            )
    return makers


def _measured(key: int, sample: int, chance: random.Random) -> float:
    level, swing = 20.0 + 10.0 * (key % 7), 2.0 + key % 5
    wave = swing * math.sin(2 * math.pi * (sample / _PERIOD + key / 10))
    spike = 10.0 * swing if chance.random() < _SPIKE_SHARE else 0.0
    return round(level + wave + chance.gauss(0.0, swing / 10) + spike, 4)


_KEYS: dict[object, _Maker] = {
    str: lambda key, _sample, _chance: f"sensor-{key:02d}",
    int: lambda key, _sample, _chance: key,
}
_MADE_UP: dict[object, _Maker] = {
    float: _measured,
    int: lambda key, sample, chance: round(_measured(key, sample, chance)),
    bool: lambda _key, _sample, chance: chance.random() < 0.5,
    str: lambda key, _sample, _chance: f"text-{key}",
}
