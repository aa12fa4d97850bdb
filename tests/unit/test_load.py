"""The pure parts of `load/`: schedule, percentiles, rates, the judgement of a run, the models it makes."""

import json
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from load import make_model, restore, results
from load.collect import Arrivals, parse
from load.copyloop import Job
from load.drain import Drained, median_rate
from load.drains import cost
from load.events import VALUE_BYTES, Readings
from load.log import generation, java_hash
from load.openloop import Schedule, Sent, judge, void
from load.pairs import ratios
from load.slow_model import Plan, Verdict
from load.stats import due, percentiles, rate_from_curve, rotated, spread


@pytest.mark.parametrize(("elapsed_s", "expected"), [(-0.1, 0), (0.0, 1), (0.00099, 1), (0.001, 2), (1.0, 1001), (9.0, 5000)])
def test_schedule_is_fixed(elapsed_s: float, expected: int) -> None:
    assert due(elapsed_s, rate=1000.0, total=5000) == expected


def test_percentiles_agree_with_numpy_to_three_digits() -> None:
    values = np.random.default_rng(1).gamma(2.0, 5.0, 100_000)
    found = percentiles(values)
    for name, mark in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99), ("p999_ms", 99.9), ("max_ms", 100)):
        assert found[name] == pytest.approx(np.percentile(values, mark), rel=2e-3)


def test_percentiles_refuse_what_cannot_be_a_latency() -> None:
    with pytest.raises(ValueError, match="nothing arrived"):
        percentiles(np.array([]))
    with pytest.raises(ValueError, match="different clocks"):
        percentiles(np.array([1.0, -0.5]))


def test_rate_leaves_out_what_was_done_at_the_first_sample() -> None:
    curve = [(0.0, 0), (5.0, 0), (5.1, 100), (5.6, 350), (6.1, 600), (6.2, 600)]
    assert rate_from_curve(curve, 600) == pytest.approx(500.0)


@pytest.mark.parametrize("curve", [[], [(0.0, 0)], [(0.0, 10), (1.0, 599)], [(0.0, 0), (1.0, 600)]])
def test_rate_needs_a_beginning_and_an_end(curve: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match="committed"):
        rate_from_curve(curve, 600)


def test_rotation_gives_every_system_every_place() -> None:
    names = ["a", "b", "c"]
    places = Counter((name, i) for turn in range(3) for i, name in enumerate(rotated(names, turn)))
    assert set(places.values()) == {1}
    assert len(places) == 9


def test_median_and_spread() -> None:
    assert median_rate([Drained(90.0), Drained(120.0), Drained(100.0)]) == 100
    assert spread([90.0, 120.0, 100.0]) == pytest.approx(0.3)
    assert spread([5.0]) == 0.0


def test_readings_have_the_stated_size_and_equal_shares() -> None:
    readings = Readings(1_000)
    records = [readings.record(n, 1_700_000_000_123_456 + n) for n in range(263_000)]
    assert {len(record["value"]) for record in records} == {VALUE_BYTES}
    event = json.loads(records[0]["value"])
    assert event["sensor_id"].encode() == records[0]["key"]
    assert event["ts"] == 1_700_000_000.123456
    shares = Counter(record["key"] for record in records)
    assert len(shares) == 1_000
    assert set(shares.values()) == {263}


def test_many_keys_all_occur() -> None:
    readings = Readings(100_000)
    assert len({readings.record(n, 0)["key"] for n in range(300_000)}) == 100_000


def test_a_hot_key_has_its_share_and_the_others_the_rest() -> None:
    readings, even = Readings(1_000, hot_share=0.9), Readings(1_000)
    keys = [readings.record(n, 0)["key"] for n in range(263_000)]
    shares = Counter(keys)
    assert shares[b"sensor-00000"] / len(keys) == pytest.approx(0.9, abs=0.01)
    assert len(shares) == 1_000
    cold = [n for n, key in enumerate(keys) if key != b"sensor-00000"]
    assert [keys[n] for n in cold] == [even.record(n, 0)["key"] for n in cold]


def test_keys_can_come_once_each() -> None:
    readings = Readings(1_000, order=1)
    for first in (0, 1_000):
        assert len({readings.record(n, 0)["key"] for n in range(first, first + 1_000)}) == 1_000


def test_work_is_one_more_field() -> None:
    event = json.loads(Readings(10).record(0, 1_700_000_000_000_000, 35)["value"])
    assert event["work"] == 35


def prediction(**changed: Any) -> bytes:
    fields = {"id": "a.b/3/1234", "key": "s1", "time": 1700000000.123456, "score": 0.5, "flag": False}
    return json.dumps(fields | changed, separators=(",", ":")).encode()


def test_predictions_are_cut_as_json_would_read_them() -> None:
    assert parse(prediction()) == (1700000000.123456, 3, 1234)
    assert parse(prediction(id="a/b/0/7", time=5)) == (5.0, 0, 7)


