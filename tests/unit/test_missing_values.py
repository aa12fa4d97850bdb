"""A topology whose fields may be null: such a sample counts, and what is asked is of the values there are."""

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamer import Event, Model, Topology, Window, as_of, rolling, tumbling
from streamer.cli.state import describe
from streamer.errors import TopologyError
from streamer.feeding.rows import row_of
from streamer.planning.plan import plan_of
from streamer.settings.settings import Settings
from streamer.testing import constant, stand_in, values
from streamer.topology.count import Count
from tests.kit.inside import InsideTest


class Machine(Event, topic="machines", key="id", time="ts"):
    """Not every reading has every number."""

    id: str
    ts: float
    vib: float | None = None
    load: float = 0.0
    part: int | None = None
    running: bool | None = None


class Plan(Event, topic="plans", key="id", time="ts"):
    """Something to look at."""

    id: str
    ts: float
    target: float | None
    why: str | None = None


NAMES = ("n", "vibs", "mean", "std", "last", "delta", "distinct", "median", "load", "own", "part", "running")


def told(w: Window) -> dict[str, Any]:
    columns = (
        w.count, w.count("vib"), w.mean("vib"), w.std("vib"), w.last("vib"), w.delta("vib"), w.distinct("vib"),
        w.quantile("vib", 0.5), w.sum("load"), w.event("vib"), w.event("part"), w.event("running"),
    )  # fmt: skip
    assert all(column.dtype == np.float64 for column in columns)
    return dict(zip(NAMES, columns, strict=True))


def flow(window: Any, features: Any = told, **more: Any) -> Topology:
    source = Topology("t").source(Machine, dead_letters="dead")
    topology = source.window(window, **more).features(features).infer(Model("m"))
    late = {"late_events": "late"} if more else {}
    return topology.publish(predictions="scored", features=True, **late)


SENT: list[dict[str, Any]] = [
    {"load": 1.0, "vib": None, "part": None, "running": True},
    {"load": 2.0, "vib": 3.0, "part": 2**20},
    {"load": 3.0, "running": False, "part": 7},
    {"load": 4.0, "vib": 5.0},
]
SAID = [
    (1, 0, None, None, None, None, None, None, 1, None, None, 1),
    (2, 1, 3, 0, 3, 0, 1, 3, 3, 3, 2**20, None),
    (3, 1, 3, 0, 3, 0, 1, 3, 6, None, 7, 0),
    (4, 2, 4, 1, 5, 2, 2, 4, 10, 5, None, None),
]


def send(test: InsideTest, numbers: dict[str, Any], key: str = "m") -> None:
    test.send_bytes("machines", key.encode(), msgspec.json.encode({"id": key, "ts": test.now, **numbers}))


@pytest.mark.parametrize(
    ("window", "more"),
    [(rolling(count=4), {}), (rolling("1h"), {}), (tumbling("1h", grace="1s"), {"emit": "each"})],
    ids=["count", "time", "closing"],
)
@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_missing_is_nan_and_takes_its_place(window: Any, more: dict[str, Any], restarts: bool) -> None:
    with InsideTest(flow(window, **more), models=constant(1.0), partitions=1) as test:
        for numbers in SENT:
            send(test, numbers)
            if restarts:
                test.run()
                test.crash()
        rows = test.read("scored")
        assert test.read_records("dead") == []
    # In JSON, NaN is null.
    assert values(rows, "features") == [dict(zip(NAMES, row, strict=True)) for row in SAID]
    assert values(rows, "window_n") == [1, 2, 3, 4]


def test_rate_goes_by_the_times_of_values() -> None:
    topology = flow(rolling("1h"), lambda w: {"rate": w.rate("vib")})
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        for vib in (None, 1.0, None, 5.0, None):
            send(test, {"vib": vib})
            test.clock.advance(1.0)
        assert values(values(test.read("scored"), "features"), "rate") == [None, 0, 0, 2, 2]


def test_a_window_without_a_value_reaches_the_model_as_nan() -> None:
    seen: list[float] = []

    def model(columns: Any) -> Any:
        seen.extend(columns["mean"].tolist())
        return columns["mean"][:, None]

    topology = flow(rolling(count=2), lambda w: {"mean": w.mean("vib")})
    with InsideTest(topology, models=model, partitions=1) as test:
        send(test, {"vib": None})
        send(test, {"vib": 2.0})
        reasons = [dict(letter.headers)["streamer.error.reason"] for letter in test.read_records("dead")]
        assert reasons == ["score_not_finite"]
        assert values(test.read("scored"), "score") == [2]
    assert any(math.isnan(mean) for mean in seen)


def test_a_whole_number_that_may_be_null_is_exact_or_refused() -> None:
    topology = flow(rolling(count=2), lambda w: {"left": 2**53 - w.event("part")})
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        for part in (2**53, 2**53 + 1, None, -(2**53) - 1, 10**400):
            send(test, {"part": part})
        assert values(values(test.read("scored"), "features"), "left") == [0, None]
        heads = [dict(letter.headers) for letter in test.read_records("dead")]
    assert [head["streamer.error.reason"] for head in heads] == ["number_out_of_range"] * 3
    assert all(head["streamer.error.detail"].startswith("part is beyond 2**53 (9007199254740992)") for head in heads)


