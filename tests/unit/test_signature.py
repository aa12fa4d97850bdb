"""Exports as the usual tools make them: what cannot be served is refused at start, with the option that mends it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from streamer.cli.doctor import examine
from streamer.errors import ModelError
from streamer.settings.settings import KafkaSettings, Settings
from streamer.testing import TopologyTest
from tests.kit.models import write_text
from tests.kit.pairs import topology

ROOT = Path(__file__).resolve().parents[2]
ZIPMAP = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
    g (float[rows, 2] x) => (int64[rows, 1] label, seq(map(int64, float)) probability) {
        score = Softmax (x)  probability = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1]> (score)
        label = ArgMax <axis = 1> (x) }"""

REFUSED = {
    "a list of dicts": (
        ZIPMAP,
        r"'probability' seq\(map\(int64,tensor\(float\)\)\)\. .* zipmap=False .*options=\{'zipmap': False\}",
    ),
    "double": (
        "g (double[rows, 2] x) => (double[rows, 2] score) { score = Identity (x) }",
        r"takes tensor\(double\).* float32 example .*zipmap",
    ),
    "half": (
        "g (float16[rows, 2] x) => (float16[rows, 2] score) { score = Identity (x) }",
        r"takes tensor\(float16\).* put a Cast",
    ),
    "whole numbers": (
        "g (int64[rows, 2] x) => (float[rows, 2] score) { score = Cast <to = 1> (x) }",
        r"'x' takes tensor\(int64\)",
    ),
    "text": (
        "g (string[rows, 2] x) => (float[rows, 2] score) { score = Cast <to = 1> (x) }",
        r"'x' takes tensor\(string\)",
    ),
    "a label alone": (
        "g (float[rows, 2] x) => (int64[rows, 1] label) { label = ArgMax <axis = 1> (x) }",
        "A label alone cannot be flagged",
    ),
    "a sequence of tensors": (
        "g (float[rows, 2] x) => (seq(float[rows, 2]) score) { score = SequenceConstruct (x, x) }",
        "Only tensors can be read",
    ),
    "rows in steps": (
        "g (float[rows, 3, 2] x) => (float[rows, 3, 2] score) { score = Identity (x) }",
        r"has the shape \(rows, 3, 2\), it would be given \(rows, 2\)",
    ),
    "one axis": (
        "g (float[n] x) => (float[n] score) { score = Identity (x) }",
        r"has the shape \(n\), it would be given \(rows, 2\)",
    ),
    "an input too wide": (
        "g (float[rows, 1] a, float[rows, 3] b) => (float[rows, 3] score) { score = Add (a, b) }",
        r"'b' has the shape \(rows, 3\), it would be given \(rows\)",
    ),
    "two numbers of rows": (
        "g (float[4, 1] a, float[2, 1] b) => (float[4, 1] score) { score = Identity (a) }",
        "fixed to 2 and 4 rows",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_export_that_cannot_be_served_is_refused_with_the_way_to_export_it(name: str, tmp_path: Path) -> None:
    text, says = REFUSED[name]
    write_text(tmp_path, text)
    with pytest.raises(ModelError, match=says):
        TopologyTest(topology(), models=tmp_path)


@pytest.mark.parametrize("kind", ["float", "double", "float16"])
def test_scores_of_any_float_type_are_read(kind: str, tmp_path: Path) -> None:
    number = {"float": 1, "double": 11, "float16": 10}[kind]
    write_text(tmp_path, f"g (float[rows, 2] x) => ({kind}[rows, 2] score) {{ score = Cast <to = {number}> (x) }}")
    with TopologyTest(topology(), models=tmp_path):
        pass  # it is taken


FLOW = """
from tests.kit.pairs import topology
flow = topology()
"""


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_run_and_doctor_say_the_same_of_a_default_export_of_scikit_learn(kind: type, tmp_path: Path) -> None:
    rows: Any = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [2.0, 1.0]]).astype(kind)
    exported = to_onnx(LogisticRegression().fit(rows, [0, 1, 0, 1]), rows[:1])
    path = tmp_path / "models" / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(exported.SerializeToString())
    (tmp_path / "flow.py").write_text(FLOW)
    name = f"{tmp_path / 'flow.py'}:flow"
    command = [sys.executable, "-m", "streamer", "run", name, "--http", "off"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    checks = list(examine(name, Settings(kafka=KafkaSettings(common={"bootstrap.servers": "127.0.0.1:1"}))))
    assert "zipmap=False" in run.stderr
    assert (run.returncode, run.stderr) == (4, f"streamer: {checks[-1].fix}\n")
    assert not checks[-1].ok