@pytest.mark.parametrize("value", [b"", b"{}", b'{"id":"x"}', b'{"id":"t/0/1"}'])
def test_other_bytes_are_not_a_prediction(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"subsection|unpack"):
        parse(value)


def arrivals(latency_s: float, offsets: list[int]) -> Arrivals:
    intended = 100.0 + np.array(offsets) / 1_000
    zeros = np.zeros(len(offsets), np.int64)
    return Arrivals(intended, intended + latency_s, zeros, np.array(offsets))


def test_latency_counts_from_the_schedule_after_the_warm_up() -> None:
    seen = arrivals(0.004, list(range(2_000)))
    seen.received_s[:500] += 3.0  # a cold start belongs to the warm-up
    sent = Sent(100.0, np.full(2_000, 1.0), 2.0)
    row = judge(sent, seen, Schedule(1_000.0, 2.0), warmup_s=0.5)
    assert row["p50_ms"] == pytest.approx(4.0, rel=2e-3)
    assert row["max_ms"] == pytest.approx(4.0, rel=2e-3)
    assert (row["achieved_per_s"], row["lost"], row["repeated"], row["void"]) == (1_000, 0, 0, None)


def test_loss_and_repetition_are_counted_by_id() -> None:
    seen = arrivals(0.004, [0, 1, 1, 3])
    row = judge(Sent(100.0, np.ones(5), 0.005), seen, Schedule(1_000.0, 0.005), warmup_s=0.0)
    assert (row["lost"], row["repeated"]) == (2, 1)
    assert "2 events" in row["void"]


def test_a_late_sender_voids_the_run() -> None:
    assert void(5.0, 4.9, lost=0) is not None
    assert void(4.9, 5.0, lost=0) is None


def test_group_generation_is_read_from_the_offsets_topic() -> None:
    class Record:
        def __init__(self, version: int, group: bytes) -> None:
            self._key = struct.pack(">hh", version, len(group)) + group

        def key(self) -> bytes:
            return self._key

        def value(self) -> bytes:
            return struct.pack(">hh8si", 3, 8, b"consumer", 17) + b"rest"

    records: list[Any] = [Record(2, b"mine"), Record(2, b"other"), Record(1, b"mine")]
    assert [generation(record, "mine") for record in records] == [17, None, None]
    assert java_hash("hello") == 99162322
    for group in ("streamer-bench", "load-wide-1795567531209342344", "load-wide-1795567531209342345"):
        assert java_hash(group) == abs(signed_hash(group))
    assert java_hash("load-wide-1795567531209342344") % 4 == 1  # where a broker was seen to put it: its hash is negative


def signed_hash(text: str) -> int:
    """The definition: sum of s[i] * 31^(n-1-i), as a signed 32-bit number."""
    code = 0
    for place, letter in enumerate(reversed(text)):
        code += ord(letter) * pow(31, place, 2**32)
    return (code + 2**31) % 2**32 - 2**31


def test_models_score_as_their_weights_say_whatever_the_work(tmp_path: Path) -> None:
    make_model.write(tmp_path)
    rows = ordinary_rows(64)[:50]
    expected = make_model.score(make_model.weights(), rows)
    bench = run_model(tmp_path / "bench/1/model.onnx", rows)
    np.testing.assert_allclose(bench, expected, atol=1e-5)
    for work in (0.0, 3.0):
        with_work = np.column_stack([rows, np.full(50, work, np.float32)])
        np.testing.assert_array_equal(run_model(tmp_path / "slow/1/model.onnx", with_work), bench)


@pytest.mark.parametrize("samples", [1, 2, 5, 20, 64])
def test_few_are_flagged_however_full_the_window(samples: int) -> None:
    layers = make_model.weights()
    scores = make_model.score(layers, ordinary_rows(samples))
    flagged = float((scores > make_model.threshold(layers)).mean())
    assert flagged < 0.005
    assert flagged > 0.0002 or samples == 1


def ordinary_rows(samples: int) -> Any:
    windows = np.random.default_rng(3).normal(20, 2, (50_000, samples))
    columns = [windows.mean(1), windows.std(1), windows.min(1), windows.max(1), windows[:, -1]]
    return np.stack([*columns, windows[:, -1] - windows[:, 0]], axis=1).astype(np.float32)


