"""Makes the two models of `load/topology.py`: a 6-32-16-1 network, and the same one that can be made slow.

`slow` has a seventh feature, `work`: how many times a 128 x 128 product is repeated for that row before the
score comes out. The score does not depend on it. So the events themselves decide how slow the model is, and no
hook in the service is needed to make it so.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

FEATURES = ("mean", "std", "min", "max", "last", "delta")
CENTER = (20.0, 2.0, 15.2, 24.8, 20.0, 0.0)  # what readings of N(20, 2) give over a window of 64
SCALE = (0.25, 0.18, 0.8, 0.8, 2.0, 2.8)
LAYERS = (6, 32, 16, 1)
FLAGGED_SHARE = 0.001
SIDE = 128  # of the matrix that `work` repeats
OPSET = 17
IR_VERSION = 9
SEED = 21  # with these weights short windows are flagged as rarely as full ones; most seeds flag nearly all


def weights(seed: int = SEED) -> list[tuple[Floats, Floats]]:
    """Weight and bias of each layer; the first one also takes the features' centre and scale out."""
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(0, np.sqrt(2 / n), (n, m)), rng.normal(0, 0.1, m)) for n, m in itertools.pairwise(LAYERS)]
    weight, bias = layers[0]
    scaled = weight / np.array(SCALE)[:, None]
    layers[0] = (scaled, bias - np.array(CENTER) @ scaled)
    return [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]


def score(layers: list[tuple[Floats, Floats]], rows: Floats) -> Floats:
    """What the network answers for `rows` (rows, 6), in numpy."""
    for weight, bias in layers[:-1]:
        rows = np.maximum(rows @ weight + bias, 0)
    weight, bias = layers[-1]
    return np.asarray(1 / (1 + np.exp(-(rows @ weight + bias))), np.float32)[:, 0]


def threshold(layers: list[tuple[Floats, Floats]]) -> float:
    """The score that one in a thousand windows of ordinary readings exceeds."""
    values = np.random.default_rng(SEED + 1).normal(20, 2, (20_000, 64))
    columns = (
        values.mean(1),
        values.std(1),
        values.min(1),
        values.max(1),
        values[:, -1],
        values[:, -1] - values[:, 0],
    )
    rows = np.stack(columns, axis=1).astype(np.float32)
    return round(float(np.quantile(score(layers, rows), 1 - FLAGGED_SHARE)), 6)


def network(layers: list[tuple[Floats, Floats]], source: str, target: str) -> tuple[list[Any], list[Any]]:
    """Nodes and constants of the network from tensor `source` (rows, 6) to `target` (rows, 1)."""
    nodes, constants, before = [], [], source
    for i, (weight, bias) in enumerate(layers):
        constants += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [before, f"w{i}", f"b{i}"], [f"z{i}"]))
        last = i == len(layers) - 1
        before = target if last else f"a{i}"
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"z{i}"], [before]))
    return nodes, constants


def chore() -> tuple[list[Any], list[Any]]:
    """Nodes from `features` (rows, 7) to `nothing`: a zero that takes sum(work) products of SIDE x SIDE."""
    matrix = np.random.default_rng(SEED + 2).normal(0, 1 / np.sqrt(SIDE), (SIDE, SIDE)).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "matrix"], ["product"]),
            helper.make_node("Tanh", ["product"], ["state_next"]),
            helper.make_node("Identity", ["go"], ["go_next"]),
        ],
        "product",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [SIDE, SIDE]),
        ],
        [
            helper.make_tensor_value_info("go_next", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_next", TensorProto.FLOAT, [SIDE, SIDE]),
        ],
    )
    nodes = [
        helper.make_node("Slice", ["features", "six", "seven", "one"], ["work"]),
        helper.make_node("ReduceSum", ["work"], ["work_sum"], keepdims=0),
        helper.make_node("Cast", ["work_sum"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "matrix"], ["state_last"], body=body),
        helper.make_node("ReduceMean", ["state_last"], ["state_mean"], keepdims=0),
        helper.make_node("Mul", ["state_mean", "zero"], ["nothing"]),
    ]
    constants = [
        numpy_helper.from_array(matrix, "matrix"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ]
    return nodes, constants


def build(name: str) -> onnx.ModelProto:
    """Model `bench` or `slow`, with the metadata the service reads."""
    layers, slow = weights(), name == "slow"
    names = [*FEATURES, "work"] if slow else list(FEATURES)
    constants = [numpy_helper.from_array(np.array([i]), w) for i, w in ((6, "six"), (7, "seven"), (1, "one"))]
    if slow:
        first = [helper.make_node("Slice", ["features", "none", "six", "one"], ["statistics"])]
        constants.append(numpy_helper.from_array(np.array([0]), "none"))
        body, more = network(layers, "statistics", "raw")
        extra, still_more = chore()
        nodes = [*first, *body, *extra, helper.make_node("Add", ["raw", "nothing"], ["score"])]
        constants += [*more, *still_more]
    else:
        nodes, constants = network(layers, "features", "score")
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(names)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, facts(names, threshold(layers)))
    onnx.checker.check_model(model, full_check=True)
    return model


def facts(names: list[str], limit: float) -> dict[str, str]:
    """The metadata: feature names in column order, threshold, where the score is, what is usual."""
    work = len(names) - len(FEATURES)
    return {
        "streamer.features": json.dumps(names),
        "streamer.threshold": str(limit),
        "streamer.output": "score",
        "streamer.column": "0",
        "streamer.center": json.dumps([*CENTER, *[0.0] * work]),
        "streamer.scale": json.dumps([*SCALE, *[1.0] * work]),
        "streamer.trained_at": "2025-01-01T00:00:00Z",  # random weights with a fixed seed: made, not trained
        "streamer.data_digest": "sha256:" + "0" * 64,
    }


def write(models: Path) -> None:
    """Write both models below `models` in the tree the service reads."""
    for name in ("bench", "slow"):
        path = models / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(build(name), path)


def work_per_second(models: Path, turns: int = 400) -> float:
    """How many turns of the slow model's loop this machine does in a second on one thread (best of five)."""
    import onnxruntime as ort  # noqa: PLC0415  only the slow-model run needs it

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    path = models / "slow" / "1" / "model.onnx"
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    row = np.zeros((1, 7), np.float32)
    row[0, 6] = turns
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        session.run(None, {"features": row})
        best = min(best, time.perf_counter() - start)
    return turns / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="model repository to write bench and slow to")
    write(parser.parse_args().models)


if __name__ == "__main__":
    main()
