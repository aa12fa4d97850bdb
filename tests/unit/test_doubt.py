"""A request that may have a second copy on its way: the producer is replaced before the next transaction, and nothing else."""

import json
import threading

import pytest
from confluent_kafka import KafkaError

from streamer.kafka.config import transactional_config
from streamer.limits import COMMIT_STUCK_S, DOUBT_AFTER_S, RETRY_BACKOFF_S
from streamer.settings.settings import Settings
from streamer.stages.commit.doubt import Doubt
from tests.kit import flows
from tests.kit.faulty import FaultTest, FaultyClients, kafka_error, short_waits
from tests.kit.flows import send
from tests.kit.late import LateProducer, LateScript, LateTest

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")


def late() -> LateTest:
    return LateTest(flows.topology(), models=flows.score, partitions=1, script=LateScript())


def counted(test: FaultTest, metric: str, *labels: str) -> float:
    return test.worker.metrics.value(metric, *labels)


@pytest.mark.parametrize("arrives", ["produce_batch", "produce_changelog", "offsets", "commit"])
@pytest.mark.parametrize("delayed", ["commit", "offsets"])
def test_a_copy_that_arrives_late_meets_a_new_producer_and_nothing_is_redone(delayed: str, arrives: str) -> None:
    with late() as test:
        send(test, range(3))
        test.run()
        test.delay(delayed, arrives)
        send(test, range(3, 6))
        test.run()
        send(test, range(6, 9))
        test.run()
        assert test.script.met == ["refused"]
        assert counted(test, "streamer_doubts_total", "slow") == 1
        assert counted(test, "streamer_producer_replacements_total") == 1
        assert counted(test, "streamer_recoveries_total") == 0
        assert flows.judge(test.log).exactly_once
        test.crash()
        send(test, range(9, 12))
        test.settle()
        assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize("arrives", ["produce_batch", "produce_changelog", "offsets", "commit"])
def test_an_abort_may_arrive_late_too(arrives: str) -> None:
    with late() as test:
        test.script.fail_next("commit", "abortable")
        test.delay("abort", arrives)
        send(test, range(3))
        test.run()
        assert test.script.met == ["refused"]
        assert counted(test, "streamer_doubts_total", "slow") == 1
        assert flows.judge(test.log).exactly_once


def test_rows_wait_while_the_coordinator_lets_no_new_producer_in() -> None:
    with late() as test:
        send(test, range(3))
        test.delay("commit", "offsets")
        test.run()
        test.script.fail_next("init", "concurrent", times=20)
        send(test, range(3, 6))
        test.turns(10)
        assert test.worker.ready() is None, "a new producer is made in no time as a rule: not worth telling"
        test.clock.advance(1.0)
        assert "transactions cannot begin yet: " in (test.worker.ready() or "")
        assert len(test.log.committed_records(flows.PREDICTIONS)) == 3
        test.settle(fail=True)
        assert len(test.clients.producers) == 2
        assert counted(test, "streamer_recoveries_total") == 0
        assert flows.judge(test.log).exactly_once


def test_a_start_waits_for_the_coordinator_and_says_so() -> None:
    with late() as test:
        send(test, range(3))
        test.script.fail_next("init", "concurrent", times=20)
        test.crash()
        test.turns(10)
        test.clock.advance(1.0)
        assert "transactions cannot begin yet: " in (test.worker.ready() or "")
        test.settle(fail=True)
        assert counted(test, "streamer_recoveries_total") == 0
        assert flows.judge(test.log).exactly_once


# ---------------------------------------------------------------------- what the client tells


def told(**brokers: tuple[int, int, int]) -> str:
    """Statistics of a client: broker -> disconnects, time-outs, requests with offsets."""
    known = {
        name: {"disconnects": closed, "req_timeouts": timed_out, "txretries": 7, "req": {"TxnOffsetCommit": offsets}}
        for name, (closed, timed_out, offsets) in brokers.items()
    }
    return json.dumps({"name": "x", "brokers": known, "topics": {"t": {"brokers": 1}}, "tx": 1})


QUIET = told(TxnCoordinator=(0, 0, 0), one=(0, 0, 3), two=(0, 0, 0))


@pytest.mark.parametrize(
    ("text", "doubted"),
    [
        (QUIET, False),
        (told(TxnCoordinator=(1, 0, 0), one=(0, 0, 3)), True),
        (told(TxnCoordinator=(0, 1, 0), one=(0, 0, 3)), True),
        (told(TxnCoordinator=(0, 0, 0), one=(1, 0, 4)), True),
        (told(TxnCoordinator=(0, 0, 0), one=(0, 0, 4), two=(5, 5, 0)), False),  # coordinates nothing of ours
        (told(TxnCoordinator=(0, 0, 0)), True),  # the client forgot it and has begun anew
    ],
)
def test_a_connection_to_a_coordinator_that_broke_is_a_doubt(text: str, *, doubted: bool) -> None:
    doubt = Doubt()
    doubt.statistics(QUIET)
    doubt.opened()
    doubt.statistics(text)
    assert (doubt.reason == "connection") == doubted


