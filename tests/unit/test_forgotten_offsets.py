"""A broker that has lost the offsets of a group: where there are windows, the changelog knows how far each input was read."""

import pytest

from streamer.testing import TopologyTest
from tests.unit import flows, rekeyed
from tests.unit.faulty import FaultTest, short_waits
from tests.unit.test_bases import small_snapshots

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")


def feed(test: FaultTest, rounds: int, first: int) -> None:
    for n in range(rounds):
        for key in "abc":
            test.send_bytes(flows.SOURCE, key.encode(), flows.value_of(key, test.now, float(first + n)))
        test.run()


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_windows_and_input_go_on_where_the_changelog_ends(
    guarantee: str, monkeypatch: pytest.MonkeyPatch, *, snapshots: bool
) -> None:  # fmt: skip
    if snapshots:
        small_snapshots(monkeypatch)
    with FaultTest(flows.topology(50), models=flows.score, partitions=2, settings={"guarantee": guarantee}) as test:
        feed(test, 30, 0)
        changelog = test.worker.plan.topics.changelog or ""
        assert (max(test.log.low(changelog, p) for p in range(2)) > 0) == snapshots, "whether old records are gone"
        for _ in range(2):
            test.log._groups.clear()
            test.restart()
            feed(test, 5, 1000)
        verdict = flows.judge(test.log, 50)
        assert verdict.exactly_once, verdict


def test_a_source_in_front_of_rekeyed_windows_is_forwarded_anew_and_counts_once() -> None:
    with TopologyTest(rekeyed.topology(), models=rekeyed.score, partitions=2) as test:
        for part in range(3):
            for n in range(30):
                key = f"c{n % 5}"
                test.send_bytes(rekeyed.SOURCE, key.encode(), rekeyed.payment(f"t{n % 3}", float(100 * part + n), card=key))
            test.run()
            test.log._groups.clear()
            test.restart()
        test.run()
        assert len(test.log.committed_records(rekeyed.PREDICTIONS)) == 90
