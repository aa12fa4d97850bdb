"""Partitions come and go while rows are in flight: the next owner redoes what was not committed, and nothing else."""

from collections.abc import Iterator

import pytest

from streamer import limits
from streamer.errors import TopologyError
from tests.kit import flows
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.flows import feed
from tests.kit.second import Second

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture
def test() -> Iterator[FaultTest]:
    with FaultTest(flows.topology(), models=flows.score, partitions=2) as made:
        yield made


def committed(test: FaultTest, partition: int) -> int:
    place = test.log.committed(test.worker.plan.group, flows.SOURCE, partition)
    return place[0] if place else 0


def test_a_revoked_partition_is_finished_within_the_budget(test: FaultTest) -> None:
    test.turns(3)
    feed(test, 40)
    test.turns(1)
    assert not test.worker.idle
    assert committed(test, 1) == 0
    test.move("on_revoke", [1])
    test.turns(1)
    assert committed(test, 1) == test.log.end(flows.SOURCE, 1) > 0
    assert sorted(test.worker.pipeline.window.stores) == [0]
    with Second(test) as second:
        second.consumer.moves.append(("on_assign", [1]))
        feed(test, 40)
        second.run_both()
        assert second.worker.metrics.value("streamer_restored_rows_total") > 0
        assert second.worker.metrics.value("streamer_records_total", "predicted") > 0
    assert test.worker.metrics.value("streamer_recoveries_total") == 0
    assert flows.judge(test.log).exactly_once


def test_rows_that_cannot_be_finished_in_time_are_redone_by_the_next_owner(test: FaultTest) -> None:
    test.turns(3)
    feed(test, 40)
    test.scores_held = True
    test.turns(2)
    started = test.now
    test.move("on_revoke", [1])
    test.turns(1)
    assert limits.REVOKE_BUDGET_S <= test.now - started < limits.REVOKE_BUDGET_S + 1
    assert committed(test, 1) == 0
    with Second(test) as second:
        second.consumer.moves.append(("on_assign", [1]))
        test.release()
        second.run_both()
        assert second.worker.metrics.value("streamer_records_total", "predicted") == test.log.end(flows.SOURCE, 1)
    assert test.worker.metrics.value("streamer_recoveries_total", "revoked") == 1
    assert test.worker.metrics.value("streamer_rows_redone_total") == 40
    assert test.worker.metrics.value("streamer_rebalance_stall_seconds_total") >= limits.REVOKE_BUDGET_S
    assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize("in_flight", ["scores_held", "commits_held"])
def test_what_was_open_for_lost_partitions_is_not_committed(test: FaultTest, in_flight: str) -> None:
    test.turns(3)
    feed(test, 40)
    setattr(test, in_flight, True)
    test.turns(8)
    assert not test.worker.idle
    test.move("on_lost", [0, 1])
    with Second(test) as second:
        second.consumer.moves.append(("on_assign", [0, 1]))
        test.turns(3)
        test.release()
        second.run_both()
        assert second.worker.metrics.value("streamer_records_total", "predicted") == 40
    assert test.worker.metrics.value("streamer_records_total", "predicted") == 0
    assert test.worker.metrics.value("streamer_recoveries_total", "lost") == 1
    assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize("handler", ["on_revoke", "on_lost"])
def test_rows_fetched_before_their_partition_went_are_the_next_owners(test: FaultTest, handler: str) -> None:
    """The client may hand out rows and the news that their partition is gone in one call."""
    test.turns(3)
    feed(test, 40)
    test.group_consumer.fetches_first = True
    test.move(handler, [1])
    with Second(test) as second:
        second.consumer.moves.append(("on_assign", [1]))
        second.run_both()
        assert second.worker.metrics.value("streamer_records_total", "predicted") == test.log.end(flows.SOURCE, 1)
    assert flows.judge(test.log).exactly_once


def test_a_partition_that_goes_during_a_failure_is_not_waited_for(test: FaultTest) -> None:
    test.turns(3)
    feed(test, 40)
    test.script.fail_next("offsets", "abortable")
    test.turns(6)
    test.script.fail_next("committed", "plain", times=3)
    test.move("on_revoke", [1])
    with Second(test) as second:
        second.consumer.moves.append(("on_assign", [1]))
        second.run_both()
    assert flows.judge(test.log).exactly_once