def test_a_connection_that_breaks_between_transactions_is_none() -> None:
    """A broker closes what was idle for minutes; the statistics after the end may still tell of the transaction."""
    broken = told(TxnCoordinator=(1, 0, 0), one=(0, 0, 3))
    doubt = Doubt()
    doubt.statistics(QUIET)
    doubt.opened()
    doubt.ended()
    doubt.statistics(QUIET)
    doubt.statistics(broken)
    doubt.opened()
    doubt.statistics(broken)
    assert doubt.reason is None
    for after in (QUIET, broken):
        doubt = Doubt()
        doubt.statistics(QUIET)
        doubt.opened()
        doubt.ended()
        doubt.statistics(after)
        assert (doubt.reason is None) == (after is QUIET)


@pytest.mark.parametrize(
    ("code", "text", "doubted"),
    [
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down", True),
        (KafkaError._TRANSPORT, "one:9092/1: Receive failed: reset by peer (after 512ms in state UP)", True),
        (KafkaError._TRANSPORT, "one:9092/bootstrap: Connect to one failed: refused (after 0ms in state CONNECT)", False),
    ],
)
def test_an_error_of_a_connection_that_was_up_is_a_doubt(code: int, text: str, *, doubted: bool) -> None:
    doubt = Doubt()
    doubt.error(KafkaError(code, text))
    assert doubt.reason is None, "no transaction is open"
    doubt.opened()
    doubt.error(KafkaError(code, text))
    assert (doubt.reason == "error") == doubted


def test_a_request_answered_sooner_than_any_resend_is_none() -> None:
    reasons = []
    for seconds in (DOUBT_AFTER_S, DOUBT_AFTER_S + 0.001):
        doubt = Doubt()
        doubt.took("commit", seconds)
        reasons.append((doubt.reason, doubt.what))
    assert reasons == [(None, ""), ("slow", "commit took 351 ms")]


def test_the_producer_of_transactions_is_set_up_for_the_rule() -> None:
    """Whatever the user asks for: a shorter wait before a resend would put every commit in doubt, no statistics tell nothing."""
    asked = {"retry.backoff.ms": 10, "retry.backoff.max.ms": 20, "statistics.interval.ms": 0}
    config = transactional_config(Settings.load(None, kafka={"producer": asked}), "group")
    assert config["retry.backoff.ms"] == 1e3 * RETRY_BACKOFF_S <= config["retry.backoff.max.ms"]
    assert config["statistics.interval.ms"] > 0


def test_a_thread_that_was_left_to_itself_touches_nothing_of_the_new_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back with an error that says: send it again."""
    monkeypatch.setattr(FaultyClients, "commit_stuck_s", COMMIT_STUCK_S)
    monkeypatch.setattr("streamer.stages.commit.commit._MEND_TIMEOUT_S", 0.05)
    entered, go_on, polled = threading.Event(), threading.Event(), list[LateProducer]()
    left = list[threading.Thread]()
    poll = LateProducer.poll

    with late() as test:
        send(test, range(3))
        test.run()
        stuck = test.clients.producers[0]

        def hang() -> None:
            left.append(threading.current_thread())
            again = entered.is_set()
            entered.set()
            assert go_on.wait(10.0), "nobody lets the commit go on"
            if not again:
                raise kafka_error("retriable")

        def note(self: LateProducer, timeout: float = 0) -> int:
            if threading.current_thread() in left:
                polled.append(self)
            return poll(self, timeout)

        monkeypatch.setattr(stuck, "commit_transaction", hang)
        monkeypatch.setattr(LateProducer, "poll", note)
        test.commits_held = True  # the helper would wait for its end
        send(test, range(3, 6))
        test.turns(8)
        test.commits_held = False
        job, ending = test.held_commits.pop()
        test.worker._commit._committing._jobs.put((job, ending))
        assert entered.wait(10.0), "the commit did not begin"
        test.clock.advance(COMMIT_STUCK_S)
        test.turns(3)
        assert len(test.clients.producers) == 2
        go_on.set()
        assert ending.finished.wait(10.0), "the old thread hangs"
        send(test, range(6, 9))
        test.run()
        assert polled, "the old thread did not come back"
        left[0].join(10.0)
        assert not left[0].is_alive(), "two threads serve one queue"
        assert set(polled) <= {stuck}
        assert len(test.clients.producers) == 2
        assert counted(test, "streamer_doubts_total") == 0
        assert flows.judge(test.log).exactly_once
