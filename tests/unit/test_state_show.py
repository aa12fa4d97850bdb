"""`streamer state show`: every kind of window opens the store that a worker would, and its samples can be told."""

from typing import Any

import pytest

from streamer import Model, hopping, rolling, session, tumbling
from streamer.cli.state import describe
from streamer.planning.plan import windows_of
from streamer.testing import constant
from streamer.topology.topology import Topology
from tests.kit import flows
from tests.kit.inside import InsideTest

ROLLING = [rolling(count=4), rolling("60s"), rolling("1h", resolution="1m")]
CLOSING = [tumbling("60s"), hopping("2m", hop="60s"), session(gap="30s")]


def topology(window: Any) -> Topology:
    closes = window in CLOSING
    return (
        Topology("show")
        .source(flows.Reading, dead_letters=flows.DEAD_LETTERS)
        .window(window)
        .features(lambda w: {"mean": w.mean("value")})
        .infer(Model("stand-in"))
        .publish(predictions=flows.PREDICTIONS, late_events="late" if closes else None)
    )


@pytest.mark.parametrize("window", [*ROLLING, *CLOSING])
def test_the_store_is_the_workers_and_tells_its_samples(window: Any) -> None:
    declared = topology(window)
    with InsideTest(declared, models=constant(0.5), partitions=1) as test:
        for value in (1.0, 2.0, 3.0):
            test.send_bytes(flows.SOURCE, b"s", flows.value_of("s", test.now, value))
        test.run()
        live = test.worker.pipeline.window.stores[0]
    spec = windows_of(declared)
    assert spec is not None
    empty = spec.open(10)
    assert (type(empty), empty.spec.fingerprint) == (type(live), live.spec.fingerprint)
    assert describe(empty, b"s") is None
    found = describe(live, b"s")
    assert found is not None
    rows = found["samples"]
    if rolling("1h", resolution="1m") == window:
        assert [row["count"] for row in rows] == [3.0]
    else:
        assert [row["value"] for row in rows] == [1.0, 2.0, 3.0]
