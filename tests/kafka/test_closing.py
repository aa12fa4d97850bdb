"""Windows that close, in the service on a real broker: silence closes them, once, whatever happens to the worker."""

import signal
from pathlib import Path

import pytest

from tests.kit.service import Flow, models

__all__ = ["models"]
FLOW = "tests/kafka/closing_flow.py:flow"


def expected(count: int) -> dict[tuple[str, int], tuple[int, float]]:
    """Sensor and start of each window -> its samples and their mean, by hand."""
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(count):
        found.setdefault((f"s{number % 5}", number // 10 * 10), []).append(float(number))
    return {window: (len(values), sum(values) / len(values)) for window, values in found.items()}


def closed(flow: Flow, count: int) -> dict[tuple[str, int], tuple[int, float]]:
    """The same from the predictions; a window that closed twice is an error."""
    found: dict[tuple[str, int], tuple[int, float]] = {}
    for row in flow.predictions(count):
        features = row["features"]
        assert isinstance(features, dict)
        window = str(row["key"]), round(float(str(row["window_start"])) - 1.7e9)
        assert window not in found, f"{window} closed twice"
        assert row["final"] is True
        found[window] = int(str(row["window_n"])), float(features["mean"])
    return found


@pytest.mark.parametrize("ends", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.again)])
def test_silence_closes_windows_once_and_a_replay_repeats_it(kafka: str, models: Path, ends: int) -> None:
    flow = Flow({"bootstrap.servers": kafka}, models, FLOW)
    flow.send(60)
    with flow.running(ends=ends):
        assert closed(flow, 30) == expected(60)
    flow.send(60)
    with flow.running():
        assert closed(flow, 60) == expected(120)
        flow.sent = 0
        flow.send(5)  # long closed, says a watermark that only the changelog remembers
        assert len(flow.committed(f"{flow.prefix}.late", 5)) == 5
    assert flow.committed(f"{flow.prefix}.dead", 0) == []
