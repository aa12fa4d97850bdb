"""The tools people test their flows with: what they are given is taken as elsewhere, and a kill is a kill."""

import pytest
from confluent_kafka import KafkaException
from pydantic import ValidationError

from streamer.clock import ManualClock
from streamer.errors import StateError, StreamerError, TopologyError
from streamer.kafka.memory_clients import MemoryConsumer, MemoryProducer
from streamer.kafka.memory_log import MemoryLog
from streamer.planning.plan import Plan
from streamer.testing import TopologyTest, values
from tests.kit import flows


def flow(**settings: object) -> TopologyTest:
    return TopologyTest(flows.topology(), models=flows.score, settings=settings)


def test_events_are_sent_as_time_goes_by() -> None:
    with flow() as test:
        start = test.now
        test.send(flows.Reading("s1", start, 5.0), times=4, step="2s")
        rows = test.read(flows.PREDICTIONS)
        assert values(rows, "window_n") == [1, 2, 3, 3]
        assert [row["time"] - start for row in rows] == [0, 2, 4, 6]
        assert test.now >= start + 8
        assert test.read(flows.PREDICTIONS) == []
        test.send(flows.Reading("s1", test.now, 5.0))
        assert len(test.read(flows.PREDICTIONS)) == 1


@pytest.mark.parametrize("given", ["50ms", 0.05])
def test_settings_are_texts_or_the_numbers_they_stand_for(given: object) -> None:
    with flow(commit_interval=given) as test:
        test.send(flows.Reading("s1", test.now, 5.0))
        assert len(test.read(flows.PREDICTIONS)) == 1
        assert test._settings.commit_interval == 0.05


def test_a_setting_that_is_wrong_is_refused() -> None:
    with pytest.raises(ValidationError):
        flow(commit_interval="50")


def test_a_flow_that_does_not_come_to_rest_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.testing._TURNS_MAX", 3)
    with flow() as test:
        test.send(flows.Reading("s1", test.now, 5.0))
        with pytest.raises(StreamerError, match="did not come to rest within 3 turns"):
            test.run()


def test_a_clock_does_not_go_back() -> None:
    clock = ManualClock(5.0)
    clock.advance(1.5)
    assert (clock.wall_us(), clock.monotonic()) == (6_500_000, 6.5)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1.0)


# ---------------------------------------------------------------------- the log keeps Kafka's rules


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(1, ManualClock())


def producer(log: MemoryLog) -> MemoryProducer:
    made = MemoryProducer(log, {"transactional.id": "t"})
    made.init_transactions()
    return made


def read(log: MemoryLog, isolation: str = "read_committed") -> list[bytes | None]:
    reader = MemoryConsumer(log, {"group.id": "r", "isolation.level": isolation})
    reader.subscribe(["t"], on_assign=lambda c, tps: c.incremental_assign(tps), on_revoke=lambda *_: None)
    return [message.value() for message in reader.consume(100, 0.0)]


def test_nothing_behind_an_open_transaction_is_stable(log: MemoryLog) -> None:
    log.append("t", None, b"before")
    first = producer(log)
    first.begin_transaction()
    first.produce("t", b"in it")
    log.append("t", None, b"behind")
    assert read(log) == [b"before"]
    assert read(log, "read_uncommitted") == [b"before", b"in it", b"behind"]
    first.commit_transaction()
    assert read(log) == [b"before", b"in it", b"behind"]


def test_an_aborted_transaction_is_never_read(log: MemoryLog) -> None:
    first = producer(log)
    first.begin_transaction()
    first.produce("t", b"in it")
    first.abort_transaction()
    log.append("t", None, b"behind")
    assert read(log) == [b"behind"]
    assert [record.value for record in log.committed_records("t")] == [b"behind"]


def test_a_newer_producer_fences_the_older(log: MemoryLog) -> None:
    older = producer(log)
    older.begin_transaction()
    older.produce("t", b"lost")
    newer = producer(log)
    for call in (older.commit_transaction, older.abort_transaction, lambda: older.produce("t", b"x")):
        with pytest.raises(KafkaException, match="_FENCED"):
            call()
    newer.begin_transaction()
    newer.produce("t", b"kept")
    newer.commit_transaction()
    assert read(log) == [b"kept"]


def test_what_was_killed_cannot_commit_any_more(log: MemoryLog) -> None:
    """A commit may be under way in its thread when a test kills the worker."""
    dead = producer(log)
    dead.begin_transaction()
    dead.produce("t", b"lost")
    log.crash()
    with pytest.raises(KafkaException, match="_FENCED"):
        dead.commit_transaction()
    assert read(log) == []


# ---------------------------------------------------------------------- what `streamer run` would end with


def test_windows_that_do_not_fit_all_partitions_are_refused_as_by_run() -> None:
    with TopologyTest(flows.topology(), models=flows.score, partitions=1) as test:
        plan = test.worker.plan
        assert isinstance(plan, Plan)
        assert plan.store is not None
        each = plan.store.bytes_per_key
    settings: dict[str, object] = {"state_memory": 2 * 1024**2, "keys_max": 2 * 1024**2 // each}
    TopologyTest(flows.topology(), models=flows.score, partitions=1, settings=settings).worker.close()
    with pytest.raises(TopologyError, match=r"bytes per key x .* keys per partition \(keys_max\) x 4 partitions ="):
        TopologyTest(flows.topology(), models=flows.score, partitions=4, settings=settings)


def test_kept_windows_of_another_shape_are_refused_as_by_run() -> None:
    with TopologyTest(flows.topology(3), models=flows.score, partitions=1) as test:
        test.send(flows.Reading("a", test.now, 1.0), times=5)
        test.run()
        changelog = test.worker.plan.topics.changelog
        assert changelog is not None
        kept = test.log.committed_records(changelog)
    with TopologyTest(flows.topology(4), models=flows.score, partitions=1) as test:
        for record in kept:
            test.log.append(changelog, record.key, record.value, 0)
        test.restart()
        test.send(flows.Reading("a", test.now, 1.0))
        with pytest.raises(StateError, match=r"was written for the window .*, the topology now has"):
            test.run()
