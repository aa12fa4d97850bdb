"""What comes after a rebalance callback inside a poll: whoever goes on must know that partitions went."""

import threading

import pytest
from confluent_kafka import KafkaException

from streamer import limits
from streamer.clock import ManualClock
from streamer.errors import StreamerError
from streamer.stages.consume.rejoin import SILENT_S, Rejoin
from tests.kit import flows
from tests.kit.faulty import FaultTest, FaultyConsumer, FaultyProducer, kafka_error, short_waits
from tests.kit.flows import feed
from tests.kit.second import Second
from tests.kit.silence import silent_partitions_go

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")


def flow() -> FaultTest:
    return FaultTest(flows.topology(), models=flows.score, partitions=2)


def test_a_tick_without_rows_is_committed_before_its_partition_goes() -> None:
    busy = [silent_partitions_go(turns) for turns in range(1, 8)]
    assert any(busy), "every transaction was over when the partitions went"


@pytest.mark.parametrize("handler", ["on_revoke", "on_lost"])
def test_a_full_worker_that_loses_partitions_forgets_what_was_open(handler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room it only serves callbacks; a commit that ended meanwhile is not taken note of for partitions that went."""
    monkeypatch.setattr(limits, "ROWS_UNCOMMITTED_MAX", 10)
    monkeypatch.setattr(limits, "REVOKE_BUDGET_S", -1.0)
    with flow() as test:
        test.turns(3)
        feed(test, 40)
        test.commits_held = True
        while not test.group_consumer._paused:
            test.turns(1)
            test.clock.advance(0.1)
        test.release()
        test.move(handler, [0, 1])
        test.turns(1)
        assert (
            test.worker.metrics.value("streamer_rebalances_total", handler.removeprefix("on_").replace("revoke", "revoked")) == 1
        )
        with Second(test) as second:
            second.consumer.moves.append(("on_assign", [0, 1]))
            second.run_both()
        assert flows.judge(test.log).exactly_once


def test_losing_partitions_does_not_forget_that_the_producer_is_past_use() -> None:
    with flow() as test:
        test.turns(3)
        feed(test, 10)
        test.script.fail_next("commit", "fatal")
        while test.worker.ready() is None:
            test.turns(1)
        test.script.fail_next("init", "concurrent", times=3)
        test.move("on_lost", [0])
        test.turns(1)
        test.move("on_assign", [0])
        test.settle(fail=True)
        assert len(test.clients.producers) == 2
        assert test.worker.metrics.value("streamer_recoveries_total", "commit") == 1
        assert flows.judge(test.log).exactly_once


def wrapped(error: KafkaException) -> SystemError:
    """As it comes out of the binding where deliveries were to be reported in the same call."""
    failure = SystemError("<report> returned a result with an exception set")
    failure.__cause__ = error
    return failure


LOST = SystemError("<method 'flush' of 'cimpl.Producer' objects> returned NULL without setting an exception")


@pytest.mark.parametrize("error", [kafka_error("fatal"), kafka_error("fenced"), wrapped(kafka_error("fenced")), LOST])
@pytest.mark.parametrize("call", ["poll", "flush"])
def test_a_producer_that_tells_of_its_end_by_the_way_is_replaced(
    call: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client raises it out of whichever call comes next, also where nothing was asked."""
    with flow() as test:
        feed(test, 10)
        test.run()
        real, told = getattr(FaultyProducer, call), list[FaultyProducer]()

        def tell(self: FaultyProducer, timeout: float = 0) -> int:
            if not told:
                told.append(self)
                self.broken = "fatal"
                raise error
            return int(real(self, timeout))

        monkeypatch.setattr(FaultyProducer, call, tell)
        feed(test, 10)
        test.run()
        assert told
        assert test.worker.metrics.value("streamer_producer_replacements_total") == 1
        assert flows.judge(test.log).exactly_once


def test_a_partition_that_could_not_be_started_is_not_one_that_is_read() -> None:
    """Else its silence might make a tick for it, which has no place to be committed at."""
    with flow() as test:
        feed(test, 10)
        test.script.fail_next("resume", "plain", times=3)
        while "resume" not in [call for call, _, _ in test.script.hits]:
            test.turns(1)
        assert test.worker._consume.reading() == []
        assert test.worker.ready() is not None
        test.settle(fail=True)
        assert test.worker._consume.reading() == [0, 1]
        assert flows.judge(test.log).exactly_once


def test_a_part_that_cannot_be_closed_leaves_no_thread_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())

    def refuse(_: FaultyConsumer) -> None:
        raise kafka_error("fatal")

    again = flow()
    feed(again, 3)
    again.run()
    assert set(threading.enumerate()) - before
    monkeypatch.setattr(FaultyConsumer, "close", refuse)
    with pytest.raises(KafkaException):
        again.worker.close()
    assert set(threading.enumerate()) - before == set()


@pytest.mark.parametrize("how", ["told", "raised"])
def test_a_consumer_that_has_ended_is_followed_by_another(how: str) -> None:
    """A broker that has lost the group says so once, for good, to this consumer."""
    with flow() as test:
        feed(test, 20)
        test.turns(4)
        test.script.fail_next("consume", how)
        test.turns(2)
        assert len(test.clients.consumers[0]._handlers) == 3
        assert "joining the group again after: " in (test.worker.ready() or "")
        assert "The group id does not exist" in (test.worker.ready() or "")
        feed(test, 20)
        test.clock.advance(1.0)
        test.settle(fail=True)
        assert test.worker.metrics.value("streamer_recoveries_total", "lost") == 1
        assert flows.judge(test.log).exactly_once


def test_a_consumer_to_which_the_group_says_nothing_more_is_followed_by_another() -> None:
    """Seen on a real broker: a client that had lost its partitions polled on, and never joined again."""
    with flow() as test:
        feed(test, 20)
        test.turns(4)
        test.move("on_lost", [0, 1])
        test.turns(2)
        test.clock.advance(SILENT_S / 2)
        test.turns(2)
        assert "it has not said yet which partitions are ours" in (test.worker.ready() or "")
        test.clock.advance(SILENT_S / 2 + 1.0)
        test.turns(1)
        assert f"has said nothing for {SILENT_S:g} s" in (test.worker.ready() or "")
        feed(test, 20)
        test.clock.advance(1.0)
        test.settle(fail=True)
        assert test.worker.ready() is None
        assert flows.judge(test.log).exactly_once


def test_a_new_consumer_that_nothing_is_heard_of_may_be_one_to_spare() -> None:
    """Under KIP-848 the group says nothing to a member that it has no partitions for; it was unready until some came."""
    clock = ManualClock()
    rejoin = Rejoin(clock=clock)
    rejoin.ended("the broker is gone")
    clock.advance(20.0)
    said = [rejoin.outside]  # there is no consumer yet
    assert rejoin.due()
    for seconds in (9.0, 2.0):
        clock.advance(seconds)
        said.append(rejoin.outside)
    rejoin.ended("refused")
    said.append(rejoin.outside)
    assert said == ["the broker is gone", "the broker is gone", None, "refused"]


def test_consumers_that_end_one_after_the_other_are_not_made_for_ever() -> None:
    def turn_on() -> None:
        for _ in range(100):
            test.turns(1)
            test.clock.advance(30.0)

    with flow() as test:
        test.script.fail_next("consume", "told", times=100)
        with pytest.raises(StreamerError, match=r"20 consumers have ended one after the other: .*group id does not exist"):
            turn_on()
