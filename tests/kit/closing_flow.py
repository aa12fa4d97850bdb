"""Windows that close through the whole worker: what feeds them, and what their ticks must come to."""

from collections import defaultdict
from typing import Any

from streamer import Model, Topology, tumbling
from streamer.topology.closing import Closing, Emission
from tests.kit import flows
from tests.kit.inside import InsideTest
from tests.kit.schemas import headers

LATE = "readings.late"
START = 1_700_000_000
SECOND = 1_000_000


def topology(window: Closing, emit: Emission = "both", name: str = "closing") -> Topology:
    return (
        Topology(name)
        .source(flows.Reading, dead_letters=flows.DEAD_LETTERS)
        .window(window, emit=emit)
        .features(lambda w: {"n": w.count, "total": w.sum("value"), "newest": w.last("value")})
        .infer(Model("m"))
        .flag(above=1e9)
        .publish(predictions=flows.PREDICTIONS, anomalies=flows.ANOMALIES, features=True, late_events=LATE)
    )


def closing(window: Closing, emit: Emission = "both", partitions: int = 1, **settings: object) -> InsideTest:
    return InsideTest(topology(window, emit), models=lambda c: c["total"][:, None], partitions=partitions, settings=settings)


def send(test: InsideTest, key: str, second: float, value: float = 1.0) -> None:
    test.send_bytes(flows.SOURCE, key.encode(), flows.value_of(key, START + second, value))


def short(row: dict[str, Any]) -> tuple[str, float, float, bool, float]:
    return row["key"], row["window_start"] - START, row["window_end"] - START, row["final"], row["features"]["total"]


# 1,700,000,000 is no multiple of 60: windows of ten seconds are cut at whole ones
TEN = tumbling("10s", grace="5s", idle_timeout="600s")


def a_silent_partition_closes_its_windows_once() -> None:
    with closing(TEN, "on_close") as test:
        send(test, "a", 1)
        send(test, "b", 14)
        assert test.read(flows.PREDICTIONS) == []
        test.clock.advance(500.0)
        assert test.read(flows.PREDICTIONS) == []
        test.clock.advance(150.0)
        assert [short(row)[:4] for row in test.read(flows.PREDICTIONS)] == [("a", 0, 10, True), ("b", 10, 20, True)]
        test.clock.advance(1_000.0)
        assert test.read(flows.PREDICTIONS) == []
        assert test.worker.metrics.value("streamer_idle_ticks_total") == 1
        send(test, "a", 24)  # the tick said that 25 has passed
        send(test, "a", 31)
        send(test, "z", 36)
        assert [short(row)[:4] for row in test.read(flows.PREDICTIONS)] == [("a", 20, 30, True)]
        send(test, "b", 19)
        (late,) = test.read_records(LATE)
        assert headers(late)["streamer.late.watermark_us"] == str((START + 36) * SECOND)


def a_record_in_time_keeps_the_windows_open() -> None:
    with closing(TEN, "on_close") as test:
        send(test, "a", 1)
        for _ in range(4):
            test.read(flows.PREDICTIONS)
            test.clock.advance(450.0)
            send(test, "a", 2)
        assert test.read(flows.PREDICTIONS) == []


def a_crash_around_a_tick_repeats_it_once_in_effect(turns: int) -> None:
    with closing(TEN, "on_close", partitions=2) as test:
        for n in range(20):
            send(test, f"k{n % 5}", n / 2, float(n))
        test.run()
        test.clock.advance(650.0)
        for _ in range(turns):
            test.worker.turn()
            test.clock.advance(0.005)
        test.crash()
        test.run()
        test.clock.advance(650.0)
        found = test.read(flows.PREDICTIONS)
        totals: dict[str, float] = defaultdict(float)
        for row in found:
            totals[row["key"]] += row["features"]["total"]
        assert totals == {f"k{k}": float(sum(range(k, 20, 5))) for k in range(5)}
        assert len({row["id"] for row in found}) == len(found)
        stores = [store.dump() for _, store in sorted(test.worker.pipeline.window.stores.items())]
        test.crash()
        test.run()
        assert [store.dump() for _, store in sorted(test.worker.pipeline.window.stores.items())] == stores
        send(test, "k0", 1)
        assert len(test.read_records(LATE)) == 1  # what the tick closed stays closed
