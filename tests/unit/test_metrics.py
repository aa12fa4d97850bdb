"""The metric table is closed: what the code writes stands in it, what stands in it is written, and Prometheus reads it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamer.telemetry.ledger import BOUNDS_S, parts_of
from streamer.telemetry.metrics import NAMES, TABLE, Metrics
from streamer.telemetry.steps import Steps
from tests.kit import flows
from tests.kit.inside import InsideTest

PACKAGE = Path(__file__).resolve().parents[2] / "streamer"
NAMED = Steps("rolling-1", "infer-1", "flag-1")
WRITERS, READERS = {"add": 2, "set": 2}, {"value": 1, "by_label": 1, "clear": 1}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """File, method and call of everything that names a metric."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.startswith("streamer_"):
                    yield path.name, node.func.attr, node


def name_of(call: ast.Call) -> str:
    assert isinstance(call.args[0], ast.Constant)
    return str(call.args[0].value)


def test_every_name_in_the_code_stands_in_the_table_with_its_labels() -> None:
    found = list(calls())
    assert len(found) > 30
    for file, method, call in found:
        assert name_of(call) in NAMES, f"{file}:{call.lineno}"
        assert method in WRITERS | READERS, f"{file}:{call.lineno}: {method}"
        if method in WRITERS:
            given = max(0, len(call.args) - WRITERS[method])
            assert given == len(NAMES[name_of(call)].labels), f"{file}:{call.lineno}: {given} labels"


def test_every_metric_of_the_table_is_written_somewhere() -> None:
    written = {name_of(call) for _, method, call in calls() if method in WRITERS}
    assert {metric.name for metric in TABLE if metric.kind != "histogram"} - written == set()


def test_names_follow_the_conventions() -> None:
    assert len(NAMES) == len(TABLE)
    for metric in TABLE:
        assert metric.name.startswith("streamer_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        if "second" in metric.name:
            assert "_seconds" in metric.name


@pytest.mark.parametrize("method", ["add", "set", "value"])
def test_an_unknown_name_is_a_bug(method: str) -> None:
    with pytest.raises(KeyError):
        getattr(Metrics(), method)("streamer_surprise", 1)


@pytest.mark.parametrize("method", ["add", "set"])
def test_a_wrong_number_of_labels_is_a_bug(method: str) -> None:
    with pytest.raises(AssertionError, match="streamer_records_total"):
        getattr(Metrics(), method)("streamer_records_total", 1)


def test_values_by_label() -> None:
    metrics = Metrics()
    metrics.add("streamer_records_total", 2, "predicted")
    metrics.add("streamer_records_total", 3, "dead")
    metrics.add("streamer_records_total", 1, "dead")
    assert metrics.value("streamer_records_total", "dead") == 4
    assert metrics.value("streamer_records_total") == 6
    assert metrics.by_label("streamer_records_total") == {("predicted",): 2, ("dead",): 4}
    metrics.clear("streamer_records_total")
    assert metrics.value("streamer_records_total") == 0


@pytest.fixture(scope="module")
def scraped() -> tuple[str, Metrics]:
    """What Prometheus gets from a worker that has seen good and bad records."""
    with InsideTest(flows.topology(), models=flows.score) as test:
        for n in range(200):
            key = f"s{n % 5}"
            test.send_bytes(flows.SOURCE, key.encode(), b'{"\n' if n % 20 == 0 else flows.value_of(key, test.now, float(n)))
            test.clock.advance(0.02)
            test.worker.turn()
        test.run()
        test.clock.advance(2.0)
        test.worker.turn()
        registry = CollectorRegistry()
        registry.register(test.worker.metrics)
        return generate_latest(registry).decode(), test.worker.metrics


def test_prometheus_reads_every_metric(scraped: tuple[str, Metrics]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(scraped[0])}
    for metric in TABLE:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    assert len(families) == len(TABLE)


def test_what_is_scraped_is_what_happened(scraped: tuple[str, Metrics]) -> None:
    samples = {
        (sample.name, *(text for _, text in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(scraped[0])
        for sample in family.samples
    }
    assert samples["streamer_records_total", "predicted"] == 190
    assert samples["streamer_records_total", "dead"] == 10
    assert samples["streamer_dead_letters_total", "invalid_json", "decode", flows.SOURCE] == 10
    assert samples["streamer_live_keys", "rolling-1"] == 5
    assert samples["streamer_partitions_assigned",] == 4
    assert {samples["streamer_consumer_lag_records", str(p), "readings"] for p in range(4)} == {0}
    assert {key[1] for key in samples if key[0] == "streamer_stage_busy_seconds_total"} <= set(NAMED.way)
    assert samples["streamer_inference_rows_total", "stand-in", "infer-1", "1"] == 190


def test_histograms_are_cumulative_and_keep_their_sums(scraped: tuple[str, Metrics]) -> None:
    text, metrics = scraped
    families = {family.name: family for family in text_string_to_metric_families(text)}
    stages = families["streamer_stage_seconds"].samples
    assert {sample.labels["step"] for sample in stages} == set(parts_of(NAMED))
    for part, histogram in metrics.ledger.parts.items():
        own = [sample for sample in stages if sample.labels["step"] == part]
        buckets = [(float(sample.labels["le"]), sample.value) for sample in own if sample.name.endswith("_bucket")]
        counts = [count for _, count in buckets]
        assert counts == sorted(counts)
        assert [buckets[-1][0], counts[-1]] == [float("inf"), 190]
        totals = {sample.name: sample.value for sample in own if "le" not in sample.labels}
        assert totals["streamer_stage_seconds_count"] == 190
        assert totals["streamer_stage_seconds_sum"] == pytest.approx(histogram.total_s)
        for bound, count in buckets[:-1]:  # every exported bound is one of the ledger's, and counts what lies up to it
            place = int(abs(BOUNDS_S - bound).argmin())
            assert bound == pytest.approx(BOUNDS_S[place], rel=1e-4)
            assert count == histogram.counts[: place + 1].sum()
