"""Trains `models/sensor-anomaly/1/model.onnx` for `topologies/sensor.py` on NAB series, and reports how good it is.

    python -m topologies.train_sensor --data DIR --labels FILE [--results DIR]

A forest learns which records in a window (a reading beyond all the earlier ones) lie in a labelled anomaly. Monotone: the
further beyond, the higher the score. The threshold is the one that scores best out of fold with NAB's standard profile,
flags as the service gives them. One core, under a minute; same input and packages give the same trees.
"""

import argparse
import csv
import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import ExtraTreesClassifier

from streamer.clock import SystemClock
from topologies.nab import Flags, Series, Verdict, cool_down, judge, raw_score, read
from topologies.sensor import SAMPLES, WARM_UP, features
from topologies.train_window import SeriesWindow

Matrix = NDArray[np.float32]
Scores = NDArray[np.float64]

SEEDS = (0, 1, 2)
FOLDS = 5
TREES, DEPTH, ROWS_PER_LEAF = 60, 4, 40
BACKGROUND_SHARE = 0.05  # of the rows that are no record, drawn as further examples of "normal"
RISING = {"beyond", "record", "rise", "fall"}  # the score must not fall when one of these grows
OPSET, IR_VERSION = 17, 9
DIFFERENCE_MAX = 1e-5
COOL_DOWN_ROWS = 100
MODEL = Path(__file__).parent / "models" / "sensor-anomaly" / "1" / "model.onnx"


def inputs(series: Series) -> Matrix:
    """Features of every row of a series as the model gets them, (rows, features)."""
    return np.stack(list(features(SeriesWindow(series.time, series.value, SAMPLES)).values()), axis=1).astype(np.float32)


def names() -> list[str]:
    """Feature names in the order of the model's columns."""
    return list(features(SeriesWindow(np.zeros(2), np.zeros(2), SAMPLES)))


def fit(data: list[Series], columns: dict[str, Matrix], seed: int) -> ExtraTreesClassifier:
    """Train on the records of `data` and a share of the other rows; every series weighs the same."""
    rng = np.random.default_rng(seed)
    rows, target, weight = [], [], []
    for series in data:
        x = columns[series.name]
        record = x[:, names().index("beyond")] > 0.05
        keep = (record | (rng.random(len(x)) < BACKGROUND_SHARE)) & (np.arange(len(x)) >= WARM_UP)
        rows.append(x[keep])
        target.append((series.inside() & record)[keep])
        weight.append(np.where(record, 1.0, 2.0)[keep] / len(x))
    forest = ExtraTreesClassifier(
        TREES,
        max_depth=DEPTH,
        min_samples_leaf=ROWS_PER_LEAF,
        max_features=None,
        monotonic_cst=[int(name in RISING) for name in names()],
        random_state=seed,
        n_jobs=1,
    )
    return forest.fit(np.concatenate(rows), np.concatenate(target), sample_weight=np.concatenate(weight))


def probability(forest: ExtraTreesClassifier, x: Matrix) -> Scores:
    """Score of each row."""
    return np.asarray(forest.predict_proba(x)[:, 1], np.float64)


def out_of_fold(data: list[Series], columns: dict[str, Matrix], seed: int) -> dict[str, Scores]:
    """Scores of every series from a forest that saw no series of the same source."""
    sources = sorted({series.source for series in data})
    np.random.default_rng(seed).shuffle(sources)
    fold = {source: place % FOLDS for place, source in enumerate(sources)}
    scores = {}
    for k in range(FOLDS):
        forest = fit([series for series in data if fold[series.source] != k], columns, seed)
        for series in data:
            if fold[series.source] == k:
                scores[series.name] = probability(forest, columns[series.name])
    return scores


def best_threshold(data: list[Series], runs: list[dict[str, Scores]], cool: int) -> float:
    """The threshold with the highest standard score summed over `runs` of scores."""
    pooled = np.concatenate([run[series.name][series.probation :] for run in runs for series in data])
    candidates = np.unique(np.quantile(pooled, 1 - np.geomspace(1e-4, 0.05, 60)))
    totals = [
        sum(raw_score(series, flag(run[series.name], t, cool), 0.11, 1.0) for run in runs for series in data) for t in candidates
    ]
    return float(candidates[int(np.argmax(totals))])


def flag(scores: Scores, threshold: float, cool: int) -> Flags:
    """Flags above the threshold, with a cool-down of `cool` rows (0: none, as the service has it now)."""
    flags: Flags = scores > threshold
    return cool_down(flags, cool) if cool else flags


def verdict(data: list[Series], scores: dict[str, Scores], threshold: float, cool: int) -> Verdict:
    """What the scores are worth at one threshold."""
    return judge((series, flag(scores[series.name], threshold, cool)) for series in data)


def digest(data: list[Series]) -> str:
    """Fingerprint of the training data: names, rows and windows."""
    sha = hashlib.sha256()
    for series in data:
        sha.update(json.dumps([series.name, series.stamps, series.windows]).encode())
        sha.update(series.value.astype("<f8").tobytes())
    return f"sha256:{sha.hexdigest()}"


def export(forest: ExtraTreesClassifier, facts: dict[str, str]) -> onnx.ModelProto:
    """The forest as ONNX: input (rows, features) float32, output `probabilities` (rows, 2), column 1 the score."""
    model = convert_sklearn(
        forest,
        "sensor-anomaly",
        initial_types=[("features", FloatTensorType([None, len(names())]))],
        options={id(forest): {"zipmap": False}},
        target_opset=OPSET,
    )
    model.ir_version = IR_VERSION
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return cast("onnx.ModelProto", model)


