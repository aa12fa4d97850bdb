"""What the worker does after a failure: who is replaced, what is counted, where reading goes on."""

import pytest

from streamer.errors import FencedError, LostOffsetsError, StateError
from streamer.limits import COMMIT_STUCK_S
from tests.kit import flows
from tests.kit.faulty import FaultTest, FaultyClients, short_waits
from tests.kit.flows import send
from tests.kit.recovery import flow, recovered

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.mark.parametrize("call", ["begin", "produce_changelog", "offsets", "commit"])
@pytest.mark.parametrize("kind", ["abortable", "fatal", "fenced"])
def test_a_failure_rolls_back_once_and_loses_nothing(call: str, kind: str) -> None:
    with flow() as test:
        send(test, range(5))
        test.run()
        test.script.fail_next(call, kind)
        send(test, range(5, 10))
        test.run()
        assert test.script.hits == [(call, test.script.hits[0][1], kind)]
        assert test.worker.metrics.value("streamer_recoveries_total") == 1
        assert test.worker.metrics.value("streamer_rows_redone_total") == 5
        assert flows.judge(test.log).exactly_once
        assert len(test.log.committed_records(flows.PREDICTIONS)) == 10


@pytest.mark.parametrize(("kind", "replaced"), [("abortable", 0), ("fatal", 1), ("fenced", 1), ("lost_answer", 1)])
def test_only_a_producer_in_doubt_is_replaced(kind: str, replaced: int) -> None:
    with flow() as test:
        test.script.fail_next("commit", kind)
        send(test, range(3))
        test.run()
        send(test, range(3, 5))
        test.settle()
        assert len(test.clients.producers) == 1 + replaced
        assert test.worker.metrics.value("streamer_producer_replacements_total") == replaced
        assert flows.judge(test.log).exactly_once


def test_of_a_broker_that_stays_away_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with flow() as test:
        send(test, range(5))
        test.run()
        test.script.fail_next("commit", "fatal")
        test.script.fail_next("init", "retriable", 20)
        send(test, range(5, 10))
        test.run()
        said = [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]
        assert (said.count("rolling_back"), said.count("rollback_waits")) == (1, 1)
        assert test.script.calls["init"] > 20
        assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize("late", ["never", "in the end"])
def test_a_commit_that_never_ends_is_left_to_itself(late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyClients, "commit_stuck_s", COMMIT_STUCK_S)
    with flow() as test:
        send(test, range(3))
        test.run()
        test.commits_held = True
        send(test, range(3, 6))
        test.turns(20)
        assert recovered(test, "stuck") == 0
        test.commits_held = False
        test.clock.advance(COMMIT_STUCK_S)
        test.turns(3)
        assert recovered(test, "stuck") == 1
        if late == "in the end":
            test.release()  # the old producer is fenced: nothing comes of it
        test.settle()
        assert test.worker.metrics.value("streamer_producer_replacements_total") == 1
        assert flows.judge(test.log).exactly_once
        assert len(test.log.committed_records(flows.PREDICTIONS)) == 6


@pytest.mark.parametrize("rest_s", [0.005, 0.05])
def test_leaving_the_coordinator_alone_holds_nothing_up_for_ever(rest_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyClients, "rest_after_commit_s", rest_s)
    with flow() as test:
        for n in range(5):
            send(test, range(3 * n, 3 * n + 3))
            test.turns(3)
            if n == 2:
                test.script.fail_next("commit", "abortable")
        test.run()
        assert flows.judge(test.log).exactly_once


def test_a_fence_counts_once_while_the_broker_is_away() -> None:
    with flow() as test:
        test.script.fail_next("commit", "fenced")
        test.script.fail_next("init", "plain", times=5)
        send(test, range(3))
        test.run()
        assert len([hit for hit in test.script.hits if hit[0] == "init"]) == 5
        assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize(("slot", "named"), [("a-7", "our slot 'a-7' was taken over 3 times"), (None, "our transactional id")])
def test_a_worker_that_is_fenced_again_and_again_says_why(slot: str | None, named: str) -> None:
    settings: dict[str, object] = {"slot": slot} if slot else {}
    with flow(None, **settings) as test:
        test.script.fail_next("commit", "fenced", times=3)
        send(test, range(3))
        with pytest.raises(FencedError, match=f"{named}.*Give each worker its own --slot") as stopped:
            test.run()
        assert stopped.value.exit_code == 7


