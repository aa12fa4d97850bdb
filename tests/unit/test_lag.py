"""Lag in records, in seconds and until it is gone, per partition; and clients that brokers can tell apart."""

import numpy as np
import pytest

from streamer.clock import ManualClock
from streamer.kafka.config import admin_config, consumer_config, producer_config, reader_config
from streamer.rows.records import Records
from streamer.settings.settings import KafkaSettings, Settings
from streamer.telemetry.lag import Lag
from streamer.telemetry.metrics import Metrics
from tests.kit import flows
from tests.kit.inside import InsideTest

START = 1_700_000_000.0


def polled(partition: int, at: float) -> Records:
    one = np.array([0], np.int64)
    times = np.array([at * 1e3], np.int64)
    return Records(
        topic="t", partitions=np.array([partition], np.int32), offsets=one, timestamps_ms=times, messages=[None], keys=[b"k"],
        values=[b"v"], polled_us=round(at * 1e6),
    )  # fmt: skip


def shown(metrics: Metrics, name: str) -> dict[str, float]:
    return {partition: value for (_, partition), value in metrics.by_label(f"streamer_{name}").items()}


def test_behind_and_catching_up() -> None:
    clock, metrics = ManualClock(START), Metrics()
    lag = Lag(metrics, clock)
    lag.read([polled(0, START - 60), polled(1, START - 5)])
    lag.show({("t", 0): 1000, ("t", 1): 0, ("t", 2): 7})
    assert shown(metrics, "consumer_lag_records") == {"0": 1000, "1": 0, "2": 7}
    assert shown(metrics, "consumer_lag_seconds") == {"0": 60, "1": 0}, "of partition 2 no record is known"
    assert shown(metrics, "catch_up_seconds") == {"0": float("inf"), "1": 0, "2": float("inf")}
    clock.advance(4)
    lag.show({("t", 0): 800, ("t", 1): 10})
    assert shown(metrics, "catch_up_seconds") == {"0": 16, "1": float("inf")}
    assert shown(metrics, "consumer_lag_seconds") == {"0": 64, "1": 9}
    clock.advance(20)
    lag.show({("t", 0): 800})
    assert shown(metrics, "catch_up_seconds") == {"0": float("inf")}, "the pace is that of the last seconds"
    assert shown(metrics, "consumer_lag_records") == {"0": 800}, "a partition that was given away is not shown"


@pytest.mark.parametrize("at", [0.0, -1.0])
def test_a_record_without_a_time_gives_no_seconds(at: float) -> None:
    metrics = Metrics()
    lag = Lag(metrics, ManualClock(START))
    lag.read([polled(0, at)])
    lag.show({("t", 0): 5})
    assert shown(metrics, "consumer_lag_seconds") == {}


def test_a_worker_shows_it() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=2) as test:
        test.run()
        test.clock.advance(2)
        test.worker.turn()
        for name in ("lag_records", "lag_seconds"):
            assert set(shown(test.worker.metrics, f"consumer_{name}").values()) == {0}
        assert set(shown(test.worker.metrics, "catch_up_seconds").values()) == {0}


def test_every_client_names_topology_and_slot() -> None:
    settings = Settings(slot="3").named("fraud", "3")
    configs = [
        consumer_config(settings, "g"), producer_config(settings, 5.0), reader_config(settings, committed=True),
        admin_config(settings),
    ]  # fmt: skip
    assert {config["client.id"] for config in configs} == {"fraud-3"}
    assert Settings().named("fraud", None).admin_config()["client.id"] == "fraud"
    own = Settings(kafka=KafkaSettings(common={"client.id": "mine"}))
    assert own.named("fraud", "3").admin_config()["client.id"] == "mine"
