"""`.filter`: rows leave in front of the windows, are counted, and nothing else hears of them."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamer import Event, Events, Model, Topology, TopologyError, rolling, tumbling
from streamer.kafka.memory_log import Stored
from streamer.testing import constant
from streamer.topology.closing import Closing
from streamer.topology.rolling import Rolling
from tests.kit import flows
from tests.kit.declared import EVENT, FLOW, SOURCE, WINDOW, blamed, changed, planned
from tests.kit.inside import InsideTest


class Reading(Event, topic="in", key="id", time="ts"):
    id: str
    ts: float
    value: float
    number: int = 0
    good: bool = True
    kind: str = "a"
    spare: float | None = None


def topology(*filters: Callable[[Events], Any], window: Rolling | Closing | None = None) -> Topology:
    """A flow with these filters, around a window or none."""
    flow = Topology("t").source(Reading, dead_letters="dead")
    for function in filters:
        flow = flow.filter(function)
    closing = isinstance(window, Closing)
    flow = flow if window is None else flow.window(window)
    read = (lambda w: {"value": w.event("value")}) if window is None else lambda w: {"n": w.count, "total": w.sum("value")}
    return flow.features(read).infer(Model("m")).publish(
        predictions="out", features=True, late_events="late" if closing else None
    )  # fmt: skip


def send(test: InsideTest, *values: float, **fields: Any) -> None:
    for value in values:
        test.send(Reading("s", test.now, value, **fields))


def outcomes(test: InsideTest) -> dict[str, float]:
    counts = test.worker.metrics.by_label("streamer_records_total")
    return {outcome: count for (outcome,), count in counts.items() if count}


def seen(test: InsideTest, name: str) -> list[float]:
    return [row["features"][name] for row in test.read("out")]


def big(e: Events) -> Any:
    return e.event("value") >= 10


class TestRowsLeave:
    def test_they_are_counted_and_have_no_other_outcome(self) -> None:
        with InsideTest(topology(big), models=constant(0.0), partitions=1) as test:
            send(test, 5.0, 15.0, 7.0, 20.0)
            test.send_bytes("in", b"s", b"{")
            assert seen(test, "value") == [15.0, 20.0]
            assert outcomes(test) == {"predicted": 2, "filtered": 2, "dead": 1}
            assert [row["id"] for row in map(_json, test.log.committed_records("out"))] == ["in/0/1", "in/0/3"]
            assert len(test.log.committed_records("dead")) == 1

    def test_offsets_move_on_where_none_is_left(self) -> None:
        with InsideTest(topology(big), models=constant(0.0), partitions=1) as test:
            send(test, 1.0, 2.0, 3.0)
            test.run()
            assert test.log.caught_up("t", "in")
            test.crash()
            send(test, 4.0)
            test.run()
            assert outcomes(test) == {"filtered": 1}, "alone in its batch too"
            send(test, 30.0)
            assert seen(test, "value") == [30.0]
            assert outcomes(test) == {"filtered": 1, "predicted": 1}

    def test_a_window_does_not_hold_them(self) -> None:
        with InsideTest(topology(big, window=rolling(count=2)), models=constant(0.0), partitions=1) as test:
            send(test, 10.0, 1.0, 2.0, 3.0, 20.0)
            assert seen(test, "total") == [10.0, 30.0]

    def test_windows_that_close_keep_the_account(self) -> None:
        with InsideTest(topology(big, window=tumbling("10s")), models=constant(0.0), partitions=1, start=1000.0) as test:
            send(test, 10.0, 1.0, 20.0)
            test.send(Reading("s", 1100.0, 1.0))
            assert seen(test, "total") == [], "who leaves moves no event time"
            test.send(Reading("s", 1100.0, 30.0))
            test.send(Reading("s", 1000.0, 40.0))
            assert seen(test, "total") == [30.0]
            assert outcomes(test) == {"filtered": 2, "folded": 3, "late": 1}

    def test_several_stand_one_behind_the_other(self) -> None:
        rows = []

        def odd(e: Events) -> Any:
            rows.append(len(e.event("value")))
            return e.event("value") % 2 == 1

        with InsideTest(topology(big, odd), models=constant(0.0), partitions=1) as test:
            send(test, 1.0, 11.0, 12.0, 3.0)
            assert seen(test, "value") == [11.0]
            assert outcomes(test) == {"predicted": 1, "filtered": 3}
        assert sum(rows[1:]) == 2, "behind the trial, only what the first one lets go on"

    def test_what_is_refused_later_names_the_record_that_stayed(self) -> None:
        def some(columns: Any) -> Any:
            return np.where(columns["value"] == 15, np.nan, 0.0)[:, None]

        with InsideTest(topology(big), models=some, partitions=1) as test:
            send(test, 5.0, 15.0, 20.0)
            test.run()
            (letter,) = test.log.committed_records("dead")
            assert (flows.origin(letter), _json(letter)["value"]) == ("in/0/1", 15.0)
            assert outcomes(test) == {"predicted": 1, "filtered": 1, "dead": 1}

    def test_they_are_good_input_to_the_alarm(self) -> None:
        with InsideTest(topology(big), models=constant(0.0), partitions=1) as test:
            for _ in range(60):
                test.send_bytes("in", b"s", b"{")
            for n in range(1000):
                test.send(Reading("s", test.now, n % 10), step="0s")
            test.run()
            assert outcomes(test) == {"filtered": 1000, "dead": 60}
            assert test.worker.metrics.value("streamer_dead_letter_alarm") == 0


class TestWhatTheFunctionSees:
    def test_columns_of_their_own_types(self) -> None:
        types = dict[str, Any]()

        def look(e: Events) -> Any:
            types.update({name: e.event(name).dtype for name in ("value", "number", "good", "kind", "spare")})
            return e.event("number") == 2**62 + 1

        with InsideTest(topology(look), models=constant(0.0), partitions=1) as test:
            tried = dict(types)
            send(test, 1.0, number=2**62)
            send(test, 2.0, number=2**62 + 1)
            assert seen(test, "value") == [2.0]
        assert types == tried == {"value": float, "number": int, "good": bool, "kind": object, "spare": float}

    @pytest.mark.parametrize(
        ("function", "stay"),
        [
            (lambda e: e.event("spare") > 0, [3.0]),
            (lambda e: ~(e.event("spare") > 0), [1.0, 2.0]),
            (lambda e: np.isnan(e.event("spare")), [1.0]),
            (lambda e: e.event("good"), [1.0, 3.0]),
            (lambda e: np.isin(e.event("kind"), ["b", "c"]), [2.0]),
        ],
    )
    def test_null_is_false_only_where_the_function_says_so(self, function: Callable[[Events], Any], stay: list[float]) -> None:
        with InsideTest(topology(function), models=constant(0.0), partitions=1) as test:
            send(test, 1.0)
            send(test, 2.0, spare=-1.0, good=False, kind="b")
            send(test, 3.0, spare=1.0)
            assert seen(test, "value") == stay


def with_filter(function: str) -> str:
    """The good file with a filter of this text, to blame."""
    return changed(SOURCE, f"{SOURCE}\n    .filter({function})")


BOOL = "a filter gives one bool a row; for 2 rows it gave"
MISTAKES = {
    "no function": (with_filter("64"), ".filter() takes a function of events, not 64"),
    "numbers": (with_filter('lambda e: e.event("a")'), f"{BOOL} shape (2,) of type float64"),
    "one for all": (with_filter("lambda e: True"), f"{BOOL} shape () of type bool"),
    "nothing": (with_filter("lambda e: None"), f"{BOOL} shape () of type object"),
    "another length": (with_filter('lambda e: e.event("a")[:1] > 0'), f"{BOOL} shape (1,) of type bool"),
    "a branch on a row": (with_filter('lambda e: 1 if e.event("a") > 0 else 0'), "two trial events: ValueError: The truth value"),
    "unknown field": (with_filter('lambda e: e.event("b") > 0'), "no such field 'b' here; there are: k, ts, a, note"),
    "a window": (with_filter('lambda e: e.mean("a") > 0'), "no attribute 'mean'"),
    "behind the window": (
        changed(WINDOW, f'{WINDOW}\n    .filter(lambda e: e.event("a") > 0)'),
        "source -> filter -> rekey -> join -> window -> features -> infer -> flag -> publish, each once, but several filters and",
    ),
    "in front of another key": (
        changed(SOURCE, f'{SOURCE}.filter(lambda e: e.event("a") > 0)\n    .rekey("note")'),
        ".rekey() does not go with .filter() (flow.py:12) yet: event time does not pass",
    ),
    "behind another key": (
        changed(SOURCE, f'{SOURCE}.rekey("note")\n    .filter(lambda e: e.event("a") > 0)'),
        ".filter() does not go with .rekey() (flow.py:12) yet: event time does not pass",
    ),
    "in front of a join": (
        changed(SOURCE, f'{SOURCE}.filter(lambda e: e.event("a") > 0)\n    .join(interval(R, before="1s"), dead_letters="x")'),
        ".join() does not go with .filter() (flow.py:12) yet: event time does not pass",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_the_trial_with_its_line(name: str) -> None:
    text, says = MISTAKES[name]
    text = text.replace("import Event, ", "import Event, interval, ")
    with pytest.raises(TopologyError) as refusal:
        planned(text)
    assert str(refusal.value).startswith(blamed(text)), refusal.value
    assert says in str(refusal.value)
    assert refusal.value.exit_code == 2


def picky(e: Events) -> Any:
    """Takes everything but a 13."""
    if (e.event("value") == 13).any():
        raise ZeroDivisionError("thirteen")
    return e.event("value") > 0


def loose(e: Events) -> Any:
    """Gives numbers where there is a 13."""
    return e.event("value") if (e.event("value") == 13).any() else e.event("value") > 0


def curious(e: Events) -> Any:
    """Reads a field that it had not asked for at the trial."""
    return e.event("number") > 0 if (e.event("value") == 13).any() else e.event("value") > 0


@pytest.mark.parametrize(
    ("function", "line", "why"),
    [
        (picky, 3, "ZeroDivisionError: thirteen"),
        (loose, 0, "ValueError: a filter gives one bool a row; for 4 rows it gave shape (4,) of type float64"),
        (curious, 2, "KeyError: 'number'"),
    ],
)
def test_a_failure_stops_with_the_line_and_the_row(
    function: Callable[[Events], Any], line: int, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with InsideTest(topology(function), models=constant(0.0), partitions=1) as test:
        send(test, 1.0, 2.0, 13.0, 3.0)
        with pytest.raises(TopologyError) as error:
            test.run()
    where = f"{__file__}:{inspect.getsourcelines(function)[1] + line}"
    assert str(error.value).startswith(f"{where}: the filter failed on a batch of 4 rows, in/0/0..3 ({why}); ")
    assert "it fails on in/0/2, key b's'." in str(error.value)
    assert error.value.exit_code == 2
    (said,) = [record for record in caplog.records if "filter_failed" in record.getMessage()]
    assert "Traceback" in said.getMessage()


def test_the_windows_go_on_when_a_filter_comes_changes_or_goes() -> None:
    every = [[], [big], [lambda e: e.event("value") < 100, big], [lambda e: e.event("value") != 40]]
    expected, window = [], list[float]()
    with InsideTest(topology(window=rolling(count=3)), models=constant(0.0), partitions=1) as test:
        fingerprints = set()
        for filters in [*every, []]:
            test._topology = topology(*filters, window=rolling(count=3))
            test.crash()
            send(test, 5.0, 40.0, 200.0)
            test.run()
            plan = test.worker.plan
            assert plan.store is not None
            fingerprints.add(plan.store.fingerprint)
            stay = [value for value in (5.0, 40.0, 200.0) if all(keep(_Row(value)) for keep in filters)]
            for value in stay:
                window.append(value)
                expected.append(sum(window[-3:]))
        assert seen(test, "total") == expected
    assert len(expected) == 3 + 2 + 1 + 2 + 3
    assert len(fingerprints) == 1


class _Row:
    """An event alone, as a filter sees it."""

    def __init__(self, value: float) -> None:
        self._value = value

    def event(self, name: str) -> float:
        assert name == "value"
        return self._value


def test_the_plan_tells_of_it_and_what_it_reads() -> None:
    plan = planned(with_filter('lambda e: (e.event("a") > 0) & (e.event("note") != "x")'))
    assert plan.columns == ("a", "note")
    assert plan.steps.way == ("consume", "decode", "filter-1", "rolling-1", "infer-1", "flag-1", "produce", "commit")
    told = plan.explain().steps
    assert told[:2] == [("decode", "takes a, note"), ("filter-1", "chooses rows by a, note")]
    assert [name for name, _ in told[2:]] == ["rolling-1", "features", "infer-1", "flag-1"]
    assert planned(EVENT + FLOW).steps.stateless == ()


def _json(record: Stored) -> Any:
    return json.loads(record.value or b"")
