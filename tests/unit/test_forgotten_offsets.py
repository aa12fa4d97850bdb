"""A broker that has lost the offsets of a group: where there are windows, the changelog knows how far each input was read."""

from copy import deepcopy

import pytest

from streamer.changelog.blocks import CommitMetadata
from streamer.errors import StateError
from tests.kit import flows, rekeyed
from tests.kit.bases import small_snapshots
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.inside import InsideTest

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
            test.crash()
            feed(test, 5, 1000)
        verdict = flows.judge(test.log, 50)
        assert verdict.exactly_once, verdict


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_nothing_is_done_twice_where_the_broker_comes_back_with_older_offsets(
    guarantee: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, snapshots: bool
) -> None:  # fmt: skip
    if snapshots:
        small_snapshots(monkeypatch)
    with FaultTest(flows.topology(50), models=flows.score, partitions=2, settings={"guarantee": guarantee}) as test:
        feed(test, 5, 0)
        old = deepcopy(test.log._groups)
        feed(test, 30, 100)
        changelog = test.worker.plan.topics.changelog or ""
        assert (max(test.log.low(changelog, p) for p in range(2)) > 0) == snapshots, "whether the base that they name is gone"
        for _ in range(2):
            test.log._groups.clear()
            test.log._groups.update(deepcopy(old))
            test.crash()
            feed(test, 5, 1000)
        assert ("offsets_forgotten" in caplog.text) == (guarantee == "exactly-once")
        verdict = flows.judge(test.log, 50)
        assert verdict.exactly_once, verdict


@pytest.mark.parametrize("emptied_before", [False, True])
def test_older_offsets_that_no_commit_of_ours_had_are_refused(*, emptied_before: bool) -> None:
    with FaultTest(flows.topology(50), models=flows.score, partitions=1) as test:
        changelog = test.worker.plan.topics.changelog or ""
        if emptied_before:  # as starting over leaves it: the first block lies behind offset 0, and there is no base
            test.log.append(changelog, None, b"old", 0)
            test.log.delete_records(changelog, 0, 1)
        feed(test, 5, 0)
        group = test.log._groups[test.worker.plan.group]
        (offset, said) = group.offsets[flows.SOURCE, 0]
        for place in ((offset - 1, said), (offset - 3, None)):
            group.offsets[flows.SOURCE, 0] = place
            test.crash()
            with pytest.raises(StateError, match="Offsets were set by another tool"):
                test.run()


def test_a_changelog_that_ends_before_the_commit_that_the_group_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the base that it names is gone: what lies between may have been published."""
    small_snapshots(monkeypatch)
    with FaultTest(flows.topology(50), models=flows.score, partitions=1) as test:
        feed(test, 30, 0)
        place = test.log._groups[test.worker.plan.group].offsets
        offset, said = place[flows.SOURCE, 0]
        named = CommitMetadata.parse(said)
        assert named.seq is not None
        assert test.log.low(test.worker.plan.topics.changelog or "", 0) > 0
        place[flows.SOURCE, 0] = (offset + 1, named._replace(seq=named.seq + 1, base=0).format())
        test.crash()
        with pytest.raises(StateError, match="Offsets were set by another tool"):
            feed(test, 1, 1000)


@pytest.mark.parametrize("said", [None, CommitMetadata(0).format()], ids=["another tool", "a reset that was cut off"])
def test_offsets_that_were_set_are_refused_where_old_blocks_are_gone(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    small_snapshots(monkeypatch)
    with FaultTest(flows.topology(50), models=flows.score, partitions=1) as test:
        feed(test, 30, 0)
        assert test.log.low(test.worker.plan.topics.changelog or "", 0) > 0
        test.log._groups[test.worker.plan.group].offsets[flows.SOURCE, 0] = (5, said)
        test.crash()
        with pytest.raises(StateError, match="Offsets were set by another tool"):
            feed(test, 1, 1000)


def test_a_source_in_front_of_rekeyed_windows_is_forwarded_anew_and_counts_once() -> None:
    with InsideTest(rekeyed.topology(), models=rekeyed.score, partitions=2) as test:
        for part in range(3):
            for n in range(30):
                key = f"c{n % 5}"
                test.send_bytes(rekeyed.SOURCE, key.encode(), rekeyed.payment(f"t{n % 3}", float(100 * part + n), card=key))
            test.run()
            test.log._groups.clear()
            test.crash()
        test.run()
        assert len(test.log.committed_records(rekeyed.PREDICTIONS)) == 90