@pytest.mark.parametrize("text", ["NaN", "1e400", '"1"'])
def test_what_is_no_number_is_not_missing(text: str) -> None:
    topology = flow(rolling(count=2), lambda w: {"n": w.count("vib")})
    with InsideTest(topology, models=constant(1.0), partitions=1) as test:
        test.send_bytes("machines", b"m", f'{{"id":"m","ts":1,"vib":{text}}}'.encode())
        assert test.read("scored") == []
        assert len(test.read_records("dead")) == 1


@pytest.mark.parametrize(
    ("topology", "wanted"),
    [
        (lambda: flow(rolling(count=2), lambda w: {"n": w.count("id")}), "the field 'id' is str, and only float"),
        (lambda: flow(rolling("1d", resolution="1h"), lambda w: {"n": w.distinct("vib")}), "distinct('vib') needs every sample"),
        (lambda: joined(lambda w: {"n": w.of(Plan).count("why")}), "the field 'why' is str | None, and only float"),
    ],
    ids=["text", "panes", "joined"],
)  # fmt: skip
def test_what_cannot_be_asked_says_so_at_start(topology: Any, wanted: str) -> None:
    with pytest.raises(TopologyError, match=re.escape(wanted)):
        plan_of(topology(), Settings(), Path(), model=stand_in(constant(1.0)))


def joined(features: Any) -> Topology:
    source = Topology("t").source(Machine, dead_letters="dead").join(as_of(Plan), dead_letters="plans.dead")
    return source.features(features).infer(Model("m")).publish(predictions="scored", features=True)


@pytest.mark.parametrize("restarts", [False, True])
def test_panes_pass_over_what_is_missing(restarts: bool) -> None:
    names = ("n", "vibs", "mean", "std", "low", "first", "last", "delta", "rate", "load", "own")

    def features(w: Window) -> dict[str, Any]:
        columns = (
            w.count, w.count("vib"), w.mean("vib"), w.std("vib"), w.min("vib"), w.first("vib"), w.last("vib"), w.delta("vib"),
            w.rate("vib"), w.sum("load"), w.event("vib"),
        )  # fmt: skip
        return dict(zip(names, columns, strict=True))

    with InsideTest(flow(rolling("1h", resolution="10m"), features), models=constant(1.0), partitions=1) as test:
        for second, numbers in enumerate((*SENT, {"load": 5.0})):
            send(test, numbers | {"ts": 1_200_000.0 + 2 * second})
            if restarts:
                test.run()
                test.crash()
        rows = values(test.read("scored"), "features")
        assert test.read_records("dead") == []
    assert rows == [
        dict(zip(names, row, strict=True))
        for row in [
            (1, 0, None, None, None, None, None, None, None, 1, None),
            (2, 1, 3, 0, 3, 3, 3, 0, 0, 3, 3),
            (3, 1, 3, 0, 3, 3, 3, 0, 0, 6, None),
            (4, 2, 4, 1, 3, 3, 5, 2, 0.5, 10, 5),
            (5, 2, 4, 1, 3, 3, 5, 2, 0.5, 15, None),
        ]
    ]


def test_a_row_of_a_table_without_a_number_is_there_and_a_deleted_one_is_not() -> None:
    def features(w: Window) -> dict[str, Any]:
        plans = w.of(Plan)
        return {"n": plans.count, "targets": plans.count("target"), "target": plans.last("target"), "own": w.event("vib")}

    with InsideTest(joined(features), models=constant(1.0), partitions=1) as test:
        send(test, {"vib": None})
        test.clock.advance(10.0)
        for target in (b"null", b"2.5", None):
            value = None if target is None else b'{"id":"m","ts":%f,"target":%s}' % (test.now, target)
            test.send_bytes("plans", b"m", value)
            test.run()
            test.crash()
            test.clock.advance(10.0)
            send(test, {"vib": 1.0})
            test.clock.advance(10.0)
        rows = values(test.read("scored"), "features")
        assert test.read_records("dead") == test.read_records("plans.dead") == []
    # In JSON, NaN is null.
    assert rows == [
        {"n": 0, "targets": 0, "target": None, "own": None},
        {"n": 1, "targets": 0, "target": None, "own": 1},
        {"n": 1, "targets": 1, "target": 2.5, "own": 1},
        {"n": 0, "targets": 0, "target": None, "own": 1},
    ]


def test_a_count_is_a_column_and_what_is_computed_from_it_an_ordinary_one() -> None:
    count = Count.of(np.array([1.0, 2.0]), lambda name: np.array([0.0, len(name)]))
    assert count("vib").tolist() == [0.0, 3.0]
    assert count[1] == 2.0
    for computed in (count + 1, 1 / count, np.maximum(count, 1), count > 1, np.where(count > 1, count, 0.0)):
        assert type(computed) is np.ndarray
    assert count.sum() == 3.0


def test_state_show_says_null() -> None:
    with InsideTest(flow(rolling(count=4), lambda w: {"mean": w.mean("vib")}), models=constant(1.0), partitions=1) as test:
        send(test, {"vib": None})
        send(test, {"vib": 2.0})
        test.run()
        found = describe(test.worker.pipeline.window.stores[0], b"m")
    assert found is not None
    assert values(found["samples"], "vib") == [None, 2.0]


def test_an_event_without_a_value_can_be_fed() -> None:
    assert row_of(Machine("m", 1.0)).time_us == 1_000_000
