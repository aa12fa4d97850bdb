"""Made-up rows that a model may take for real ones: near its usual values if it states them, then of several sizes."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from streamer.inference.model import ModelMetadata

Floats = NDArray[np.float32]
Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

# As many as the largest number of rows that is tried together.
ROWS = 5

# Some models refuse zeros, some negative numbers, some fractions (numbers that stand for words); trees tell rows apart only
# where their splits are.
_SIZES: dict[str, Draw] = {
    "between 0 and 1": lambda random, shape: random.uniform(0.05, 1.0, shape),
    "around 0": lambda random, shape: random.normal(0.0, 1.0, shape),
    "between 1 and 100": lambda random, shape: random.uniform(1.0, 100.0, shape),
    "whole numbers from 1 to 9": lambda random, shape: random.integers(1, 10, shape).astype(np.float64),
    "zeros and ones": lambda random, shape: random.integers(0, 2, shape).astype(np.float64),
    "around 0, of 1,000": lambda random, shape: random.normal(0.0, 1e3, shape),
}


@dataclass(frozen=True, slots=True)
class Specimens:
    """Rows of one kind.

    Attributes:
        kind: what they are like, for messages.
        columns: feature -> (ROWS,) or (ROWS, width).
    """

    kind: str
    columns: dict[str, Floats]


def specimens(features: Mapping[str, tuple[int, ...]], facts: "ModelMetadata") -> Iterator[Specimens]:
    """Rows of every kind, the likeliest first; the same ones each time."""
    if facts.center:
        yield Specimens("usual values", _usual(features, facts))
    for kind, draw in _SIZES.items():
        random = _random(kind)
        yield Specimens(kind, {name: draw(random, (ROWS, *shape)).astype(np.float32) for name, shape in features.items()})


def _usual(features: Mapping[str, tuple[int, ...]], facts: "ModelMetadata") -> dict[str, Floats]:
    random = _random("usual values")
    center = dict(zip(facts.features, facts.center, strict=True))
    scale = dict(zip(facts.features, facts.scale or [1.0] * len(facts.features), strict=True))
    return {
        name: (center.get(name, 0.0) + scale.get(name, 1.0) * random.normal(0.0, 1.0, (ROWS, *shape))).astype(np.float32)
        for name, shape in features.items()
    }


def _random(kind: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(kind.encode()))
