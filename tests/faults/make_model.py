"""A small ONNX model for the torture topology, the same bytes' worth of weights every time.

The network computes in double between float32 ends: batches of different sizes then agree far below the
checker's 1e-6, so that a score that differs means wrong features and not a different order of additions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.faults.names import FEATURES, MODEL, MODEL_VERSION

SEED = 20_240_601
HIDDEN = 16
FLAGGED_SHARE = 0.05
CENTER = (12.0, 100.0, 8.0, 85.0, 115.0, 100.0, 0.0, 0.0)
SCALE = (6.0, 60.0, 8.0, 60.0, 60.0, 60.0, 15.0, 15.0)

Doubles = NDArray[np.float64]


def _weights() -> tuple[Doubles, Doubles, Doubles, Doubles]:
    rng = np.random.default_rng(SEED)
    first = rng.normal(0.0, 0.6, (len(FEATURES), HIDDEN))
    second = rng.normal(0.0, 0.5, (HIDDEN, 1))
    return first, rng.normal(0.0, 0.3, HIDDEN), second, np.zeros(1)


def _threshold(weights: tuple[Doubles, Doubles, Doubles, Doubles]) -> float:
    """The score that about FLAGGED_SHARE of ordinary rows exceed."""
    rows = np.random.default_rng(SEED + 1).normal(0.0, 1.0, (20_000, len(FEATURES)))
    first, bias, second, last = weights
    logits = np.tanh(rows @ first + bias) @ second + last
    scores = 1.0 / (1.0 + np.exp(-logits[:, 0]))
    return round(float(np.quantile(scores, 1.0 - FLAGGED_SHARE)), 6)


def _graph(weights: tuple[Doubles, Doubles, Doubles, Doubles]) -> onnx.GraphProto:
    constants = dict(zip(("w1", "b1", "w2", "b2"), weights, strict=True))
    constants |= {"center": np.asarray(CENTER), "scale": np.asarray(SCALE)}
    nodes = [
        helper.make_node("Cast", ["features"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["wide", "center"], ["centered"]),
        helper.make_node("Div", ["centered", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Tanh", ["a1"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["a2"]),
        helper.make_node("Sigmoid", ["a2"], ["wide_score"]),
        helper.make_node("Cast", ["wide_score"], ["score"], to=TensorProto.FLOAT),
    ]
    return helper.make_graph(
        nodes,
        "torture",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(FEATURES)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.asarray(v, np.float64), name) for name, v in constants.items()],
    )


def write_model(models: Path) -> Path:
    """Write `<models>/torture/1/model.onnx`.

    Returns:
        The path of the file.
    """
    weights = _weights()
    proto = helper.make_model(_graph(weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {
        "streamer.features": json.dumps(FEATURES),
        "streamer.threshold": str(_threshold(weights)),
        "streamer.output": "score",
        "streamer.column": "0",
        "streamer.center": json.dumps(CENTER),
        "streamer.scale": json.dumps(SCALE),
        "streamer.trained_at": "2024-06-01T00:00:00+00:00",
        "streamer.data_digest": "sha256:" + "0" * 64,
    }
    helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto, full_check=True)
    path = models / MODEL / str(MODEL_VERSION) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


if __name__ == "__main__":
    sys.stdout.write(f"{write_model(Path(sys.argv[1]))}\n")