def test_fences_far_apart_are_no_reason_to_stop() -> None:
    with flow() as test:
        for n in range(5):
            test.script.fail_next("commit", "fenced")
            send(test, range(n, n + 1))
            test.run()
            test.clock.advance(40.0)
        assert recovered(test, "fenced") == 5
        assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize("request_", ["committed", "list_offsets", "seek"])
def test_a_broker_that_does_not_answer_during_a_restore_is_asked_again(request_: str) -> None:
    with flow() as test:
        send(test, range(5))
        test.run()
        test.crash()
        for n in (1, 2, 4, 5):  # on the way to the restore, and between the restore and the first record
            test.script.faults[request_, test.script.calls[request_] + n] = "plain"
        send(test, range(5, 8))
        test.run()
        test.worker.lost([])
        test.settle(fail=True)
        assert len(test.script.hits) >= 3
        assert flows.judge(test.log).exactly_once


def test_a_partition_restored_but_not_started_is_restored_again_by_a_rollback() -> None:
    with flow() as test:
        for n in range(70):  # more blocks than one step of a restore takes
            send(test, range(n, n + 1))
            test.run()
        test.crash()
        test.script.fail_next("seek", "plain", times=1000)
        test.turns(5)
        assert test.worker._assignment._ready
        test.worker.lost([])
        test.script.faults.clear()
        send(test, range(70, 75))
        test.run()
        assert flows.judge(test.log).exactly_once


class TestLostOffsets:
    """Retention removed records that were not processed: offsets 4 to 6 of ten."""

    def lose(self, policy: str) -> FaultTest:
        test = flow(on_lost_offsets=policy)
        send(test, range(4))
        test.run()
        send(test, range(4, 10))
        test.script.removed[flows.SOURCE] = 7
        test.crash()
        return test

    def test_stop_says_what_is_gone_and_what_to_set(self) -> None:
        with self.lose("stop") as test, pytest.raises(LostOffsetsError, match=r"3 records are lost\). Set on_lost_offsets"):
            test.run()

    @pytest.mark.parametrize(("policy", "first"), [("earliest", 7), ("latest", 10)])
    def test_going_on_loses_just_that_and_survives_the_next_restart(self, policy: str, first: int) -> None:
        with self.lose(policy) as test:
            test.turns(50)
            send(test, range(10, 12))
            test.run()
            test.crash()
            send(test, range(12, 14))
            test.run()
            ids = sorted(int(row["id"].rpartition("/")[2]) for row in test.read(flows.PREDICTIONS))
            assert ids == [*range(4), *range(first, 14)]


def test_an_offset_beyond_the_end_of_the_log_is_not_blamed_on_retention() -> None:
    for policy in ("stop", "earliest", "latest"):
        with flow(on_lost_offsets=policy) as test:
            send(test, range(10))
            test.run()
            del test.log._topics[flows.SOURCE][0][6:]  # a leader that was behind
            test.crash()
            with pytest.raises(LostOffsetsError) as refusal:
                test.turns(50)
            assert "committed offset 10 lies beyond the end of the log, which is at 6" in str(refusal.value)
            assert "on_lost_offsets" not in str(refusal.value)
            assert "streamer state reset" in str(refusal.value)


class TestStateAndOffsetsMustAgree:
    """Exactly-once starts only where the changelog ends."""

    def refused(self, test: FaultTest) -> str:
        test.crash()
        with pytest.raises(StateError) as refusal:
            test.settle()
        assert "or with a new --group" in str(refusal.value)
        return str(refusal.value)

    def test_a_deleted_changelog_is_not_an_empty_window(self) -> None:
        with flow() as test:
            send(test, range(3))
            test.run()
            test.log._topics.pop(test.worker.plan.topics.changelog or "")
            assert "ends with commit 0 at input offset None, the group committed number 1 at 3" in self.refused(test)

    def test_offsets_set_by_another_tool_are_seen(self) -> None:
        with flow() as test:
            send(test, range(3))
            test.run()
            group = test.worker.plan.group
            test.log._groups[group].offsets[flows.SOURCE, 0] = (1, "")
            assert "committed number 0 at 1" in self.refused(test)

    def test_a_missing_block_is_a_gap(self) -> None:
        with flow() as test:
            for n in range(3):
                send(test, range(n, n + 1))
                test.run()
            blocks = test.log._topics[test.worker.plan.topics.changelog or ""][0]
            blocks[1].state = "aborted"
            assert "the changelog has a gap" in self.refused(test)
