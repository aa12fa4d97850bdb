"""One ONNX model in memory: what it takes, what it gives, and one call that scores any number of rows."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.errors import ModelError
from streamer.inference.engine_log import listen
from streamer.inference.probe import Probed, probe
from streamer.inference.repository import ModelFile
from streamer.inference.signature import ZIPMAP, Signature

Features = Mapping[str, NDArray[np.float32]]

# What a session warns of when it is built is told; a warning at each run would be a line a batch.
_RUN = ort.RunOptions()
_RUN.log_severity_level = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
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


def read_facts(metadata: Mapping[str, str], path: Path) -> ModelMetadata:
    """Parse the metadata of a model file.

    Raises:
        ModelError: a value is not what it should be.
    """
    try:
        threshold, column = metadata.get("streamer.threshold"), metadata.get("streamer.column")
        facts = ModelMetadata(
            features=tuple(map(str, json.loads(metadata.get("streamer.features", "[]")))),
            threshold=None if threshold is None else float(threshold),
            output=metadata.get("streamer.output"),
            column=None if column is None else int(column),
            center=tuple(map(float, json.loads(metadata.get("streamer.center", "[]")))),
            scale=tuple(map(float, json.loads(metadata.get("streamer.scale", "[]")))),
        )
        _check(facts)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: its streamer.* metadata cannot be read: {error}; export the model again") from error
    return facts


def _check(facts: ModelMetadata) -> None:
    if {len(facts.center), len(facts.scale)} - {0, len(facts.features)}:
        raise ValueError("streamer.center and streamer.scale need one number for each of streamer.features")
    if facts.threshold is not None and not math.isfinite(facts.threshold):
        raise ValueError(f"streamer.threshold is {facts.threshold}")


@dataclass(slots=True, kw_only=True)
class LoadedModel:
    """A session with its facts. `run` is thread-safe and releases the GIL inside ONNX Runtime.

    Attributes:
        file: which version.
        digest: of the file, "sha256:" and 64 digits.
        facts: what its metadata says.
        signature: what it takes and gives.
        max_batch: most rows in one run; exactly as many where the model was exported for a fixed number.
        probed: what `prove` found out.
        seconds_per_row: as measured by `prove`, at its slowest; None before.
    """

    file: ModelFile
    digest: str
    facts: ModelMetadata
    signature: Signature
    max_batch: int
    _session: Any = field(repr=False)
    probed: Probed = field(default_factory=Probed)
    seconds_per_row: float | None = None

    @staticmethod
    def load(file: ModelFile, *, max_batch: int, intra_op_threads: int = 1) -> "LoadedModel":
        """Build the session: explicit threads, no spinning, sequential execution.

        Raises:
            ModelError: ONNX Runtime refuses the file, or its inputs or outputs are of a kind that cannot be served.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 2
        listen()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Shapes are bucketed, but an arena keeps its peak for ever; plain allocation costs nothing at these sizes.
        options.enable_cpu_mem_arena = False
        try:
            session = ort.InferenceSession(file.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # The default export of scikit-learn from float64 rows is no valid model at all.
            hint = f" {ZIPMAP}" if "ZipMap" in str(error) else ""
            raise ModelError(f"{file.path} cannot be loaded: {error}{hint}") from error
        facts = read_facts(session.get_modelmeta().custom_metadata_map, file.path)
        signature = Signature.read(session.get_inputs(), session.get_outputs(), facts.output, file.path)
        return LoadedModel(
            file=file, digest=_digest(file.path), facts=facts, signature=signature,
            max_batch=signature.fixed_rows or max_batch, _session=session,
        )  # fmt: skip

    def check(self, features: Mapping[str, tuple[int, ...]]) -> None:
        """Hold the features of a topology against the model.

        Args:
            features: name -> shape of one row: () for a number, (width,) for a vector.

        Raises:
            ModelError: names or widths differ; the message shows both sides.
        """
        matrix, inputs, names = self._takes_matrix(features), self.signature.inputs, self.facts.features
        if matrix and names and set(names) != set(features):
            missing, extra = sorted(set(names) - set(features)), sorted(set(features) - set(names))
            raise ModelError(
                f"model {self.file.name} was trained on {list(names)}; the features lack {missing} and have {extra} too many"
            )
        if not matrix and set(features) != set(inputs):
            raise ModelError(
                f"model {self.file.name} has the inputs {sorted(inputs)}, the features are {sorted(features)}; "
                "name the features as the inputs, or export it with one (rows, features) input and streamer.features"
            )
        self.signature.check(features, self.file.name, matrix=matrix)

    def _takes_matrix(self, features: Mapping[str, Any]) -> bool:
        inputs = self.signature.inputs
        return len(inputs) == 1 and not set(inputs) >= set(features)

    def feed(self, features: Features) -> dict[str, NDArray[np.float32]]:
        """Arrange feature columns, each (rows,) or (rows, width), as the model's inputs."""
        if self._takes_matrix(features):
            names = self.facts.features or tuple(features)
            (only,) = self.signature.inputs
            parts = [features[name] for name in names]
            if all(part.ndim == 1 for part in parts):
                return {only: np.stack(parts, axis=1)}
            return {only: np.concatenate([p[:, None] if p.ndim == 1 else p for p in parts], axis=1)}
        return {
            name: features[name][:, None] if len(shape) == 2 and features[name].ndim == 1 else features[name]
            for name, shape in self.signature.inputs.items()
        }

    def run(self, features: Features, rows: int) -> NDArray[np.float32]:
        """Score rows; returns (rows, columns).

        Rows are cut into runs of at most `max_batch` and padded to a power of two, so that ONNX Runtime sees few shapes.

        Raises:
            ModelError: the output has not one row for each row of the input.
        """
        if rows == 0:
            return np.empty((0, 1), np.float32)
        feed = self.feed(features)
        parts = [self._run_once(feed, start, min(start + self.max_batch, rows)) for start in range(0, rows, self.max_batch)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run_once(self, feed: dict[str, NDArray[np.float32]], start: int, end: int) -> NDArray[np.float32]:
        rows = end - start
        bucket = self.max_batch if self.signature.fixed_rows else min(self.max_batch, 1 << (rows - 1).bit_length())
        piece = {name: _padded(column[start:end], bucket) for name, column in feed.items()}
        (given,) = self._session.run([self.signature.output], piece, _RUN)
        scores = np.asarray(given, np.float32)
        alone = bucket == 1 and scores.ndim == 0  # a single number is the row's where a run has only one
        if not alone and (scores.shape[:1] != (bucket,) or scores.size < bucket):
            raise ModelError(
                f"{self.file.path}: its output {self.signature.output!r} has the shape {scores.shape} for {bucket} rows; "
                f"it must have one row for each, ({bucket}, columns): export it with the rows as first axis"
            )
        return scores.reshape(bucket, -1)[:rows]

    def prove(self, features: Mapping[str, tuple[int, ...]], clock: Clock) -> None:
        """See that scores belong to their rows, and run every size of batch once, so that the first event does not pay for it.

        Raises:
            ModelError: it mixes rows, or the score is not where the metadata says.
        """
        self.probed = probe(self, features, clock)
        row = self.probed.row
        if row is None:
            return
        columns = self.run(row, 1).shape[1]
        if not -columns <= self.score_column < columns:
            raise ModelError(
                f"{self.file.path}: streamer.column is {self.score_column}, but {self.signature.output!r} has {columns} columns"
            )
        slowest, size = 0.0, 1
        while True:
            rows = min(size, self.max_batch)
            many = {name: np.repeat(column, rows, axis=0) for name, column in row.items()}
            started = clock.monotonic()
            self.run(many, rows)
            slowest = max(slowest, (clock.monotonic() - started) / rows)
            if rows == self.max_batch:
                break
            size *= 2
        self.seconds_per_row = slowest

    @property
    def score_column(self) -> int:
        """Column of the scores that is flagged; counts from the end when negative."""
        return -1 if self.facts.column is None else self.facts.column


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _padded(column: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """As many rows as asked for, the last one repeated: what the model takes once it takes again, zeros it might not."""
    missing = rows - column.shape[0]
    if missing == 0:
        return np.ascontiguousarray(column)
    return np.concatenate([column, np.repeat(column[-1:], missing, axis=0)])