def run_model(path: Path, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert len(json.loads(facts["streamer.features"])) == rows.shape[1]
    assert 0.5 < float(facts["streamer.threshold"]) < 1.0
    return session.run([facts["streamer.output"]], {"features": rows})[0][:, int(facts["streamer.column"])]


def test_the_slow_plan_leaves_a_fiftieth_of_the_rate() -> None:
    plan = Plan(rate=20_000.0, slow_s=60.0)
    assert plan.heavy == 24_000
    assert plan.offered == 1_200_000
    per_event_s = plan.work(turns_per_s=20_000.0) / 20_000.0
    assert per_event_s * plan.heavy == pytest.approx(60.0)


GOOD = Verdict(
    steady_rss_mib=300.0,
    slow_rss_mib=363.9,
    generations=1,
    member_sets=1,
    slow_for_s=60.0,
    slow_wanted_s=60.0,
    lag_max=1_176_000,
    drained_after_s=5.0,
    offered=3_200_000,
    lost=0,
    repeated=0,
)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"slow_rss_mib": 364.1}, "memory grew"),
        ({"generations": 2}, "generations"),
        ({"generations": 0}, "generations"),
        ({"member_sets": 2}, "members"),
        ({"lost": 1}, "no prediction"),
        ({"repeated": 1}, "repeated"),
        ({"slow_for_s": 50.0}, "nothing was tested"),
        ({"drained_after_s": float("inf")}, "drain"),
    ],
)
def test_every_broken_promise_fails_the_slow_run(bad: dict[str, Any], words: str) -> None:
    assert not GOOD.failures
    (failure,) = replace(GOOD, **bad).failures
    assert words in failure


def test_copy_loop_names_its_guarantee() -> None:
    assert Job("b", "s", "t", 1).guarantee == "exactly-once"
    assert Job("b", "s", "t", 1, exactly_once=False).guarantee == "at-least-once"


def test_cost_is_of_the_medians_and_pairs_the_runs_of_a_turn() -> None:
    state = [Drained(90.0, cpu_us_per_event=8.4), Drained(45.0, cpu_us_per_event=8.0), Drained(100.0, cpu_us_per_event=7.0)]
    stateless = [Drained(100.0, cpu_us_per_event=8.0), Drained(50.0, cpu_us_per_event=8.0), Drained(90.0, cpu_us_per_event=7.0)]
    assert cost(state, stateless) == {"cost": 0.0, "each_cost": [0.1, 0.1, -0.111], "cpu_cost": 0.0}


class Result:
    """A record of a reader, as far as the restore looks at it."""

    def __init__(self, time_ms: int, samples: int) -> None:
        self._time_ms, self._samples = time_ms, samples

    def timestamp(self) -> tuple[int, int]:
        return 2, self._time_ms

    def value(self) -> bytes:
        return prediction(window_n=self._samples)


def test_a_restore_lasts_until_the_last_partition_answers() -> None:
    firsts: dict[int, Any] = {0: Result(12_500, 2), 1: Result(11_000, 2)}
    assert restore.judge(10_000, firsts, 2, samples=2) == restore.Back(1.0, 2.5)


def test_a_restore_that_restored_nothing_is_no_result() -> None:
    firsts: dict[int, Any] = {0: Result(12_500, 2), 1: Result(11_000, 1)}
    with pytest.raises(RuntimeError, match="partition 1: the window holds 1 readings, 2 were sent"):
        restore.judge(10_000, firsts, 2, samples=2)
    with pytest.raises(RuntimeError, match=r"only partitions \[0\] of 2"):
        restore.judge(10_000, {0: firsts[0]}, 2, samples=2)


def test_restore_rows_compare_medians() -> None:
    taken = {
        "streamer": [restore.Back(0.5, 1.0), restore.Back(0.6, 2.0), restore.Back(0.5, 1.5)],
        "kafka-streams": [restore.Back(5.0, 9.0), restore.Back(4.0, 12.0), restore.Back(3.0, 6.0)],
    }
    ours, peer = restore.rows("restore", taken, {"keys": 10})
    assert (ours["workload"], ours["system"], ours["seconds"], ours["times_faster"]) == ("restore", "streamer", 1.5, 6.0)
    assert (peer["system"], peer["seconds"], peer["keys"]) == ("kafka-streams", 9.0, 10)
    assert peer["heap"] == "-Xms2g -Xmx2g"
    assert ours["each_seconds"] == [1.0, 2.0, 1.5]


def test_a_workload_replaces_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "latest.json"
    found, order = results.read(path), ["a", "b", "c"]
    for workload, date, values in (("c", 1, [1]), ("a", 2, [2, 3]), ("gone", 3, [4]), ("c", 4, [5, 6])):
        rows = [{"workload": workload, "value": value} for value in values]
        results.write(path, results.replaced(found, workload, {"date": date}, rows, order))
        found = results.read(path)
    assert [(row["workload"], row["value"]) for row in found["rows"]] == [("a", 2), ("a", 3), ("c", 5), ("c", 6), ("gone", 4)]
    assert found["headers"] == {"a": {"date": 2}, "c": {"date": 4}, "gone": {"date": 3}}
    assert list(path.parent.iterdir()) == [path]


def test_committed_results_have_a_header_for_every_workload() -> None:
    found = results.read(Path(results.__file__).parent / "results" / "latest.json")
    assert {row["workload"] for row in found["rows"]} == set(found["headers"])


def test_pairs_are_held_against_each_other_one_by_one() -> None:
    new, old = [{"p99_ms": 30.0}, {"p99_ms": 90.0}], [{"p99_ms": 20.0}, {"p99_ms": 100.0}]
    assert ratios(new, old, "p99_ms") == [0.9, 1.5]