def check(path: Path, forest: ExtraTreesClassifier, x: Matrix) -> tuple[float, float]:
    """Largest difference between ONNX Runtime and scikit-learn on `x`, and microseconds a row in batches of 512.

    Raises:
        SystemExit: the difference is above DIFFERENCE_MAX.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    batches = np.array_split(x, max(1, len(x) // 512))
    started = time.perf_counter()
    got = np.concatenate([session.run(["probabilities"], {"features": batch})[0][:, 1] for batch in batches])
    took = time.perf_counter() - started
    difference = float(np.abs(got - probability(forest, x)).max())
    if difference > DIFFERENCE_MAX:
        raise SystemExit(f"the ONNX model differs from scikit-learn by {difference:.2g}, over {DIFFERENCE_MAX:g}")
    return difference, 1e6 * took / len(x)


def save(path: Path, forest: ExtraTreesClassifier, threshold: float, x: Matrix, data_digest: str) -> None:
    """Write the model with all that the service reads from it."""
    now = datetime.fromtimestamp(SystemClock().wall_us() // 1_000_000, UTC)
    facts = {
        "features": json.dumps(names()),
        "threshold": repr(threshold),
        "output": "probabilities",
        "column": "1",
        "center": json.dumps([round(float(c), 6) for c in np.median(x, axis=0)]),
        "scale": json.dumps([round(max(float(s), 1e-3), 6) for s in x.std(axis=0)]),
        "trained_at": now.isoformat(),
        "data_digest": data_digest,
        "samples": str(SAMPLES),
    }
    model = export(forest, {f"streamer.{name}": value for name, value in facts.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def show(title: str, verdicts: list[Verdict]) -> None:
    """One line: means over the verdicts."""
    scores = {profile: np.mean([v.scores[profile] for v in verdicts]) for profile in verdicts[0].scores}
    line = "  ".join(f"{profile} {score:5.1f}" for profile, score in scores.items())
    found, alarms = np.mean([v.found for v in verdicts]), np.mean([v.alarms_per_1000_rows for v in verdicts])
    print(f"{title:44s} {line}  windows {found:.1f}/{verdicts[0].windows}  false alarms/1000 rows {alarms:.2f}")  # noqa: T201


def write_results(folder: Path, data: list[Series], flags: dict[str, Flags]) -> None:
    """Flags as NAB result files, for an independent scorer at threshold 0.5."""
    for series in data:
        path = folder / series.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["timestamp", "value", "anomaly_score"])
            writer.writerows(zip(series.stamps, series.value, flags[series.name].astype(int), strict=True))


def report(data: list[Series], runs: list[dict[str, Scores]], threshold: float, results: Path | None) -> None:
    """Print and optionally write what the last run (in-sample) and the others (out of fold) are worth."""
    *folds, fitted = runs
    for cool in (0, COOL_DOWN_ROWS):
        show(f"out of fold, cool-down {cool}", [verdict(data, run, threshold, cool) for run in folds])
        show(f"in-sample, cool-down {cool}", [verdict(data, fitted, threshold, cool)])
        if results:
            for title, run in [("in-sample", fitted), *((f"out-of-fold-{s}", r) for s, r in zip(SEEDS, folds, strict=True))]:
                flags = {series.name: flag(run[series.name], threshold, cool) for series in data}
                write_results(results / f"{title}-cool-{cool}", data, flags)
    other = best_threshold(data, folds, COOL_DOWN_ROWS)
    show(f"out of fold, cool-down {COOL_DOWN_ROWS}, threshold {other:.3f}",
         [verdict(data, run, other, COOL_DOWN_ROWS) for run in folds])  # fmt: skip


def rescaled(series: Series) -> Series:
    """The same series in another unit and on another level."""
    return Series(series.name, series.stamps, series.time, series.value * 1000 + 1e6, series.windows)


def main() -> None:
    """Train, export, check, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with category/file.csv")
    parser.add_argument("--labels", type=Path, required=True, help="JSON: file -> anomaly windows; names the series used")
    parser.add_argument("--model", type=Path, default=MODEL, help="where to write")
    parser.add_argument("--results", type=Path, help="folder for NAB result files (flags)")
    given: Any = parser.parse_args()
    data = read(given.data, given.labels)
    columns = {series.name: inputs(series) for series in data}
    folds = [out_of_fold(data, columns, seed) for seed in SEEDS]
    threshold = best_threshold(data, folds, 0)
    forest = fit(data, columns, SEEDS[0])
    x = np.concatenate([columns[series.name][WARM_UP:] for series in data])
    save(given.model, forest, threshold, x, digest(data))
    difference, row_us = check(given.model, forest, x)
    fitted = {series.name: probability(forest, columns[series.name]) for series in data}
    report(data, [*folds, fitted], threshold, given.results)
    moved = {series.name: probability(forest, inputs(rescaled(series))) for series in data}
    changed = sum(int(((moved[name] > threshold) != (fitted[name] > threshold)).sum()) for name in moved)
    print(  # noqa: T201
        f"threshold {threshold:.4f}; {given.model.stat().st_size:,} bytes; {row_us:.2f} us a row; ONNX against scikit-learn "
        f"{difference:.1e}; flags that change when every value becomes 1000 x value + 1e6: {changed}"
    )


if __name__ == "__main__":
    main()
