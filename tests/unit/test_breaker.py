"""What a broker refuses for good is tried ten times, ever more rarely, and then the process ends and names it."""

import pytest
from confluent_kafka import KafkaError

from streamer.errors import RefusedError
from streamer.limits import BACKOFF_MAX_S, REFUSALS_MAX
from streamer.stages.commit.transaction import TransactionError
from streamer.testing import constant
from streamer.worker.breaker import Breaker
from tests.kit import flows, rekeyed
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.flows import send
from tests.kit.inside import InsideTest
from tests.kit.recovery import flow, recovered

__all__ = ["short_waits"]
GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
FINAL = (
    KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.POLICY_VIOLATION,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _patience(short_waits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.testing.topology._TURNS_MAX", 20_000)


@GUARANTEES
@pytest.mark.parametrize("code", FINAL)
@pytest.mark.parametrize("topic", [flows.PREDICTIONS, "flow-flow-window-changelog"])
def test_what_is_refused_ends_the_process_after_ten_tries(topic: str, code: int, guarantee: str) -> None:
    with flow(guarantee=guarantee) as test:
        send(test, range(3))
        test.run()
        committed = test.log.committed("flow", flows.SOURCE, 0)
        test.log.refusals[topic] = code
        started = test.now
        send(test, range(3, 6))
        with pytest.raises(RefusedError) as refusal:
            test.run()
        assert refusal.value.exit_code == 8
        says = str(refusal.value)
        assert f"{topic}/0 refuses a record" in says
        assert f"{REFUSALS_MAX} times in a row" in says
        assert "bytes" in says
        # 0.1 + 0.2 + ... + 6.4 + 10 + 10, and between them turns of a few milliseconds.
        assert 32.7 <= test.now - started < 36
        assert test.log.committed("flow", flows.SOURCE, 0) == committed
        assert test.log.open == {}, "what is left open would hold readers up"


def test_the_message_names_the_record_and_the_setting() -> None:
    with flow() as test:
        test.log.message_bytes_max[flows.PREDICTIONS] = 150
        send(test, range(1))
        with pytest.raises(RefusedError, match=rf"id '{flows.SOURCE}/0/0', \d+ bytes, of .* raise max.message.bytes"):
            test.run()
    with flow() as test:
        test.log.refusals[flows.DEAD_LETTERS] = KafkaError.TOPIC_AUTHORIZATION_FAILED
        test.send_bytes(flows.SOURCE, b"bad one", b"{")
        with pytest.raises(RefusedError, match=r"key b'bad one', \d+ bytes.* grant write on the topic"):
            test.run()


@GUARANTEES
def test_when_somebody_helps_in_time_it_goes_on_as_if_nothing_had_been(guarantee: str) -> None:
    with flow(guarantee=guarantee) as test:
        for _ in range(3):
            for topic in (flows.PREDICTIONS, flows.ANOMALIES):
                test.log.refusals[topic] = KafkaError.TOPIC_AUTHORIZATION_FAILED
            send(test, range(5))
            said = set[str | None]()
            until = test.now + BACKOFF_MAX_S
            while test.now < until:
                test.turns(1)
                test.worker.let_commit(1.0)
                said.add(test.worker.ready())
            assert any(word and "rolled back 5 times in a row" in word and flows.PREDICTIONS in word for word in said)
            assert test.worker.live() is None
            assert test.worker.ready() is not None
            test.log.refusals.clear()
            test.settle()
            assert test.worker.ready() is None
        assert flows.judge(test.log).exactly_once
        assert recovered(test, "commit" if guarantee == "exactly-once" else "flush") == pytest.approx(18, abs=6)


@pytest.mark.parametrize("kind", ["abortable", "fatal", "plain", "retriable"])
def test_what_is_no_answer_is_waited_out(kind: str) -> None:
    """Lost connections and time-outs: twenty in a row, and no pause for them."""
    with flow() as test:
        started = test.now
        test.script.fail_next("commit", kind, times=20)
        send(test, range(3))
        test.run()
        assert test.now - started < 5
        assert flows.judge(test.log).exactly_once


def test_a_refusal_that_the_client_keeps_to_itself_is_found_out() -> None:
    """A broker refuses a topic to a transaction: who produces hears of a wrong state only, and would try for ever."""
    with flow() as test:
        send(test, range(3))
        test.run()
        test.script.fail_next("produce_batch", "unauthorized", times=3 * REFUSALS_MAX)
        send(test, range(3))
        with pytest.raises(RefusedError, match=f"grant write on the topic.*{flows.PREDICTIONS}"):
            test.run()


def test_commits_of_other_partitions_do_not_help_the_record_that_is_refused() -> None:
    """A poisoned partition beside one that is always busy would otherwise be tried for ever."""
    with FaultTest(flows.topology(), models=flows.score, partitions=2) as test:
        test.log.refusals[flows.DEAD_LETTERS] = KafkaError.TOPIC_AUTHORIZATION_FAILED
        poison = test.log.append(flows.SOURCE, b"a", b"{", partition=0)

        def busy() -> None:
            """Between two tries the other partition alone is read, and committed."""
            for _ in range(100):
                trying = test.worker.metrics.value("streamer_recoveries_total")
                poison.state = "committed"
                while test.worker.metrics.value("streamer_recoveries_total") == trying:
                    test.turns(1)
                poison.state = "hidden"
                test.log.append(flows.SOURCE, b"b", flows.value_of("b", test.now, 1.0), partition=1)
                while (test.log.committed("flow", flows.SOURCE, 1) or (0, ""))[0] < test.log.end(flows.SOURCE, 1):
                    test.turns(1)

        with pytest.raises(RefusedError):
            busy()
        assert test.worker.metrics.value("streamer_commits_total") >= REFUSALS_MAX - 1


def test_a_flow_that_forwards_is_refused_as_well() -> None:
    with InsideTest(rekeyed.topology(), models=rekeyed.score, partitions=2) as test:
        test.log.refusals[rekeyed.INTERNAL] = KafkaError.TOPIC_AUTHORIZATION_FAILED
        test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, test.now))
        with pytest.raises(RefusedError, match=rekeyed.INTERNAL):
            test.run()


