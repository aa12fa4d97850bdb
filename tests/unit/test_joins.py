"""Joins through the production worker: what an event sees of another stream, and when."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamer import Event, Model, Topology, TopologyError, Window, as_of, interval, lagged, rolling
from streamer.limits import ROWS_PER_BATCH_MAX
from streamer.operators.join.stage import JoinStage
from streamer.testing import constant
from streamer.topology.joins import Join
from tests.kit.inside import InsideTest
from tests.kit.joined import CARDS, FLOW, LOGINS, PAID, PAIR, SCORED, Card, Label, Login, Payment, put


@pytest.fixture(name="test")
def _test() -> Iterator[InsideTest]:
    with InsideTest(FLOW, models=constant(0.5), partitions=2, settings={"keys_max": 1000}) as test:
        yield test


def test_an_event_sees_the_others_of_its_key(test: InsideTest) -> None:
    now, day = test.now, 86_400
    put(test, Login("a", now - 601, 0.9))
    put(test, Login("a", now - 600, 0.3))
    put(test, Login("b", now, 1.0))
    put(test, Card("a", now - 50, 100.0))
    put(test, Card("a", now, 200.0))
    put(test, Card("a", now + 1, 300.0))
    put(test, Label("a", now - 7 * day, True))
    put(test, Label("a", now - 7 * day + 1, True))
    put(test, Label("a", now - 8 * day, True))
    put(test, Payment("a", now, 5.0))
    put(test, Login("a", now + 30, 0.4))
    put(test, Login("a", now + 31, 0.8))
    assert test.read(SCORED) == []
    test.clock.advance(31)
    (scored,) = test.read(SCORED)
    seen = {"spent": 5.0, "logins": 2.0, "risk": pytest.approx(0.4), "limit": 200.0, "frauds": 1.0, "labels": 2.0}
    assert scored["features"] == seen
    assert scored["window_n"] == 1
    assert scored["key"] == "a"
    assert scored["id"].startswith(f"{PAID}/")


def test_an_event_without_others_sees_nothing(test: InsideTest) -> None:
    put(test, Payment("a", test.now, 5.0))
    test.clock.advance(31)
    (scored,) = test.read(SCORED)
    assert scored["features"] == {"spent": 5.0, "logins": 0.0, "risk": -1.0, "limit": -1.0, "frauds": 0.0, "labels": 0.0}


def test_look_backs_by_count_keep_their_names() -> None:
    topology = (
        Topology("counts")
        .source(Payment, dead_letters="counts.dead")
        .join(as_of(Login), dead_letters="counts.logins.dead")
        .window(rolling(count=(2, 8)))
        .features(lambda w: {"two": w.over(2).sum("amount"), "all": w.over(8).sum("amount"), "n": w.of(Login).count})
        .infer(Model("stand-in"))
        .publish(predictions="counts.scored", features=True)
    )
    with InsideTest(topology, models=constant(0.5), partitions=1) as test:
        test.send(Payment("a", test.now, 5.0), times=3)
        test.clock.advance(1)
        last = test.read("counts.scored")[-1]
    assert last["features"] == {"two": 10.0, "all": 15.0, "n": 0.0}


def test_waiting_rows_survive_a_crash(test: InsideTest) -> None:
    put(test, Login("a", test.now, 0.5))
    put(test, Payment("a", test.now, 5.0))
    assert test.read(SCORED) == []
    test.crash()
    assert test.read(SCORED) == []
    put(test, Login("a", test.now + 1, 0.7))
    test.crash()
    test.clock.advance(31)
    (scored,) = test.read(SCORED)
    assert scored["features"]["logins"] == 2.0
    test.crash()
    assert test.read(SCORED) == []


def test_bad_records_go_to_the_topic_of_their_input(test: InsideTest) -> None:
    test.send_bytes(LOGINS, b"a", b"{}")
    test.send_bytes(PAID, b"a", b"{}")
    test.send_bytes(CARDS, None, b"{}")
    assert len(test.read_records("logins.dead")) == 1
    assert len(test.read_records("paid.dead")) == 1
    assert len(test.read_records("cards.dead")) == 1


def mistaken(*joins: Join, reads: Callable[[Window], dict[str, Any]] = lambda w: {"n": w.of(Login).count}) -> str:
    """What is said of these joins."""
    flow = Topology("mistaken").source(Payment, dead_letters="paid.dead")
    for number, join in enumerate(joins):
        flow = flow.join(join, dead_letters=f"rejected.{number}")
    flow = flow.features(reads).infer(Model("m")).publish(predictions=SCORED)
    with pytest.raises(TopologyError) as caught:
        InsideTest(flow, models=constant(0.5))
    return str(caught.value)


class Keyless(Event, topic="keyless", time="ts"):
    ts: float


def test_mistakes_name_the_line() -> None:
    both = interval(Login, before="1m")
    assert "is taken by topic=" in mistaken(both, as_of(Login))
    assert "give Keyless one" in mistaken(as_of(Keyless), reads=lambda w: {"n": w.of(Keyless).count})
    assert "of(Login) needs a join" in mistaken(as_of(Card))
    assert "the field 'user' is str, and only float" in mistaken(both, reads=lambda w: {"n": w.event("user")})
    assert "the field 'user' is str, and only float" in mistaken(both, reads=lambda w: {"n": w.of(Login).last("user")})
    assert "no such field 'use' here" in mistaken(both, reads=lambda w: {"n": w.of(Login).last("use")})
    mistakes: list[Callable[[], Join]] = [
        lambda: interval(Login, before="10"),
        lambda: as_of(Login, max_age="-1s"),
        lambda: lagged(Login, delay="1d"),
        lambda: lagged(Login, "1d", "24h", delay="1d"),
        lambda: as_of(Login, max_samples=0),
        lambda: as_of(Login, max_samples="3"),  # type: ignore[arg-type]  # the mistake
        lambda: interval(Login, before="99999999d"),
        lambda: interval(Event),
    ]
    for wrong in mistakes:
        with pytest.raises(TopologyError, match=r"test_joins.py:\d+: "):
            wrong()
    with pytest.raises(TopologyError, match="takes interval"):
        Topology("t").source(Payment, dead_letters="r").join(Login, dead_letters="l")  # type: ignore[arg-type]  # the mistake


def test_what_finds_no_place_is_a_dead_letter(test: InsideTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.operators.join.stage.JOIN_ROWS_WAITING_MAX", 3)
    for n in range(8):
        put(test, Payment("a", test.now + n, 5.0))
    reasons = [dict(record.headers)["streamer.error.reason"] for record in test.read_records("paid.dead")]
    assert reasons == ["too_many_waiting"] * 5
    test.clock.advance(60)
    assert len(test.read(SCORED)) == 3


def test_a_key_with_rows_that_wait_keeps_its_place() -> None:
    with InsideTest(FLOW, models=constant(0.5), partitions=1, settings={"keys_max": 2}) as test:
        put(test, Payment("a", test.now, 5.0))
        put(test, Payment("b", test.now, 5.0))
        put(test, Payment("c", test.now, 5.0))
        put(test, Login("b", test.now, 0.2))
        (letter,) = test.read_records("paid.dead")
        assert (dict(letter.headers)["streamer.error.reason"], letter.key) == ("too_many_keys", b"c")
        test.clock.advance(31)
        scored = test.read(SCORED)
        assert [row["key"] for row in scored] == ["a", "b"]
        assert scored[1]["features"]["logins"] == 1.0
        put(test, Payment("c", test.now, 5.0))
        test.crash()
        test.clock.advance(31)
        assert [row["key"] for row in test.read(SCORED)] == ["c"]


def test_an_input_far_ahead_waits_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would flood the memory stays in its topic until the other input has caught up."""
    monkeypatch.setattr("streamer.operators.join.stage.JOIN_ROWS_AHEAD_MAX", 4)
    with InsideTest(PAIR, models=constant(0.5), partitions=1, settings={"keys_max": 1000}) as test:
        now, most = test.now, 0
        for n in range(6_000):
            put(test, Payment("a", now + n / 2, 1.0))
        for n in range(6_060):
            put(test, Login("a", now + n / 2, 0.5))
        window = test.worker.pipeline.window
        assert isinstance(window, JoinStage)
        held = 0.0
        for _ in range(200):
            test.worker.turn()
            most = max(most, window.waiting)
            held = max(held, test.worker.metrics.value("streamer_join_inputs_waiting"))
            test.clock.advance(0.0001)
        assert held == 1
        assert most < 3 * ROWS_PER_BATCH_MAX
        test.clock.advance(7_000)
        scored = test.read(SCORED)
        assert test.worker.metrics.value("streamer_join_inputs_waiting") == 0
        assert len(scored) == 6_000
        assert {row["features"]["logins"] for row in scored[300:]} == {256.0}  # max_samples
