"""Topics that change underneath: each that a flow reads or writes, grown, made anew or deleted, while it runs and between."""

import re
from collections.abc import Iterator

import pytest

from streamer import Event, Model, Topology
from streamer.errors import TopicError
from streamer.testing import constant
from streamer.worker.topic_watch import TopicWatch
from tests.kit import flows, rekeyed
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.inside import InsideTest

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")
CHANGELOG = "flow-flow-window-changelog"
OUTPUTS = (flows.DEAD_LETTERS, flows.PREDICTIONS, flows.ANOMALIES)
PARTITIONS = 2
CHECK_S = 11.0


def keyed(**settings: object) -> FaultTest:
    return FaultTest(flows.topology(), models=flows.score, partitions=PARTITIONS, settings=settings)


def feed(test: FaultTest, rows: int, first: int = 0) -> None:
    for n in range(first, first + rows):
        key = f"k{n % 5}"
        test.send_bytes(flows.SOURCE, key.encode(), flows.value_of(key, test.now, float(n)))


def stopped(test: FaultTest, turns: int = 400) -> str:
    """Turn, and let time pass, until the worker stops for a topic; its words."""
    for _ in range(turns):
        try:
            test.turns(1)
        except TopicError as stop:
            return str(stop)
        test.clock.advance(0.1)
    raise AssertionError("it goes on and on")


def ids(test: FaultTest, topic: str) -> str:
    return str(test.log.topic_id(topic))


@pytest.fixture
def test() -> Iterator[FaultTest]:
    with keyed() as made:
        feed(made, 40)
        made.run()
        yield made


class TestWhileRunning:
    """The worker stops before its next commit, and says what is lost and what to do."""

    @pytest.mark.parametrize("records", [0, 10, 60])
    def test_an_input_made_anew(self, test: FaultTest, records: int) -> None:
        before, reached = ids(test, flows.SOURCE), [test.log.end(flows.SOURCE, p) for p in range(PARTITIONS)]
        test.clock.advance(CHECK_S)
        test.turns(2)
        test.log.delete_topic(flows.SOURCE)
        test.log.create_topic(flows.SOURCE)
        feed(test, records)
        words = stopped(test)
        assert f"had id {before} and has id {ids(test, flows.SOURCE)}" in words
        for p in range(PARTITIONS):
            unread = min(reached[p], test.log.end(flows.SOURCE, p))
            assert (f"{flows.SOURCE}/{p} 0..{unread - 1}" in words) == (unread > 0)
        assert "streamer state reset FILE:NAME --to earliest" in words

    def test_what_was_committed_of_it_before_the_check_is_named(self, test: FaultTest) -> None:
        reached = [test.log.end(flows.SOURCE, p) for p in range(PARTITIONS)]
        test.clock.advance(CHECK_S)
        test.turns(2)
        test.log.delete_topic(flows.SOURCE)
        test.log.create_topic(flows.SOURCE)
        feed(test, 60)
        test.turns(8)  # no time for a check: what lies behind the old offsets is taken for the old topic's
        words = stopped(test)
        for p in range(PARTITIONS):
            assert (
                f"{flows.SOURCE}/{p} {reached[p]}..{test.log.end(flows.SOURCE, p) - 1}" in words.partition("Committed since")[2]
            )
        committed = test.log.committed(test.worker.plan.group, flows.SOURCE, 0)
        assert committed is not None
        test.crash()  # and it does not begin again either, since those offsets name the old topic
        assert "Of the new topic these offsets were never read" in stopped(test)

    @pytest.mark.parametrize("topic", [*OUTPUTS, CHANGELOG])
    def test_an_output_made_anew(self, test: FaultTest, topic: str) -> None:
        before, results = ids(test, topic), len(test.log.committed_records(flows.PREDICTIONS))
        test.log.delete_topic(topic)
        test.log.create_topic(topic)
        test.clock.advance(CHECK_S)
        test.turns(1)
        feed(test, 5)
        words = stopped(test)
        assert f"{topic} was deleted and made again" in words
        assert before in words
        assert ids(test, topic) in words
        assert len(test.log.committed_records(flows.PREDICTIONS)) in (0, results), "nothing is committed after the check"

    @pytest.mark.parametrize("topic", [flows.SOURCE, *OUTPUTS, CHANGELOG])
    @pytest.mark.parametrize("busy", [False, True])
    def test_a_topic_that_is_gone(self, test: FaultTest, topic: str, *, busy: bool) -> None:
        before = ids(test, topic)
        test.log.delete_topic(topic)
        if busy and topic != flows.SOURCE:
            feed(test, 20)
        words = stopped(test)
        assert f"topic {topic} (id {before}) was deleted" in words
        assert "streamer topics create" in words

    @pytest.mark.parametrize("topic", [flows.SOURCE, CHANGELOG])
    def test_a_keyed_flow_refuses_partitions_that_are_added(self, test: FaultTest, topic: str) -> None:
        test.log.grow_topic(topic, 4)
        feed(test, 10)
        assert f"{topic} had 2 partitions and has 4: keys have moved" in stopped(test)
        assert all(test.log.committed(test.worker.plan.group, topic, p) is None for p in (2, 3))

    @pytest.mark.parametrize("topic", OUTPUTS)
    def test_an_output_may_grow(self, test: FaultTest, topic: str) -> None:
        test.log.grow_topic(topic, 4)
        test.clock.advance(CHECK_S)
        feed(test, 20)
        test.run()
        test.clock.advance(CHECK_S)
        test.turns(3)
        assert len(test.read(flows.PREDICTIONS)) == 60


