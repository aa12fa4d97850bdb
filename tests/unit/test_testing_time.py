"""What a test of a topology does with time, and with workers: it goes by, and they crash or lose their partitions."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from streamer import Event, Model, Topology, rolling, session, tumbling
from streamer.errors import StreamerError, TopologyError
from streamer.renamed import TESTS
from streamer.testing import Record, TopologyTest, constant, values
from streamer.topology.closing import Closing
from streamer.topology.rolling import Rolling
from streamer.units import Duration
from tests.kit import flows, joined, labelled, rekeyed
from tests.kit.inside import InsideTest

START_S = 1_700_000_000.0


class InText(Event, topic="in", key="id", time="at", time_unit="iso"):
    id: str
    at: str


class InMoments(Event, topic="in", key="id", time="at", time_unit="iso"):
    id: str
    at: datetime


class InMs(Event, topic="in", key="id", time="at", time_unit="ms"):
    id: str
    at: int


def counting(event: type[Event], window: Rolling | Closing | None = None) -> Topology:
    """How many rows the window has."""
    late = {} if window is None or isinstance(window, Rolling) else {"late_events": "late"}
    return (
        Topology("counts").source(event, dead_letters="dead").window(window or rolling(count=8))
        .features(lambda w: {"n": w.count}).infer(Model("any")).publish(predictions="out", features=True, **late)
    )  # fmt: skip


ZONE = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("event", "last"),
    [
        (InText("a", "2023-11-14T22:13:20Z"), "2023-11-14T22:13:23Z"),
        (InText("a", "2023-11-14T22:13:20.25+00:00"), "2023-11-14T22:13:23.250000+00:00"),
        (InText("a", "2023-11-15T00:13:20+02:00"), "2023-11-15T00:13:23+02:00"),
        (InText("a", "2023-11-14 22:13:20"), "2023-11-14T22:13:23"),
        (InMoments("a", datetime.fromtimestamp(START_S, UTC)), "2023-11-14T22:13:23Z"),
        (InMoments("a", datetime.fromtimestamp(START_S, ZONE)), "2023-11-15T00:13:23+02:00"),
        (InMs("a", 1_700_000_000_000), 1_700_000_003_000),
    ],
    ids=repr,
)
def test_times_of_every_kind_move_with_the_clock(event: Event, last: object) -> None:
    with InsideTest(counting(type(event)), models=constant(0.0), partitions=1, start=START_S) as test:
        test.send(event, times=7, step="500ms")
        times = values(test.read("out"), "time")
        sent = test.log.record("in", 0, 6).value or b""
        assert [time - times[0] for time in times] == [0, 0.5, 1, 1.5, 2, 2.5, 3]
        assert int(times[0]) == START_S
        assert json.loads(sent)["at"] == last
        assert test.read("dead") == []


def test_a_time_that_is_none_is_sent_once_as_it_is() -> None:
    with TopologyTest(counting(InText), models=constant(0.0), partitions=1) as test:
        test.send(InText("a", "tomorrow"))
        assert len(test.read("dead")) == 1
        with pytest.raises(ValueError, match="tomorrow"):
            test.send(InText("a", "tomorrow"), times=2)


# ---------------------------------------------------------------------- time goes by


@pytest.mark.parametrize("duration", ["30s", timedelta(seconds=30)])
def test_the_clock_advances_by_as_much(duration: Duration) -> None:
    with TopologyTest(flows.topology(), models=flows.score) as test:
        test.send(flows.Reading("a", test.now, 1.0))
        test.run()
        before = test.now
        test.advance(duration)
        assert 30 <= test.now - before < 31
        with pytest.raises(ValueError, match="has no unit"):
            test.advance(5)  # type: ignore[arg-type]  # as a person might


TUMBLING, SESSION = tumbling("10s", idle_timeout="5s"), session(gap="10s", idle_timeout="5s")


@pytest.mark.parametrize("window", [TUMBLING, SESSION], ids=lambda window: window.kind)
def test_windows_of_silent_partitions_close(window: Closing) -> None:
    with TopologyTest(counting(flows.Reading, window), models=constant(0.0)) as test:
        for key in "abcd":
            test.send(flows.Reading(key, START_S + 1, 1.0), step="0s")
        test.advance("4s")
        assert test.read("out") == []
        test.advance("1h")
        assert sorted(values(test.read("out"), "key")) == list("abcd")


def test_rows_of_a_join_go_on() -> None:
    with TopologyTest(joined.FLOW, models=constant(0.5), partitions=2) as test:
        test.send(joined.Payment("u", test.now, 1.0))
        test.advance("31s")
        assert len(test.read(joined.SCORED)) == 1


def test_predictions_leave_without_a_label() -> None:
    with TopologyTest(labelled.FLOW, partitions=2) as test:
        test.send(labelled.Scored("payments/0/7", "p", test.now, 0.5, flag=True))
        test.advance(timedelta(days=13))
        assert test.read(labelled.UNMATCHED) == []
        test.advance("2d")
        assert len(test.read(labelled.UNMATCHED)) == 1


def test_what_a_silence_says_reaches_the_next_flow() -> None:
    """The windows behind `.rekey` close by what the flow in front says of its silent partitions, moments later."""
    topology = (
        Topology("chain").source(rekeyed.Payment, dead_letters="dead").rekey("terminal").window(TUMBLING)
        .features(lambda w: {"n": w.count}).infer(Model("any")).publish(predictions="out", late_events="late")
    )  # fmt: skip
    with TopologyTest(topology, models=constant(0.0), partitions=2) as test:
        test.send(rekeyed.Payment("c", "t", test.now, 1.0))
        test.advance("1h")
        assert len(test.read("out")) == 1


def test_time_that_goes_by_after_a_crash_closes_windows_too() -> None:
    with TopologyTest(counting(flows.Reading, TUMBLING), models=constant(0.0)) as test:
        test.send(flows.Reading("a", test.now, 1.0))
        test.run()
        test.crash()
        test.advance("1m")
        assert values(test.read("out"), "key") == ["a"]


# ---------------------------------------------------------------------- what happens to workers


@pytest.fixture(params=["crash", "rebalance"])
def disturb(request: pytest.FixtureRequest) -> Any:
    return lambda test: getattr(test, request.param)()


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_windows_survive(disturb: Any, guarantee: str) -> None:
    with InsideTest(flows.topology(50), models=flows.score, settings={"guarantee": guarantee}) as test:
        for n in range(30):
            test.send(flows.Reading(f"k{n % 3}", test.now, float(n)), step="10ms")
            if n % 10 == 5:
                disturb(test)
        rows = test.read(flows.PREDICTIONS)
        newest = {row["key"]: row["window_n"] for row in rows}
        assert newest == {"k0": 10, "k1": 10, "k2": 10}
        verdict = flows.judge(test.log, 50)
        assert verdict.exactly_once if guarantee == "exactly-once" else not verdict.missing


def test_a_rebalance_does_nothing_twice_and_drops_what_is_in_memory() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=2) as test:
        test.send(flows.Reading("a", test.now, 1.0), times=3)
        test.run()
        worker, stores = test.worker, dict(test.worker.pipeline.window.stores)
        test.send(flows.Reading("a", test.now, 1.0), times=20)
        test.rebalance()
        assert test.worker is worker
        others = worker.pipeline.window.stores
        assert [others[partition] is stores[partition] for partition in (0, 1)] == [False, False]
        assert (test.metric("streamer_rebalances_total", kind="revoked"), test.metric("streamer_rows_redone_total")) == (1, 0)
        assert test.metric("streamer_restored_rows_total") == 23
        assert len(test.read(flows.PREDICTIONS)) == 23


def test_every_flow_of_a_topology_is_dealt_anew() -> None:
    with InsideTest(rekeyed.topology(), models=rekeyed.score, partitions=3) as test:
        for n in range(20):
            test.send(rekeyed.Payment(f"c{n}", f"t{n % 3}", test.now, float(n)))
            if n % 7 == 5:
                test.rebalance()
        assert len(test.read(rekeyed.PREDICTIONS)) == 20
        assert [worker.metrics.value("streamer_rebalances_total", "revoked") for worker in test.workers] == [3, 3]
        assert rekeyed.judge(test.log) == []


# ---------------------------------------------------------------------- what is seen, and what is not


def test_nothing_else_is_public() -> None:
    with TopologyTest(flows.topology(), models=flows.score) as test:
        test.send(flows.Reading("a", test.now, 1.0))
        (record,) = test.read_records(flows.PREDICTIONS)
        seen = {name for name in {*vars(test), *dir(TopologyTest)} if not name.startswith("_")}
    assert seen == {"send", "send_bytes", "read", "read_records", "metric", "now", "advance", "run", "crash", "rebalance"}
    assert type(record) is Record
    assert set(Record.__dataclass_fields__) == {"key", "value", "headers"}


@pytest.mark.parametrize("old", TESTS)
def test_an_old_name_says_the_new_one(old: str) -> None:
    with TopologyTest(flows.topology(), models=flows.score) as test:
        with pytest.raises(TopologyError) as told:
            getattr(test, old)
        assert "test_testing_time.py:" in str(told.value)
        assert str(told.value).endswith(f": TopologyTest.{old} is called {TESTS[old]} now")
        assert callable(getattr(test, TESTS[old].partition("(")[0]))
        with pytest.raises(AttributeError, match="no attribute 'worker'"):
            test.worker  # type: ignore[attr-defined]  # noqa: B018 - asked for, that is all


def test_metrics_are_read_as_prometheus_would() -> None:
    with TopologyTest(flows.topology(), models=flows.score) as test:
        test.send(flows.Reading("a", test.now, 1.0), times=3)
        test.send_bytes(flows.SOURCE, b"a", b"{")
        test.run()
        assert test.metric("streamer_records_total", outcome="predicted") == 3
        assert test.metric("streamer_records_total", outcome="dead") == 1
        assert test.metric("streamer_records_total", outcome="late") == 0
        assert test.metric("streamer_end_to_end_seconds_count", since="event") == 3
        assert test.metric("streamer_end_to_end_seconds_bucket", since="event", le="+Inf") == 3
        with pytest.raises(StreamerError, match=r"streamer_record_total is not a metric; docs/metrics\.md lists them"):
            test.metric("streamer_record_total")
        with pytest.raises(StreamerError, match="streamer_records_total is a metric with the labels outcome"):
            test.metric("streamer_records_total")
        test.crash()
        assert test.metric("streamer_records_total", outcome="predicted") == 0
