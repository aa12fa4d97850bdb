"""One ONNX model in memory: what it takes, what it gives, and one call that scores any number of rows."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.inference.repository import ModelFile

Features = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What travels with a model in its ONNX metadata, under `streamer.*`.

    Attributes:
        features: names of the columns of its one matrix input, in order; empty when it has an input per feature.
        threshold: score above which a row is anomalous; None when the model carries none.
        output: tensor that holds the scores; None takes the first float output.
        column: column of that tensor that is the score; None takes the last.
        center, scale: per feature, to say how unusual a value is; empty when unknown.
    """

    features: tuple[str, ...] = ()
    threshold: float | None = None
    output: str | None = None
    column: int | None = None
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


def read_facts(metadata: Mapping[str, str], path: Path) -> Facts:
    """Parse the metadata of a model file.

    Raises:
        ModelError: a value is not what it should be.
    """
    try:
        threshold, column = metadata.get("streamer.threshold"), metadata.get("streamer.column")
        facts = Facts(
            tuple(map(str, json.loads(metadata.get("streamer.features", "[]")))),
            None if threshold is None else float(threshold),
            metadata.get("streamer.output"),
            None if column is None else int(column),
            tuple(map(float, json.loads(metadata.get("streamer.center", "[]")))),
            tuple(map(float, json.loads(metadata.get("streamer.scale", "[]")))),
        )
        _check(facts)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: its streamer.* metadata cannot be read: {error}; export the model again") from error
    return facts


def _check(facts: Facts) -> None:
    if {len(facts.center), len(facts.scale)} - {0, len(facts.features)}:
        raise ValueError("streamer.center and streamer.scale need one number for each of streamer.features")
    if facts.threshold is not None and not math.isfinite(facts.threshold):
        raise ValueError(f"streamer.threshold is {facts.threshold}")


@dataclass(slots=True)
class LoadedModel:
    """A session with its facts. `run` is thread-safe and releases the GIL inside ONNX Runtime.

    Attributes:
        max_batch: most rows in one run.
        fixed: whether the model was exported for runs of exactly `max_batch` rows.
    """

    file: ModelFile
    facts: Facts
    inputs: dict[str, tuple[Any, ...]]
    output: str
    max_batch: int
    fixed: bool
    _session: Any = field(repr=False)

    @staticmethod
    def load(file: ModelFile, *, max_batch: int, intra_op_threads: int = 1) -> "LoadedModel":
        """Build the session: explicit threads, no spinning, sequential execution.

        Raises:
            ModelError: ONNX Runtime refuses the file, or it has no float output.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Shapes are bucketed, but an arena keeps its peak for ever; plain allocation costs nothing at these sizes.
        options.enable_cpu_mem_arena = False
        try:
            session = ort.InferenceSession(file.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{file.path} cannot be loaded: {error}") from error
        facts = read_facts(session.get_modelmeta().custom_metadata_map, file.path)
        floats = [o.name for o in session.get_outputs() if "float" in o.type or "double" in o.type]
        output = facts.output or (floats[0] if floats else "")
        if output not in floats:
            raise ModelError(f"{file.path} has no float output {output!r}; its float outputs are {floats}")
        inputs = {i.name: tuple(i.shape) for i in session.get_inputs()}
        fixed = [shape[0] for shape in inputs.values() if shape and isinstance(shape[0], int)]
        return LoadedModel(file, facts, inputs, output, fixed[0] if fixed else max_batch, bool(fixed), session)

    def check(self, features: Mapping[str, tuple[int, ...]]) -> None:
        """Hold the features of a topology against the model.

        Args:
            features: name -> shape of one row: () for a number, (width,) for a vector.

        Raises:
            ModelError: names or widths differ; the message shows both sides.
        """
        if self._takes_matrix(features):
            self._check_matrix(features)
        elif set(features) != set(self.inputs):
            raise ModelError(
                f"model {self.file.name} has the inputs {sorted(self.inputs)}, the features are {sorted(features)}; "
                "name the features as the inputs, or export it with one (rows, features) input and streamer.features"
            )

    def _takes_matrix(self, features: Mapping[str, Any]) -> bool:
        return len(self.inputs) == 1 and not set(self.inputs) >= set(features)

    def _check_matrix(self, features: Mapping[str, tuple[int, ...]]) -> None:
        names, given = self.facts.features, list(features)
        if names and set(names) != set(given):
            missing, extra = sorted(set(names) - set(given)), sorted(set(given) - set(names))
            raise ModelError(
                f"model {self.file.name} was trained on {list(names)}; the features lack {missing} and have {extra} too many"
            )
        (shape,) = self.inputs.values()
        width = sum(int(np.prod(s)) if s else 1 for s in features.values())
        if len(shape) == 2 and isinstance(shape[1], int) and shape[1] != width:
            raise ModelError(f"model {self.file.name} takes {shape[1]} columns, the features give {width}: {given}")

    def feed(self, features: Features) -> dict[str, NDArray[np.float32]]:
        """Arrange feature columns, each (rows,) or (rows, width), as the model's inputs."""
        if self._takes_matrix(features):
            names = self.facts.features or tuple(features)
            (only,) = self.inputs
            parts = [features[name] for name in names]
            if all(part.ndim == 1 for part in parts):
                return {only: np.stack(parts, axis=1)}
            return {only: np.concatenate([p[:, None] if p.ndim == 1 else p for p in parts], axis=1)}
        return {
            name: features[name][:, None] if len(shape) == 2 and features[name].ndim == 1 else features[name]
            for name, shape in self.inputs.items()
        }

    def run(self, features: Features, rows: int) -> NDArray[np.float32]:
        """Score rows; returns (rows, columns).

        Rows are cut into runs of at most `max_batch` and padded to a power of two, so that ONNX Runtime sees few shapes.
        """
        if rows == 0:
            return np.empty((0, 1), np.float32)
        feed = self.feed(features)
        parts = [self._run_once(feed, start, min(start + self.max_batch, rows)) for start in range(0, rows, self.max_batch)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run_once(self, feed: dict[str, NDArray[np.float32]], start: int, end: int) -> NDArray[np.float32]:
        rows = end - start
        bucket = self.max_batch if self.fixed else min(self.max_batch, 1 << (rows - 1).bit_length())
        piece = {name: _padded(column[start:end], bucket) for name, column in feed.items()}
        (scores,) = self._session.run([self.output], piece)
        return np.asarray(scores, np.float32).reshape(bucket, -1)[:rows]

    def warm_up(self, features: Mapping[str, tuple[int, ...]]) -> None:
        """Run every bucket once, so that the first event does not pay for it.

        Raises:
            ModelError: the score is not where the metadata says.
        """
        rows = 1
        while True:
            size = min(rows, self.max_batch)
            scores = self.run({name: np.zeros((size, *shape), np.float32) for name, shape in features.items()}, size)
            if not -scores.shape[1] <= self.score_column < scores.shape[1]:
                raise ModelError(
                    f"{self.file.path}: streamer.column is {self.score_column}, but {self.output!r} has {scores.shape[1]} columns"
                )
            if rows >= self.max_batch:
                return
            rows *= 2

    @property
    def score_column(self) -> int:
        """Column of the scores that is flagged; counts from the end when negative."""
        return -1 if self.facts.column is None else self.facts.column


def _padded(column: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    missing = rows - column.shape[0]
    if missing == 0:
        return np.ascontiguousarray(column)
    return np.concatenate([column, np.zeros((missing, *column.shape[1:]), np.float32)])
