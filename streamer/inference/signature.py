"""What a model takes and gives, read from its session: the first place where a foreign export is told what to change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streamer.errors import ModelError

ZIPMAP = (
    "A list of dicts is no tensor: export it again with zipmap=False "
    "(skl2onnx: to_onnx(model, rows[:1].astype(numpy.float32), options={'zipmap': False}))"
)
_GIVEN = "tensor(float)"
_SCORES = ("tensor(float)", "tensor(double)", "tensor(float16)")

Shape = tuple[Any, ...]


class Port(Protocol):
    """An input or output, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: list[Any]


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and the output that holds the scores.

    Attributes:
        inputs: name -> declared shape; an axis is a number where it is fixed. Empty also where no shape is declared.
        output: name of the tensor of scores.
        fixed_rows: rows that every run must have, or None for any number.
    """

    inputs: dict[str, Shape]
    output: str
    fixed_rows: int | None

    @staticmethod
    def read(inputs: Sequence[Port], outputs: Sequence[Port], wanted: str | None, path: Path) -> "Signature":
        """Check types and shapes.

        Args:
            inputs: of the session.
            outputs: of the session.
            wanted: `streamer.output` of the metadata.
            path: of the file, for messages.

        Raises:
            ModelError: an input takes no float32, or there is no float tensor to read scores from; says what to export.
        """
        for port in inputs:
            _check_input(port, path)
        shapes = {port.name: tuple(port.shape) for port in inputs}
        rows = sorted({shape[0] for shape in shapes.values() if shape and isinstance(shape[0], int)})
        if len(rows) > 1 or (rows and rows[0] < 1):
            raise ModelError(
                f"{path}: its inputs {shapes} are fixed to {' and '.join(map(str, rows))} rows; "
                "the first axis of every input is the rows: export it with that axis dynamic"
            )
        return Signature(shapes, _output(outputs, wanted, path), rows[0] if rows else None)

    def check(self, features: Mapping[str, tuple[int, ...]], model: str, *, matrix: bool) -> None:
        """Hold ranks and widths of what the model will be given against its inputs.

        Args:
            features: name -> shape of one row, () for a number or (width,).
            model: its name, for messages.
            matrix: whether all features go into one input side by side.

        Raises:
            ModelError: a rank or a width differs.
        """
        if matrix:
            (shape,) = self.inputs.values()
            width = sum(int(np.prod(s)) if s else 1 for s in features.values())
            if len(shape) == 2 and isinstance(shape[1], int) and shape[1] != width:
                given = ", ".join(features)
                raise ModelError(f"model {model} takes {shape[1]} columns, the features give {width}: [{given}]")
            features = {next(iter(self.inputs)): (width,)}
        for name, row in features.items():
            shape = self.inputs[name]
            fits = len(shape) == 1 + len(row) or not shape
            fits |= len(shape) == 2 and not row
            width = row[0] if row else 1
            if not fits or (len(shape) == 2 and isinstance(shape[1], int) and shape[1] != width):
                raise ModelError(
                    f"model {model}: its input {name!r} has the shape {shown(shape)}, it would be given (rows{_behind(row)}); "
                    "the service gives one row per event, (rows, features)"
                )


def _check_input(port: Port, path: Path) -> None:
    if port.type == _GIVEN:
        return
    what = f"{path}: its input {port.name!r} takes {port.type}, the service gives float32"
    if port.type == "tensor(double)":
        raise ModelError(
            f"{what}; export it again from a float32 example (skl2onnx: to_onnx(model, rows[:1].astype(numpy.float32), "
            "options={'zipmap': False}); PyTorch: model.float())"
        )
    raise ModelError(f"{what}; put a Cast behind a float32 input when exporting")


def _output(outputs: Sequence[Port], wanted: str | None, path: Path) -> str:
    floats = [port.name for port in outputs if port.type in _SCORES]
    if wanted in floats:
        return str(wanted)
    if wanted is None and floats:
        return floats[0]
    listed = ", ".join(f"{port.name!r} {port.type}" for port in outputs) or "none"
    which = "no float output" if wanted is None else f"no float output {wanted!r} (streamer.output)"
    what = f"{path} has {which}; its outputs are {listed}"
    if any("map(" in port.type for port in outputs):
        raise ModelError(f"{what}. {ZIPMAP}")
    if any(not port.type.startswith("tensor(") for port in outputs):
        raise ModelError(f"{what}. Only tensors can be read: export it with scores of shape (rows, columns)")
    raise ModelError(f"{what}. A label alone cannot be flagged: export the scores or probabilities too")


def shown(shape: Shape) -> str:
    """A shape as people write it."""
    return "(" + ", ".join("?" if axis is None else str(axis) for axis in shape) + ")"


def _behind(row: tuple[int, ...]) -> str:
    return "".join(f", {width}" for width in row)
