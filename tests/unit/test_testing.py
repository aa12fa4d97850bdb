"""The tools people test their flows with: what they are given is taken as elsewhere, and a kill is a kill."""

from datetime import timedelta

import pytest
from confluent_kafka import KafkaException

from streamer.clock import ManualClock
from streamer.errors import SettingsError, StateError, StreamerError, TopologyError
from streamer.kafka.memory_clients import MemoryConsumer, MemoryProducer
from streamer.kafka.memory_log import MemoryLog
from streamer.planning.plan import Plan
from streamer.testing import TopologyTest, values
from streamer.units import Duration
from tests.kit import flows
from tests.kit.inside import InsideTest


def flow(**settings: object) -> InsideTest:
    return InsideTest(flows.topology(), models=flows.score, settings=settings)


@pytest.mark.parametrize("step", ["2s", timedelta(seconds=2)])
def test_events_are_sent_as_time_goes_by(step: Duration) -> None:
    with flow() as test:
        start = test.now
        test.send(flows.Reading("s1", start, 5.0), times=4, step=step)
        rows = test.read(flows.PREDICTIONS)
        assert values(rows, "window_n") == [1, 2, 3, 3]
        assert [row["time"] - start for row in rows] == [0, 2, 4, 6]
        assert test.now >= start + 8
        assert test.read(flows.PREDICTIONS) == []
        test.send(flows.Reading("s1", test.now, 5.0))
        assert len(test.read(flows.PREDICTIONS)) == 1


@pytest.mark.parametrize("given", ["50ms", timedelta(milliseconds=50)])
def test_settings_are_what_stands_in_a_file(given: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_GUARANTEE", "at-least-once")  # what is set around a test is not the test's
    with flow(commit_interval=given, inference={"threads": 2}) as test:
        test.send(flows.Reading("s1", test.now, 5.0))
        assert len(test.read(flows.PREDICTIONS)) == 1
        assert (test.settings.commit_interval, test.settings.inference.threads) == (0.05, 2)
        assert test.settings.guarantee == "exactly-once"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"commit_intervall": "50ms"}, "settings=: 'commit_intervall' is not a setting; did you mean 'commit_interval'?"),
        ({"memory": "2MiB"}, "settings=: 'memory' is called 'state_memory' now"),
        ({"commit_interval": 0.05}, 'settings=: commit_interval: 0.05 has no unit; write it with one, such as "20ms"'),
        ({"commit_interval": "50s"}, "settings=: commit_interval = '50s': it should be less than or equal to 10s"),
        ({"state_memory": 2 * 1024**2}, "settings=: state_memory: 2097152 has no unit"),
        ({"keys_max": 0}, "settings=: keys_max = 0: it should be greater than or equal to 1"),
        ({"keys_max": "many"}, "settings=: keys_max = 'many': it should be a valid integer"),
        ({"inference": {"threads": 2.5}}, "settings=: inference.threads = 2.5: it should be a valid integer"),
        ({"guarantee": "twice"}, "settings=: guarantee = 'twice': it should be 'exactly-once' or 'at-least-once'"),
        ({"kafka": {"common": {"acks": "0"}}}, "settings=: 'acks' cannot be set to '0': "),
    ],
    ids=str,
)
def test_a_setting_that_is_wrong_is_named_with_what_is_allowed(given: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as told:
        flow(**given)
    assert message in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_all_wrong_settings_are_one_error() -> None:
    with pytest.raises(SettingsError) as told:
        flow(keys_max=0, commit_interval="1m", threads=3)
    assert len(str(told.value).splitlines()) == 3


def test_a_flow_that_does_not_come_to_rest_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.testing.topology._TURNS_MAX", 3)
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
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        plan = test.worker.plan
        assert isinstance(plan, Plan)
        assert plan.store is not None
        each = plan.store.bytes_per_key
    settings = {"state_memory": "2MiB", "keys_max": 2 * 1024**2 // each}
    with TopologyTest(flows.topology(), models=flows.score, partitions=1, settings=settings):
        pass  # one partition fits
    with pytest.raises(TopologyError, match=r"bytes per key x .* keys per partition \(keys_max\) x 4 partitions ="):
        TopologyTest(flows.topology(), models=flows.score, partitions=4, settings=settings)


def test_kept_windows_of_another_shape_are_refused_as_by_run() -> None:
    with InsideTest(flows.topology(3), models=flows.score, partitions=1) as test:
        test.send(flows.Reading("a", test.now, 1.0), times=5)
        test.run()
        changelog = test.worker.plan.topics.changelog
        assert changelog is not None
        kept = test.log.committed_records(changelog)
    with InsideTest(flows.topology(4), models=flows.score, partitions=1) as test:
        for record in kept:
            test.log.append(changelog, record.key, record.value, 0)
        test.crash()
        test.send(flows.Reading("a", test.now, 1.0))
        with pytest.raises(StateError, match=r"was written for the window .*, the topology now has"):
            test.run()
