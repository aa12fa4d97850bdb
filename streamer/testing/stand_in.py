"""A function in the place of a model."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from streamer.inference.model import Features, LoadedModel, ModelMetadata
from streamer.inference.probe import Probed
from streamer.inference.repository import ModelFile
from streamer.inference.signature import Signature

ScoreFunction = Callable[[Features], NDArray[np.float32]]


def constant(score: float) -> ScoreFunction:
    """A model that gives every row the same score."""
    return lambda features: np.full((len(next(iter(features.values()))), 1), score, np.float32)


def stand_in(function: ScoreFunction, threshold: float = 0.5) -> LoadedModel:
    """A model made of a function; takes whatever features there are."""
    return cast("LoadedModel", _StandIn(function, threshold))


class _StandIn:
    """Looks like a `LoadedModel` to the stages."""

    def __init__(self, function: ScoreFunction, threshold: float) -> None:
        self._function = function
        self.file = ModelFile("stand-in", 1, Path("stand-in.onnx"))
        self.digest, self.facts = "", ModelMetadata(threshold=threshold)
        self.score_column = -1
        self.signature = Signature({}, "score", None)
        self.probed, self.seconds_per_row = Probed(), 0.0

    def check(self, features: object) -> None:
        """Anything fits."""

    def prove(self, features: object, clock: object) -> None:
        """A function is believed."""

    def run(self, features: Features, rows: int) -> NDArray[np.float32]:
        """Call the function."""
        if rows == 0:
            return np.empty((0, 1), np.float32)
        return np.asarray(self._function(features), np.float32).reshape(rows, -1)
