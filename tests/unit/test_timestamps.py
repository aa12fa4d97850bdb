"""What a record's own timestamp decides, record by record, however they are cut into batches."""

from dataclasses import replace
from typing import Any

import pytest

from streamer import Event
from streamer.topology.steps import Source
from tests.kit import flows
from tests.kit.inside import InsideTest
from tests.kit.schemas import headers, problems

AHEAD_S = 3600.0
"""As settings have it by default."""


def flow() -> InsideTest:
    return InsideTest(flows.topology(), models=flows.score, partitions=1)


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2), (3,), (1, 3)])
@pytest.mark.parametrize("broker_first", [True, False])
def test_who_set_a_timestamp_is_told_record_by_record(cuts: tuple[int, ...], broker_first: bool) -> None:
    """A topic may change from the broker's timestamps to the producer's and back; neighbours do not decide for each other."""
    with flow() as test:
        late = test.now + AHEAD_S + 60.0  # too late for our clock, not for the timestamp of whoever set one an hour ahead
        ahead_ms = int((test.now + AHEAD_S) * 1000)
        kinds = [broker_first, not broker_first, not broker_first, broker_first]
        for number, broker in enumerate(kinds):
            record = test.log.append(
                flows.SOURCE, b"s", flows.value_of("s", late, float(number)), created_ms=None if broker else ahead_ms
            )
            record.timestamp_ms = ahead_ms
            if number + 1 in cuts:
                test.run()
        admitted = [row["id"].rpartition("/")[2] for row in test.read(flows.PREDICTIONS)]
        letters = [headers(letter) for letter in test.read_records(flows.DEAD_LETTERS)]
    assert admitted == [str(number) for number, broker in enumerate(kinds) if broker]
    assert [letter["streamer.error.reason"] for letter in letters] == ["time_too_far_ahead"] * 2


@pytest.mark.parametrize("times", [(-1, 0, 1_700_000_000), (10**18, 2**62, -(2**62)), "ahead", "skewed"])
@pytest.mark.parametrize("timeless", [False, True])
def test_a_timestamp_that_cannot_be_true_spoils_no_latency(times: Any, timeless: bool) -> None:
    """Whatever a producer writes there: the latency counts from the poll, and the parts of the ledger stay what they are."""

    class Keyed(Event, topic=flows.SOURCE, key="sensor", **({} if timeless else {"time": "ts"})):
        sensor: str
        ts: float
        value: float
        load: float = 0.0

    plain = flows.topology()
    topology = replace(plain, steps=(replace(plain.need(Source), event=Keyed), *plain.steps[1:]))
    with InsideTest(topology, models=flows.score, partitions=1) as test:
        if times in ("ahead", "skewed"):
            times = [int(test.now * 1000) + (2_881_116 if times == "ahead" else 700)]
        for created_ms in times:
            test.send_bytes(flows.SOURCE, b"s", flows.value_of("s", test.now - 2.0, 1.0), created_ms=created_ms)
        test.send_bytes(flows.SOURCE, b"s", flows.value_of("s", test.now - 2.0, 1.0))
        predictions = test.read(flows.PREDICTIONS)
        test.clock.advance(2.0)
        test.worker.turn()  # gauges are set once a second
        ledger = test.worker.metrics.ledger
        unusable = test.worker.metrics.value("streamer_timestamps_unusable_total")
        reasons = {headers(letter)["streamer.error.reason"] for letter in test.read_records(flows.DEAD_LETTERS)}
    assert all(0.0 <= row["latency_ms"] < 1000.0 for row in predictions)
    assert all(problems("prediction", row) == [] for row in predictions)
    # Where the record timestamp is the event time as well, it is judged as such.
    assert reasons <= ({"time_negative", "time_too_far_ahead"} if timeless else set())
    assert len(predictions) + sum(1 for _ in reasons) >= 2
    histograms = [*ledger.parts.values(), *ledger.end_to_end.values()]
    assert min(histogram.total_s for histogram in histograms) >= 0
    assert max(histogram.total_s for histogram in histograms) < 60.0 * len(predictions)
    assert unusable == len(predictions) - 1 - (len(times) == 1 and times[0] < test.now * 1000 + 1000)
    parts = sum(histogram.total_s for histogram in ledger.parts.values())
    assert parts == pytest.approx(ledger.end_to_end["event"].total_s, rel=1e-9)