class TestBetweenRuns:
    """The offsets that a group committed name the topic they are of."""

    @pytest.mark.parametrize(
        ("offsets", "guarantee"),
        [(offsets, guarantee) for offsets in ("kept", "gone") for guarantee in ("exactly-once", "at-least-once")],
    )
    def test_an_input_made_anew(self, offsets: str, guarantee: str) -> None:
        with keyed(guarantee=guarantee) as test:
            feed(test, 40)
            test.run()
            before = ids(test, flows.SOURCE)
            group = test.log._groups[test.worker.plan.group]
            committed = dict(group.offsets)
            test.log.crash()
            test.log.delete_topic(flows.SOURCE)  # the broker forgets what groups committed there
            test.log.create_topic(flows.SOURCE)
            if offsets == "kept":  # unless they are committed again by who was still running
                group.offsets.update(committed)
            feed(test, 60)
            test.crash()
            assert f"had id {before} and has id {ids(test, flows.SOURCE)}" in stopped(test)

    def test_all_topics_of_a_keyed_flow_grown(self, test: FaultTest) -> None:
        for topic in (flows.SOURCE, CHANGELOG):
            test.log.grow_topic(topic, 4)
        test.crash()
        assert f"{flows.SOURCE} had 2 partitions and has 4" in stopped(test)

    @pytest.mark.parametrize("topic", OUTPUTS)
    def test_a_new_output_is_taken(self, test: FaultTest, topic: str) -> None:
        test.log.delete_topic(topic)
        test.log.create_topic(topic, 3)
        test.crash()
        feed(test, 10)
        test.run()
        assert len(test.log.committed_records(flows.PREDICTIONS)) == (10 if topic == flows.PREDICTIONS else 50)

    def test_an_offset_committed_by_an_older_version_is_taken_and_gets_the_id(self, test: FaultTest) -> None:
        group = test.log._groups[test.worker.plan.group]
        group.offsets = {
            place: (offset, re.sub(r" (id|of)=\S+", "", text or "")) for place, (offset, text) in group.offsets.items()
        }
        test.crash()
        feed(test, 10)
        test.run()
        assert f"id={ids(test, flows.SOURCE)} of=2" in (group.offsets[flows.SOURCE, 0][1] or "")

    def test_a_topic_that_is_missing_at_the_start_is_named(self, test: FaultTest) -> None:
        test.log.delete_topic(flows.ANOMALIES)
        with pytest.raises(TopicError, match=flows.ANOMALIES):
            test.crash()


class Payment(Event, topic="payments"):
    """No key, no window."""

    amount: float


def stateless(start: str) -> FaultTest:
    topology = (
        Topology("stateless")
        .source(Payment, dead_letters="payments.dead")
        .features(lambda w: {"amount": w.event("amount")})
        .infer(Model("stand-in"))
        .publish(predictions="payments.predictions")
    )
    return FaultTest(topology, models=constant(0.5), partitions=PARTITIONS, settings={"start_from": start})


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_flow_without_windows_takes_partitions_that_are_added_from_their_first_record(start: str) -> None:
    with stateless(start) as test:
        test.turns(3)
        for n in range(20):
            test.send_bytes("payments", f"{n}".encode(), b'{"amount":1}')
        test.run()
        test.log.grow_topic("payments", 4)
        for n in range(40):
            test.send_bytes("payments", f"{n}".encode(), b'{"amount":1}')
        rows = test.read("payments.predictions")
        assert len(rows) == 60
        assert {row["id"].split("/")[1] for row in rows} == {"0", "1", "2", "3"}


def test_a_source_that_is_rekeyed_may_grow() -> None:
    with InsideTest(rekeyed.topology(), models=rekeyed.score, partitions=2) as test:
        for n in range(90):
            if n == 30:
                test.run()
                test.log.grow_topic(rekeyed.SOURCE, 3)
            test.send_bytes(rekeyed.SOURCE, f"c{n}".encode(), rekeyed.payment(f"t{n % 7}", float(n), card=f"c{n}"))
        test.run()
        assert test.log.end(rekeyed.SOURCE, 2) > 0
        assert not test.log.committed_records(rekeyed.DEAD_LETTERS)
        assert len(test.log.committed_records(rekeyed.PREDICTIONS)) == 90
        assert rekeyed.judge(test.log) == []


def test_a_build_that_does_not_compare_ids_is_noticed(test: FaultTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on where it was: what lies before that is skipped, and windows mix both topics."""
    monkeypatch.setattr(TopicWatch, "_stop_for_another", lambda *_: None)
    test.log.delete_topic(flows.SOURCE)
    test.log.create_topic(flows.SOURCE)
    feed(test, 60, first=1000)
    with pytest.raises(AssertionError, match="it goes on and on"):
        stopped(test)
    assert flows.judge(test.log).wrong