def test_a_stop_is_answered_in_a_pause() -> None:
    with InsideTest(flows.topology(), models=constant(0.0), partitions=1) as test:
        test.log.refusals[flows.PREDICTIONS] = KafkaError.TOPIC_AUTHORIZATION_FAILED
        send(test, range(1))
        worker = test.worker
        turns = 0

        def stopped() -> bool:
            nonlocal turns
            turns += 1
            test.clock.advance(0.005)
            if "rolled back" in (worker.ready() or ""):
                worker.stop()
            return turns > 5_000

        worker.run(stopped)
        assert turns < 5_000


def test_reports_are_asked_for_only_after_a_failure() -> None:
    """Each costs as much as sending a record."""
    with flow() as test:
        send(test, range(3))
        test.run()
        (producer,), wanted = test.clients.producers, list[bool]()
        for fails in (False, True, False):
            if fails:
                test.script.fail_next("commit", "abortable")
            send(test, range(3))
            test.run()
            wanted.append(producer.reports)
        assert wanted == [False, True, False]


def ends(turns: int = 300) -> bool:
    """Whether a worker whose topic may not be written gives up."""
    with flow() as test:
        test.log.refusals[flows.PREDICTIONS] = KafkaError.TOPIC_AUTHORIZATION_FAILED
        send(test, range(3))
        for _ in range(turns):
            try:
                test.turns(1)
            except RefusedError:
                return True
            test.clock.advance(0.5)
    return False


def test_a_breaker_that_never_trips_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends()
    failed = Breaker.failed

    def first(self: Breaker, failure: TransactionError, read: dict[tuple[str, int], int]) -> None:
        self.refused.in_a_row = 0
        failed(self, failure, read)

    monkeypatch.setattr(Breaker, "failed", first)
    assert not ends()
