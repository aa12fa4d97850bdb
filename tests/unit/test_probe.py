"""A model whose scores belong to other rows raises nothing by itself: it is tried at start, and refused."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from streamer import ModelError
from streamer.testing import TopologyTest, values
from tests.kit.models import write_text
from tests.kit.pairs import Pair, topology


def started(models: Path, max_batch: int = 8) -> list[str]:
    """What is said at start where it is not refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with TopologyTest(topology(max_batch), models=models):
            return [str(warning.message) for warning in caught]


# A score of each row by itself: tanh(a) + 2 tanh(b), in a column.
OWN = """
    weights = Constant <value = float[2, 1] {1.0, 2.0}> ()
    bent = Tanh (x)
    own = MatMul (bent, weights)
"""
ZERO = "zero = Constant <value = int64[1] {0}> ()"
# The same number for each of them, `one`, as a column.
SPREAD = "nothing = Sub (own, own) score = Add (nothing, one)"


def graph(nodes: str, output: str = "float[rows, c] score", given: str = "float[rows, 2] x") -> str:
    return f"g ({given}) => ({output}) {{ {OWN} {nodes} }}"


MIXED = {
    "one row for all": graph(f"{ZERO} one = Gather <axis = 0> (own, zero) {SPREAD}"),
    "a mean over the batch": graph(f"one = ReduceMean <axes = [0], keepdims = 1> (own) {SPREAD}"),
    "half a mean over the batch": graph("one = ReduceMean <axes = [0], keepdims = 1> (own) score = Add (own, one)"),
    "the largest": graph(f"one = ReduceMax <axes = [0], keepdims = 1> (own) {SPREAD}"),
    "a running sum": graph("axis = Constant <value = int64 {0}> () score = CumSum (own, axis)"),
    "shares of the batch": graph("score = Softmax <axis = 0> (own)"),
    "sorted": graph(
        "count = Shape <start = 0, end = 1> (own) score, order = TopK <axis = 0> (own, count)", "float[rows, 1] score"
    ),
    "the row before": graph(
        f"""{ZERO} one = Constant <value = int64[1] {{1}}> () far = Constant <value = int64[1] {{99}}> ()
        head = Slice (own, zero, one, zero) count = Shape <start = 0, end = 1> (own) less = Sub (count, one)
        tail = Slice (own, zero, less, zero) score = Concat <axis = 0> (head, tail)"""
    ),
    "a good score beside one for all": graph(
        "one = ReduceMean <axes = [0], keepdims = 1> (own) nothing = Sub (own, own) all = Add (nothing, one) "
        "score = Concat <axis = 1> (all, own)"
    ),
    "fixed rows, transposed": graph(
        "two = Concat <axis = 1> (own, own) moved = Add (two, x) score = Transpose (moved)", "float[2, 2] score", "float[2, 2] x"
    ),
    "transposed input": "g (float[2, rows] x) => (float[rows] score) { score = ReduceSum <keepdims = 0> (x, zero) }".replace(
        "{ ", f"{{ {ZERO} "
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_model_that_gives_a_row_the_score_of_others_is_refused(name: str, tmp_path: Path) -> None:
    write_text(tmp_path, MIXED[name])
    with pytest.raises(ModelError, match=r"pairs\.py:\d+: .*model\.onnx: a row that scores .* alone scores .* rows\. .*export"):
        started(tmp_path)


COUNTS = {
    "transposed": graph("two = Concat <axis = 1> (own, own) score = Transpose (two)", "float[2, rows] score"),
    "time-major": graph(
        "front = Unsqueeze (own, zero) score = Concat <axis = 0> (front, front, front)".replace("front =", f"{ZERO} front =", 1),
        "float[3, rows, 1] score",
    ),
    "one number": graph("score = ReduceSum <keepdims = 0> (own)", "float score"),
    "one mean": graph("score = ReduceMean <axes = [0], keepdims = 1> (own)", "float[1, 1] score"),
    "flat": graph(
        "two = Concat <axis = 1> (own, own) flat = Constant <value = int64[1] {-1}> () score = Reshape (two, flat)",
        "float[n] score",
    ),
    "only some": graph(
        f"{ZERO} some = Greater (own, own) flat = Squeeze (some) score = Compress <axis = 0> (own, flat)", "float[n, 1] score"
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_model_whose_output_has_not_a_row_for_each_row_is_refused(name: str, tmp_path: Path) -> None:
    write_text(tmp_path, COUNTS[name])
    with pytest.raises(ModelError, match=r"its output 'score' has the shape \(.*\) for \d rows; it must have one row for each"):
        started(tmp_path)


def test_columns_that_grow_with_the_batch_are_refused(tmp_path: Path) -> None:
    write_text(tmp_path, graph("turned = Transpose (own) score = MatMul (own, turned)", "float[rows, rows] score"))
    with pytest.raises(ModelError, match="gives 1 numbers for a row alone and 2 for each of 2 rows"):
        started(tmp_path)


def test_a_model_for_one_row_at_a_time_is_refused_together_and_served_alone(tmp_path: Path) -> None:
    """An export with its batch size baked in; each row alone is right."""
    one = "shape = Constant <value = int64[2] {1, 1}> () score = Reshape (own, shape)"
    write_text(tmp_path, graph(one, "float[1, 1] score"))
    with pytest.raises(ModelError, match=r"scores each of 2 rows alone, but not together .*max_batch=1"):
        started(tmp_path)
    assert started(tmp_path, max_batch=1) == []


def test_one_number_is_the_score_of_a_run_with_one_row(tmp_path: Path) -> None:
    write_text(tmp_path, COUNTS["one number"])
    with TopologyTest(topology(1), models=tmp_path) as test:
        for n in range(3):
            test.send(Pair(float(n), 0.0))
        scores = sorted(values(test.read("predictions"), "score"))
    assert np.allclose(scores, np.tanh([0.0, 1.0, 2.0]), atol=1e-6)


SOUND = {
    "own rows": graph("score = Identity (own)"),
    "flat scores": graph("one = Constant <value = int64[1] {1}> () score = Squeeze (own, one)", "float[rows] score"),
    "steps of a row": graph(
        "two = Concat <axis = 1> (own, own) one = Constant <value = int64[1] {2}> () score = Unsqueeze (two, one)",
        "float[rows, 2, 1] score",
    ),
    "fixed rows": graph("score = Identity (own)", "float[4, 1] score", "float[4, 2] x"),
    "large numbers": graph("big = Constant <value = float {3.0e7}> () score = Mul (own, big)"),
    "a second column that is the same for all": graph("nothing = Sub (own, own) score = Concat <axis = 1> (nothing, own)"),
    "two labels": graph("yes = Greater (own, own) no = Not (yes) a = Cast <to = 1> (no) score = Add (a, own)"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_model_that_scores_rows_by_themselves_starts_without_a_word(name: str, tmp_path: Path) -> None:
    write_text(tmp_path, SOUND[name])
    assert started(tmp_path) == []


def test_a_quantised_model_starts_and_says_how_much_its_scores_move(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    numbers = {name: ", ".join(f"{n:.4f}" for n in random.normal(0, 1, size)) for name, size in {"w": 64, "v": 32}.items()}
    text = f"""g (float[rows, 2] x) => (float[rows, 1] score)
        <float[2, 32] w = {{{numbers["w"]}}}, float[32, 1] v = {{{numbers["v"]}}}>
        {{ first = MatMul (x, w) bent = Relu (first) score = MatMul (bent, v) }}"""
    exact = write_text(tmp_path / "exact", text)
    assert started(tmp_path / "exact") == []
    path = tmp_path / "quantised" / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    quantize_dynamic(exact, path, weight_type=QuantType.QInt8)
    (said,) = started(tmp_path / "quantised")
    assert "scores move with the rows beside them, by up to" in said
    share = float(said.partition("(")[2].partition("%")[0])
    assert 0 < share < 10


@pytest.mark.parametrize(("size", "unsure"), [("0.001", False), ("30.0", True)])
def test_a_model_with_chance_in_it_starts_and_says_so(size: str, unsure: bool, tmp_path: Path) -> None:
    noise = f"noise = RandomNormalLike <scale = {size}, seed = 1.0> (own) score = Add (own, noise)"
    write_text(tmp_path, graph(noise))
    (said,) = started(tmp_path)
    assert "the same rows score differently each time" in said
    assert ("nothing is known about whether each score belongs to its row" in said) is unsure


def test_a_mix_up_is_seen_through_a_little_noise(tmp_path: Path) -> None:
    noise = "noise = RandomNormalLike <scale = 0.001, seed = 1.0> (own) mean = ReduceMean <axes = [0], keepdims = 1> (own)"
    write_text(tmp_path, graph(f"{noise} one = Add (mean, mean) {SPREAD}".replace("(nothing, one)", "(noise, one)")))
    with pytest.raises(ModelError, match="a row that scores"):
        started(tmp_path)


# ---------------------------------------------------------------------- rows that a model takes

TABLE = """
    table = Constant <value = float[10, 1] {{3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0, 3.5, 8.0}}> ()
    {shift} whole = Cast <to = 7> (x) place = {place}
    column = Gather <axis = 1> (place, zero) flat = Squeeze (column) many = Reshape (flat, all)
    own = Gather <axis = 0> (table, many)
"""
ALL = "all = Constant <value = int64[1] {-1}> ()"


def looked_up(place: str, shift: str = "") -> str:
    """A model that looks the first feature up in a table of ten: others make it fail."""
    return f"g (float[rows, 2] x) => (float[rows, 1] score) {{ {ZERO} {ALL} {TABLE.format(place=place, shift=shift)} NODES }}"


def test_a_model_that_refuses_zeros_and_negative_numbers_is_tried_on_rows_it_takes(tmp_path: Path) -> None:
    ten = "ten = Constant <value = int64[1] {10}> ()"
    text = looked_up("Sub (ten, whole)", ten)  # 1 to 10 lie in the table, 0 and less do not
    write_text(tmp_path / "sound", text.replace("NODES", "score = Identity (own)"))
    assert started(tmp_path / "sound") == []
    write_text(tmp_path / "mixed", text.replace("NODES", f"one = ReduceMean <axes = [0], keepdims = 1> (own) {SPREAD}"))
    with pytest.raises(ModelError, match="a row that scores"):
        started(tmp_path / "mixed")
    with TopologyTest(topology(), models=tmp_path / "sound") as test:
        for n in (1.0, 2.0, 3.0):
            test.send(Pair(n, 0.0))
        assert sorted(values(test.read("predictions"), "score")) == [3.5, 5.0, 8.0]
        assert test.read("dead") == []


def test_usual_values_of_the_metadata_are_rows_a_model_takes(tmp_path: Path) -> None:
    far = "far = Constant <value = int64[1] {1000000}> ()"
    text = looked_up("Sub (whole, far)", far).replace("NODES", f"one = ReduceMean <axes = [0], keepdims = 1> (own) {SPREAD}")
    facts = {"streamer.features": json.dumps(["a", "b"]), "streamer.center": "[1000004, 0]", "streamer.scale": "[1.5, 1]"}
    write_text(tmp_path, text, facts=facts)
    with pytest.raises(ModelError, match="a row that scores"):
        started(tmp_path)


def test_a_model_that_takes_no_made_up_row_starts_and_says_so(tmp_path: Path) -> None:
    far = "far = Constant <value = int64[1] {1000000}> ()"
    write_text(tmp_path, looked_up("Sub (whole, far)", far).replace("NODES", "score = Identity (own)"))
    (said,) = started(tmp_path)
    assert "the model refuses every made-up row" in said
    assert "nothing is known about whether each score belongs to its row" in said


def test_a_model_that_scores_all_rows_alike_starts_and_says_so(tmp_path: Path) -> None:
    write_text(tmp_path, graph("score = Sub (own, own)"))
    (said,) = started(tmp_path)
    assert "made-up rows all score alike, so nothing is known" in said
