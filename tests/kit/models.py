"""Small ONNX models made on the spot: inputs, what they compute, and the facts in their metadata."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Shape = Sequence[int | str]


def write_model(
    models: Path,
    name: str = "m",
    *,
    inputs: Mapping[str, Shape],
    output: Shape = ("rows", 1),
    version: int = 1,
    facts: Mapping[str, str] | None = None,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Write `<models>/<name>/<version>/model.onnx`: its score is the sum of all inputs of a row, once for each column."""
    nodes = []
    for number, (given, shape) in enumerate(inputs.items()):
        axes = [f"axes{number}"]
        others = helper.make_tensor("a", TensorProto.INT64, [len(shape) - 1], range(1, len(shape)))
        nodes.append(helper.make_node("Constant", [], axes, value=others))
        nodes.append(helper.make_node("ReduceSum", [given, *axes], [f"sum{number}"], keepdims=0))
    nodes.append(helper.make_node("Sum", [f"sum{n}" for n in range(len(inputs))], ["total"]))
    nodes.append(helper.make_node("Constant", [], ["one"], value=helper.make_tensor("o", TensorProto.INT64, [1], [1])))
    nodes.append(helper.make_node("Unsqueeze", ["total", "one"], ["column"]))
    width = output[-1] if isinstance(output[-1], int) else 1
    nodes.append(helper.make_node("Concat", ["column"] * width, ["wide"], axis=1))
    nodes.append(helper.make_node("Cast", ["wide"], ["score"], to=kind))
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, list(shape)) for given, shape in inputs.items()],
        [helper.make_tensor_value_info("score", kind, list(output))],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, dict(facts or {}))
    onnx.checker.check_model(proto, full_check=True)
    path = models / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(proto.SerializeToString())
    return path


def write_text(models: Path, text: str, name: str = "m", *, facts: Mapping[str, str] | None = None) -> Path:
    """Write a model given in ONNX's own language, `graph (inputs) => (outputs) {nodes}`."""
    head = "" if text.startswith("<") else '<ir_version: 8, opset_import: ["" : 17]> '
    proto = onnx.parser.parse_model(head + text)
    helper.set_model_props(proto, dict(facts or {}))
    path = models / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(proto.SerializeToString())
    return path
