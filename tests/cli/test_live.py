"""The live view: right numbers from the metrics, an honest status, and a picture that fits a small terminal."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from streamer.live.numbers import END_TO_END, Status, Watch, overall
from streamer.live.view import Frame, draw, duration, line
from streamer.telemetry.metrics import Metrics
from streamer.telemetry.steps import STAGES, Steps

ANOMALY: dict[str, Any] = {
    "key": "machine_temperature_system_failure", "time": 1_700_000_000.0, "score": 0.9312, "flag": True,
    "drivers": [{"feature": name, "value": 1.0, "deviation": 12.3} for name in ("beyond", "rise", "record")],
}  # fmt: skip


# The longest names there are.
NAMED = Steps("tumbling-1", "infer-1", "flag-1")


def assigned() -> Metrics:
    metrics = Metrics()
    metrics.set("streamer_partitions_assigned", 4)
    return metrics


def watch_two_seconds(metrics: Metrics, change: Callable[[Metrics], object]) -> Watch:
    watch = Watch(metrics)
    watch.look(100.0)
    change(metrics)
    watch.look(102.0)
    return watch


def status_after(change: Callable[[Metrics], object]) -> Status:
    return watch_two_seconds(assigned(), change).status()


class TestNumbers:
    def test_rates_are_per_second(self) -> None:
        def change(metrics: Metrics) -> None:
            metrics.add("streamer_records_total", 900, "predicted")
            metrics.add("streamer_records_total", 100, "dead")
            metrics.add("streamer_anomalies_total", 10, "flag")

        rates = watch_two_seconds(assigned(), change).rates()
        assert (rates.done, rates.predicted, rates.dead, rates.anomalies) == (500, 450, 50, 5)

    def test_shares_are_of_the_last_seconds(self) -> None:
        metrics = assigned()
        metrics.add("streamer_stage_busy_seconds_total", 1000, "decode")

        def change(metrics: Metrics) -> None:
            metrics.add("streamer_stage_busy_seconds_total", 0.5, "decode")
            metrics.add("streamer_stage_blocked_seconds_total", 1.0, "infer")

        shares = watch_two_seconds(metrics, change).shares()
        assert list(shares) == list(STAGES)
        assert shares["decode"].busy == pytest.approx(0.25)
        assert (shares["infer"].busy, shares["infer"].blocked) == (0, 0.5)

    def test_steps_are_called_by_their_names(self) -> None:
        metrics = assigned()
        metrics.name(NAMED)

        def change(metrics: Metrics) -> None:
            metrics.set("streamer_consumer_lag_records", 50_000, "t", "0")
            metrics.add("streamer_stage_blocked_seconds_total", 1.0, "infer-1")

        watch = watch_two_seconds(metrics, change)
        assert list(watch.shares()) == ["consume", "decode", "tumbling-1", "infer-1", "flag-1", "produce", "commit"]
        assert list(watch.latency()) == [
            "broker", "decode", "tumbling-1", "queue", "infer-1", "encode", "produce", "commit", END_TO_END,
        ]  # fmt: skip
        assert watch.status() == Status("behind", "the model is full", good=False)

    def test_a_flow_without_a_model_shows_none(self) -> None:
        metrics = assigned()
        metrics.name(Steps("match-1", scores=False))
        watch = watch_two_seconds(metrics, lambda _: None)
        assert list(watch.shares()) == ["consume", "decode", "match-1", "produce", "commit"]
        assert list(watch.latency()) == ["broker", "decode", "match-1", "encode", "produce", "commit", END_TO_END]

    def test_latency_forgets_what_is_long_past(self) -> None:
        metrics = assigned()
        watch = Watch(metrics)
        watch.look(100.0)
        metrics.ledger.end_to_end["record"].add(5.0, 1000)
        watch.look(101.0)
        assert watch.latency()[END_TO_END][0] >= 4.0  # a quantile is right to 16 %
        for now in (108.0, 115.0):
            watch.look(now)
        metrics.ledger.end_to_end["record"].add(0.001, 10)
        watch.look(116.0)
        assert watch.latency()[END_TO_END][1] < 0.01
        assert overall(metrics.ledger)[END_TO_END][0] >= 4.0, "the summary does not forget"


class TestStatus:
    def test_starting(self) -> None:
        assert watch_two_seconds(Metrics(), lambda _: None).status().word == "starting"

    def test_running_and_waiting(self) -> None:
        busy = status_after(lambda metrics: metrics.add("streamer_records_total", 5, "predicted"))
        assert (busy.word, busy.cause) == ("running", "keeps up with its input")
        watch = Watch(assigned())
        for now in (100.0, 103.0):
            watch.look(now)
        assert watch.status() == Status("running", "waiting for input", good=True)

    def test_behind_names_the_full_stage(self) -> None:
        def change(metrics: Metrics) -> None:
            metrics.set("streamer_consumer_lag_records", 50_000, "t", "0")
            metrics.add("streamer_stage_blocked_seconds_total", 1.0, "infer")

        assert status_after(change) == Status("behind", "the model is full", good=False)

    def test_behind_without_a_full_stage(self) -> None:
        status = status_after(lambda metrics: metrics.set("streamer_consumer_lag_records", 50_000, "t", "0"))
        assert (status.word, status.cause) == ("behind", "more arrives than this worker takes")

    def test_paused(self) -> None:
        def change(metrics: Metrics) -> None:
            metrics.set("streamer_paused", 1)
            metrics.add("streamer_stage_blocked_seconds_total", 1.0, "commit")

        assert status_after(change) == Status("paused", "commits take long", good=False)

    def test_restoring_and_recovering(self) -> None:
        assert status_after(lambda metrics: metrics.set("streamer_partitions_restoring", 3)).word == "restoring"
        assert status_after(lambda metrics: metrics.add("streamer_recoveries_total", 1, "commit")).word == "recovering"


def frame(**changes: Any) -> Frame:
    metrics = assigned()
    metrics.name(NAMED)
    metrics.add("streamer_records_total", 123_456, "predicted")
    for step in NAMED.way:
        metrics.add("streamer_stage_busy_seconds_total", 1e6, step)
    metrics.ledger.end_to_end["record"].add(0.012, 100)
    watch = Watch(metrics)
    made = Frame.of(
        watch, 100.0, title="streamer demo: sensor-anomaly", notice="n" * 300, seconds=75.0, fed=5_000_000, total=10_000_000,
        anomalies=[ANOMALY] * 60,
    )  # fmt: skip
    return replace(made, **changes)


def drawn(shown: Frame, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(draw(shown, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n").split("\n")


class TestPicture:
    @pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
    @pytest.mark.parametrize("changes", [{}, {"anomalies": [], "total": None}, {"lag": 123_456_789}])
    def test_fits(self, width: int, height: int, changes: dict[str, Any]) -> None:
        lines = drawn(frame(**changes), width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width

    def test_shows_what_was_asked_for(self) -> None:
        text = "\n".join(drawn(frame(), 80, 24))
        for wanted in (
            "RUNNING",
            *NAMED.way,
            "dead letters",
            "lag",
            "p50",
            "p99",
            "end to end",
            "newest anomalies",
            "machine",
            "01:15",
        ):
            assert wanted in text

    def test_colour_is_not_needed(self) -> None:
        metrics = assigned()
        watch = Watch(metrics)
        watch.look(0.0)
        metrics.add("streamer_stage_busy_seconds_total", 1.0, "decode")
        metrics.add("streamer_stage_blocked_seconds_total", 1.0, "infer")
        shown = Frame.of(watch, 1.0, title="", notice="", seconds=1.0, fed=0, total=None, anomalies=[])
        text = "\n".join(drawn(shown, 80, 24))
        assert "busy 100%" in text
        assert "full 100%" in text
        assert "█████████" in text
        assert "▒▒▒▒▒▒▒▒▒" in text

    def test_plain_line(self) -> None:
        text = line(frame())
        assert "\n" not in text
        assert "fed 5,000,000 of 10,000,000" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "-"), (0.00012, "120 us"), (0.0012, "1.2 ms"), (0.0123, "12 ms"), (0.9996, "1.0 s"), (2.25, "2.2 s"), (1000, "1000 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
