"""What a record's own timestamp decides, record by record, however they are cut into batches."""

import pytest

from streamer.testing import TopologyTest
from tests.unit import flows
from tests.unit.schemas import headers

AHEAD_S = 3600.0
"""As settings have it by default."""


def flow() -> TopologyTest:
    return TopologyTest(flows.topology(), models=flows.score, partitions=1)


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
        letters = [headers(letter) for letter in test.read_records(flows.REJECTED)]
    assert admitted == [str(number) for number, broker in enumerate(kinds) if broker]
    assert [letter["streamer.error.reason"] for letter in letters] == ["time_too_far_ahead"] * 2
