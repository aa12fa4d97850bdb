"""A feature function that fails: the message leads to the line and to the row."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamer import Event, Model, Topology, TopologyError, Window, interval, rolling, tumbling
from streamer.testing import constant
from tests.kit import rekeyed
from tests.kit.inside import InsideTest


class Reading(Event, topic="in", key="id", time="ts"):
    id: str
    ts: float
    value: float


class Other(Event, topic="others", key="id", time="ts"):
    id: str
    ts: float
    load: float


def picky(w: Window) -> dict[str, Any]:
    """Takes everything but a 13."""
    if (w.last("value") == 13).any():
        raise ZeroDivisionError("thirteen")
    return {"last": w.last("value"), "samples": w["value"].sum(axis=1), "q": w.quantile("value", 0.5)}


def flow(features: Callable[[Window], dict[str, Any]] = picky) -> Topology:
    return (
        Topology("t").source(Reading, dead_letters="dead").window(rolling(count=3)).features(features)
        .infer(Model("any")).publish(predictions="out")
    )  # fmt: skip


def send(test: InsideTest, values: list[float]) -> None:
    for n, value in enumerate(values):
        test.send(Reading("abd"[n % 3], test.now, value), step="0s")


def failure(topology: Topology, values: list[float], caplog: pytest.LogCaptureFixture) -> str:
    with InsideTest(topology, models=constant(0.0), partitions=2) as test:
        send(test, values)
        with pytest.raises(TopologyError) as error:
            test.run()
    assert error.value.exit_code == 2
    (line,) = [record for record in caplog.records if "features_failed" in record.getMessage()]
    assert "Traceback" in line.getMessage()
    return str(error.value)


@pytest.mark.parametrize("place", [0, 1, 37, 98, 99])
def test_the_row_is_found_by_halving(place: int, caplog: pytest.LogCaptureFixture) -> None:
    values = [float(n % 7) for n in range(100)]
    values[place] = 13.0
    says = failure(flow(), values, caplog)
    line = inspect.getsourcelines(picky)[1] + 3
    assert says.startswith(f"{__file__}:{line}: the feature function failed on a batch of 100 rows, in/0/0..")
    assert ", in/1/0.." in says
    assert "(ZeroDivisionError: thirteen)" in says
    assert f"key b'{'abd'[place % 3]}'" in says
    with InsideTest(flow(), models=constant(0.0), partitions=2) as test:
        send(test, values)
        (where,) = [
            f"in/{partition}/{offset}"
            for partition in range(2)
            for offset in range(test.log.end("in", partition))
            if b"13.0" in (test.log.record("in", partition, offset).value or b"")
        ]
    assert f"it fails on {where}, key" in says


def test_rows_that_are_only_bad_together_are_not_blamed_alone(caplog: pytest.LogCaptureFixture) -> None:
    def jealous(w: Window) -> dict[str, Any]:
        if len(set(w.last("value").tolist()) & {13.0, 14.0}) == 2:
            raise ValueError("both")
        return {"last": w.last("value")}

    says = failure(flow(jealous), [1.0, 13.0, 2.0, 3.0, 14.0, 4.0], caplog)
    assert "it takes each half of the rows" in says
    assert "alone, and not both together" in says


@pytest.mark.parametrize("answer", [1.0, np.ones(1), np.ones((1, 2)), {"nested": 1}])
def test_columns_of_another_length_are_told_in_the_same_way(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    def wrong(w: Window) -> dict[str, Any]:
        return {"f": answer if (w.last("value") == 13).any() else w.last("value")}

    says = failure(flow(wrong), [1.0, 2.0, 13.0, 3.0], caplog)
    assert "the feature function failed on a batch of 4 rows" in says
    assert "in/" in says


def test_windows_that_close_say_which_one(caplog: pytest.LogCaptureFixture) -> None:
    topology = (
        Topology("t").source(Reading, dead_letters="dead").window(tumbling("1s")).features(picky)
        .infer(Model("any")).publish(predictions="out", late_events="late")
    )  # fmt: skip
    with InsideTest(topology, models=constant(0.0), partitions=1, start=1000.0) as test:
        for n, value in enumerate([1.0, 13.0, 2.0, 3.0]):
            test.send(Reading("a", 1000.0 + n, value), step="1s")
        with pytest.raises(TopologyError, match=r"it fails on the window from 1001000000 to 1002000000 us at in/0/\d, key b'a'"):
            test.run()
    assert any("features_failed" in record.getMessage() for record in caplog.records)


def test_joined_streams_are_cut_with_the_rest() -> None:
    def both(w: Window) -> dict[str, Any]:
        if (w.of(Other).sum("load") == 13).any():
            raise ValueError("thirteen")
        return {"load": w.of(Other).sum("load"), "value": w.event("value")}

    topology = (
        Topology("t").source(Reading, dead_letters="dead").join(interval(Other, before="1m"), dead_letters="others.dead")
        .features(both).infer(Model("any")).publish(predictions="out")
    )  # fmt: skip
    with InsideTest(topology, models=constant(0.0), partitions=1) as test:
        start = test.now
        test.send(Other("b", start, 13.0), step="0s")
        for key in "abc":
            test.send(Reading(key, start + 1, 1.0), step="0s")
        test.clock.advance(60)
        with pytest.raises(TopologyError, match=r"it fails on in/0/1, key b'b'"):
            test.run()


def test_behind_a_new_key_the_places_are_those_of_the_source() -> None:
    def wrong(w: Window) -> dict[str, Any]:
        if (w.last("amount") == 13).any():
            raise ValueError("thirteen")
        return {"last": w.last("amount")}

    topology = (
        Topology("flow").source(rekeyed.Payment, dead_letters="bad").rekey("terminal").window(rolling(count=3)).features(wrong)
        .infer(Model("any")).publish(predictions="out")
    )  # fmt: skip
    with InsideTest(topology, models=constant(0.0), partitions=1) as test:
        for n, value in enumerate([1.0, 2.0, 13.0]):
            test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment(f"t{n}", value, test.now))
        with pytest.raises(TopologyError, match=rf"it fails on {rekeyed.SOURCE}/0/2, key b't2'"):
            test.run()
