"""The model that ships with `topologies/sensor.py`: it loads, matches its features, and finds real anomalies."""

import json
import math
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from streamer.testing import TopologyTest
from topologies import nab, sensor
from topologies.train_window import SeriesWindow

TOPOLOGIES = Path(sensor.__file__).parent
MODEL = TOPOLOGIES / "models" / "sensor-anomaly" / "1" / "model.onnx"
SLICE = TOPOLOGIES / "data"
# The model of the first version finds 16 of 18 windows there with 21 false alarms: a floor and a ceiling, not a target.
FOUND_MIN, ALARMS_MAX = 15, 30


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def facts(session: ort.InferenceSession) -> dict[str, str]:
    return dict(session.get_modelmeta().custom_metadata_map)


def columns(value: NDArray[np.float64]) -> NDArray[np.float32]:
    time = np.arange(len(value), dtype=np.float64) * 60
    made = sensor.features(SeriesWindow(time, np.asarray(value, np.float64), sensor.SAMPLES))
    return np.stack(list(made.values()), axis=1).astype(np.float32)


def score(session: ort.InferenceSession, value: NDArray[np.float64]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = session.run(["probabilities"], {"features": columns(value)})[0][:, 1]
    return scores


def noise(rows: int, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(20, 2, rows)


def test_metadata_matches_the_topology(session: ort.InferenceSession, facts: dict[str, str]) -> None:
    made = sensor.features(SeriesWindow(np.zeros(3), np.zeros(3), sensor.SAMPLES))
    assert json.loads(facts["streamer.features"]) == list(made)
    assert session.get_inputs()[0].shape[1] == len(made) >= 6
    assert facts["streamer.output"] in [output.name for output in session.get_outputs()]
    assert facts["streamer.column"] == "1"
    assert int(facts["streamer.samples"]) == sensor.SAMPLES
    assert 0 < float(facts["streamer.threshold"]) < 1
    assert len(json.loads(facts["streamer.center"])) == len(made)
    assert all(scale > 0 for scale in json.loads(facts["streamer.scale"]))
    assert facts["streamer.data_digest"].startswith("sha256:")
    assert facts["streamer.trained_at"].startswith("20")


@pytest.mark.parametrize(
    "value",
    [
        np.full(400, 7.0),
        np.zeros(400),
        np.array([3.0]),
        np.array([3.0, -3.0]),
        noise(400) + 1e9,
        noise(400) * 1e-12,
        np.where(np.arange(400) == 300, 1e200, noise(400)),
        np.where(np.arange(400) == 300, -1e308, noise(400)),
    ],
    ids=["constant", "zero", "one", "two", "level-1e9", "tiny", "spike-1e200", "spike-1e308"],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")  # of the oracle at 1e200
def test_scores_are_finite(session: ort.InferenceSession, value: NDArray[np.float64]) -> None:
    assert np.isfinite(columns(value)).all()
    assert np.isfinite(score(session, value)).all()


def test_a_quiet_or_young_sensor_is_not_flagged(session: ort.InferenceSession, facts: dict[str, str]) -> None:
    threshold = float(facts["streamer.threshold"])
    assert (score(session, np.full(400, 7.0)) <= threshold).all()
    young = np.cumsum(np.arange(float(sensor.WARM_UP - 1)))  # every reading is a record
    assert (score(session, young) <= threshold).all()


def test_a_jump_is_flagged_in_any_unit_and_on_any_level(session: ort.InferenceSession, facts: dict[str, str]) -> None:
    threshold = float(facts["streamer.threshold"])
    value = noise(600)
    value[500] += 60
    for scale, level in [(1.0, 0.0), (1000.0, 1e6), (1e-6, 0.0), (1.0, 1e9)]:
        assert score(session, value * scale + level)[500] > threshold, (scale, level)


def test_finds_the_labelled_anomalies_of_the_shipped_slice(session: ort.InferenceSession, facts: dict[str, str]) -> None:
    threshold = float(facts["streamer.threshold"])
    data = nab.read(SLICE, SLICE / "labels.json")
    flagged = [(series, score(session, series.value) > threshold) for series in data]
    verdict = nab.judge(flagged)
    outside = sum(int((~series.inside()[series.probation :]).sum()) for series in data)
    assert verdict.windows == 18
    assert verdict.found >= FOUND_MIN
    assert verdict.alarms_per_1000_rows * outside / 1000 <= ALARMS_MAX


def test_the_service_gives_the_scores_of_the_offline_view(session: ort.InferenceSession) -> None:
    value = noise(300)
    value[280] += 60
    with TopologyTest(sensor.sensor, models=TOPOLOGIES / "models") as test:
        for number in value:
            test.send(sensor.Reading(sensor_id="s1", ts=test.now, value=float(number)))
        predictions = test.read("sensor.predictions")
        anomalies = test.read("sensor.anomalies")
    assert [p["window_n"] for p in predictions] == [min(n, sensor.SAMPLES) for n in range(1, len(value) + 1)]
    assert np.allclose([p["score"] for p in predictions], score(session, value), atol=1e-6)
    assert predictions[280]["flag"]
    assert any(math.isclose(a["time"], predictions[280]["time"]) for a in anomalies)


def test_nab_score_follows_its_definition() -> None:
    rows = 1000
    series = nab.Series("a/b.csv", (), np.zeros(rows), np.zeros(rows), ((500, 599),))
    none, perfect, late, false = (np.zeros(rows, bool) for _ in range(4))
    perfect[500], late[599], false[200] = True, True, True
    assert nab.judge([(series, none)]).scores["standard"] == 0
    assert nab.judge([(series, perfect)]).scores["standard"] == pytest.approx(100)
    assert 50 < nab.judge([(series, late)]).scores["standard"] < 52
    assert nab.judge([(series, false)]).scores["standard"] == pytest.approx(-100 * 0.11 / 2)
    assert nab.cool_down(np.ones(5, bool), 1).tolist() == [True, False, True, False, True]