def test_other_partitions_go_on_while_one_is_restored(test: FaultTest, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a clock that stands still a share of time has no end.
    monkeypatch.setattr(limits, "RESTORE_SHARE_S", 0.0)
    for _ in range(150):  # more blocks than a few steps of a restore take
        feed(test, 5)
        test.run()
    test.move("on_revoke", [0, 1])
    test.turns(1)
    test.move("on_assign", [0])
    for _ in range(50):
        test.turns(1)
    test.move("on_assign", [1])
    feed(test, 10)
    test.turns(2)
    ready = test.worker.ready() or ""
    assert ready.startswith("windows are being restored: 1 of 2 partitions wait, ")
    assert 0 < int(ready.partition("% is read, about")[0].rpartition(" ")[2]) < 100
    assert test.group_consumer.reading == {0}
    assert test.worker._consume._position == {(flows.SOURCE, 0): test.log.end(flows.SOURCE, 0)}
    test.run()
    assert flows.judge(test.log).exactly_once


# ---------------------------------------------------------------------- the end


def test_a_stopped_worker_commits_what_it_has_read(test: FaultTest) -> None:
    feed(test, 100)
    test.worker.run(until=iter([False] * 4 + [True]).__next__)
    done = sum(committed(test, partition) for partition in (0, 1))
    assert done > 0
    assert done == len(test.log.committed_records(flows.PREDICTIONS))
    assert test.log.open == {}
    test.crash()
    test.run()
    assert flows.judge(test.log).exactly_once


def test_a_worker_that_cannot_drain_in_time_leaves_the_rest_to_the_next(test: FaultTest) -> None:
    feed(test, 60)
    test.scores_held = True
    started = test.now
    test.worker.run(until=iter([False] * 4 + [True]).__next__)
    assert test.now - started <= 10.0 + limits.REVOKE_BUDGET_S + 1.0
    assert test.log.committed_records(flows.PREDICTIONS) == []
    test.scores_held = False
    test.crash()
    test.run()
    assert flows.judge(test.log).exactly_once


def test_a_worker_that_fails_commits_nothing_on_its_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TopologyError("a bug in the feature function")

    with FaultTest(flows.topology(), models=flows.score, partitions=1) as test:
        feed(test, 10)
        test.run()
        feed(test, 10)
        test.scores_held = True
        test.turns(1)
        test.scores_held = False
        feed(test, 10)
        monkeypatch.setattr(type(test.worker.pipeline.window), "__call__", fail)
        with pytest.raises(TopologyError):
            test.worker.run()
        assert committed(test, 0) == 10
        assert len(test.log.committed_records(flows.PREDICTIONS)) == 10


# ---------------------------------------------------------------------- what it says about itself


def test_a_replica_to_spare_is_ready_while_the_group_knows_it(test: FaultTest) -> None:
    test.worker.assigned([])
    assert test.worker.ready() is None, "more replicas than partitions: a rolling update waits for this one"
    test.worker.lost([])
    assert test.worker.ready() is not None


def test_a_replica_that_gave_its_partitions_away_stays_ready(test: FaultTest) -> None:
    test.run()
    test.turns(5)
    test.worker.revoked([0, 1])
    assert test.worker.ready() is None


def test_under_the_new_protocol_a_spare_hears_nothing_and_is_ready_once_partitions_would_have_come() -> None:
    kafka = {"consumer": {"group.protocol": "consumer"}}
    with FaultTest(flows.topology(), models=flows.score, settings={"kafka": kafka}) as test:
        assert test.worker.ready() is not None
        test.clock.advance(11.0)
        assert test.worker.ready() is None


def test_ready_and_live_name_what_is_waited_for(test: FaultTest) -> None:
    assert test.worker.ready() == "joining the group: it has not said yet which partitions are ours"
    test.run()
    test.turns(5)
    assert test.worker.ready() is None
    assert test.worker.live() is None
    test.clock.advance(119.0)
    assert test.worker.live() is None
    test.clock.advance(10.0)
    assert test.worker.live() == "the worker's loop has not turned for 129 s"
    test.turns(1)
    assert test.worker.live() is None
