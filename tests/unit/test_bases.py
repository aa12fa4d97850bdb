"""Base snapshots in the life of a worker: crashes, aborts and new owners at every step of one, and what may be deleted."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer import limits
from streamer.changelog.blocks import CommitMetadata
from streamer.changelog.snapshot import CHUNK, MANIFEST
from streamer.changelog.snapshots import SnapshotScheduler, SnapshotSlice
from streamer.errors import StateError, StreamerError
from streamer.stages.commit.at_least_once import AtLeastOnce
from tests.kit import flows
from tests.kit.bases import small_snapshots
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.second import Second
from tests.kit.steps import Step, play, windows_are_right

__all__ = ["short_waits"]
Patch = pytest.MonkeyPatch
# Samples a window keeps: nearly all there are, so that a row twice or never in the state stays visible.
COUNT = 50


@pytest.fixture(autouse=True)
def _small(monkeypatch: Patch, short_waits: None) -> None:
    small_snapshots(monkeypatch)


def flow(partitions: int = 1, **settings: object) -> FaultTest:
    return FaultTest(flows.topology(COUNT), models=flows.score, partitions=partitions, settings=settings)


def rows(first: int, number: int = 6) -> list[Step]:
    """Rows of keys in both partitions; no value comes twice."""
    return [("good", "abd"[n % 3], first + n) for n in range(number)]


def changelog(test: FaultTest) -> str:
    topic = test.worker.plan.topics.changelog
    assert topic is not None
    return topic


def kinds(test: FaultTest, partition: int = 0) -> list[bytes | None]:
    """Keys of the committed records of a changelog partition, deleted ones included."""
    records = [test.log.record(changelog(test), partition, n) for n in range(test.log.end(changelog(test), partition))]
    return [record.key for record in records if record.state == "committed"]


def named(test: FaultTest, partition: int = 0) -> int | None:
    """The base that the group's metadata names."""
    committed = test.log.committed(test.worker.plan.group, flows.SOURCE, partition)
    return CommitMetadata.parse(committed[1] if committed else None).base


def judge(test: FaultTest) -> None:
    verdict = flows.judge(test.log, COUNT)
    assert verdict.exactly_once, verdict
    assert windows_are_right(test, COUNT)
    assert test.log.open == {}


# ---------------------------------------------------------------------- the scenarios


def run_crashes() -> None:
    """A crash after each number of commits, so between any two messages of a snapshot, and once more when it went on."""
    for commits in range(12):
        with flow(partitions=2) as test:
            for number in range(commits):
                play(test, [*rows(100 * number), ("turn", 6, None)])
            play(test, [*rows(5000), ("turn", 2, None), ("restart", None, None), *rows(6000), ("turn", 8, None)])
            play(test, [("restart", None, None), *rows(7000)])
            test.settle(fail=True)
            judge(test)


def run_aborts() -> None:
    """Transactions that fail while they carry part of a snapshot."""
    for commits in range(1, 9):
        for call in ("produce_changelog", "offsets", "commit"):
            with flow(partitions=2) as test:
                for number in range(commits):
                    play(test, [*rows(100 * number), ("turn", 6, None)])
                play(test, [("fault", call, "abortable"), *rows(5000), ("turn", 8, None)])
                for number in range(4):
                    play(test, [*rows(6000 + 100 * number), ("turn", 6, None)])
                play(test, [("restart", None, None), *rows(7000)])
                test.settle(fail=True)
                judge(test)


def run_in_flight() -> None:
    """Rows are with the model whenever a commit starts; a crash shows what a snapshot of that moment holds."""
    for commits, before in product(range(1, 8), range(3)):  # whichever commit a snapshot is taken at
        with flow() as test:
            for number in range(before):
                play(test, [*rows(1000 + 100 * number), ("turn", 12, None)])
            for number in range(commits):
                play(test, [("turn", 10, None), *rows(100 * number), ("turn", 1, None)])
                assert test.worker._commit.rows > 0
                test.scores_held = True
                play(test, [*rows(100 * number + 50), ("turn", 25, None)])
                assert test.worker.pipeline.infer.rows > 0
                test.scores_held = False
            play(test, [("turn", 20, None), ("restart", None, None), *rows(7000)])
            test.settle(fail=True)
            judge(test)


def run_long_life() -> None:
    """Many bases, each with what lies before the last but one deleted, and a restart now and then."""
    with flow(partitions=2) as test:
        for number in range(90):
            play(test, [*rows(100 * number), ("turn", 5, None)])
            if number % 30 == 29:
                test.crash()
        test.settle(fail=True)
        judge(test)
        for partition in range(2):
            base = named(test, partition)
            assert base is not None
            assert 0 < test.log.low(changelog(test), partition) < base


def run_two_owners() -> None:
    """A partition moves while its snapshot is half written; its next owner goes on from the base before."""
    for commits in range(1, 8):
        with flow(partitions=2) as test:
            test.turns(3)
            for number in range(commits):
                play(test, [*rows(100 * number), ("turn", 6, None)])
            test.move("on_revoke", [1])
            with Second(test) as second:
                second.consumer.moves.append(("on_assign", [1]))
                for number in range(commits, commits + 6):
                    play(test, rows(100 * number))
                    second.run_both()
                verdict = flows.judge(test.log, COUNT)
                assert verdict.exactly_once, verdict


SCENARIOS: dict[str, Callable[[], None]] = {
    "crashes": run_crashes,
    "aborts": run_aborts,
    "in flight": run_in_flight,
    "long life": run_long_life,
    "two owners": run_two_owners,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_snapshots_change_nothing(name: str) -> None:
    SCENARIOS[name]()


# ---------------------------------------------------------------------- the bugs


def named_before_the_manifest(patch: Patch) -> None:
    """A commit names a base as soon as its first chunk is in the log."""
    named = SnapshotScheduler.named

    def hasty(self: SnapshotScheduler, partition: int) -> int | None:
        under_way = self._under_way
        if under_way is not None and under_way.partition == partition and under_way.offset is not None:
            return under_way.offset
        return named(self, partition)

    patch.setattr(SnapshotScheduler, "named", hasty)


def deleted_before_the_base_is_whole(patch: Patch) -> None:
    """What lies before a base is deleted as soon as its first chunk is in the log."""
    committed = SnapshotScheduler.committed

    def hasty(self: SnapshotScheduler, share: SnapshotSlice | None, blocks: Any) -> dict[int, int]:
        trims = committed(self, share, blocks)
        if share is not None and not share.last and share.under_way.offset is not None:
            trims[share.partition] = share.under_way.offset
        return trims

    patch.setattr(SnapshotScheduler, "committed", hasty)


def deleted_up_to_the_end(patch: Patch) -> None:
    """More is deleted than lies before a base."""
    trim = SnapshotScheduler.trim

    def greedy(self: SnapshotScheduler, trims: dict[int, int]) -> None:
        trim(self, {partition: self._bases[partition].offset or 0 for partition in trims})
        trim(self, {partition: offset + 5 for partition, offset in trims.items()})

    patch.setattr(SnapshotScheduler, "trim", greedy)


def taken_with_rows_behind(patch: Patch) -> None:
    """A snapshot is taken although rows that entered the windows belong to a later commit."""
    consider = SnapshotScheduler.consider

    def careless(self: SnapshotScheduler, stores: Any, ends: Any, *, quiet: bool) -> None:
        consider(self, stores, ends, quiet=True)

    patch.setattr(SnapshotScheduler, "consider", careless)


def number_of_the_commit_before(patch: Patch) -> None:
    """A snapshot says that it stands for the commit before its own."""
    take = SnapshotScheduler._take
    patch.setattr(
        SnapshotScheduler, "_take", lambda self, partition, store, seq, next_: take(self, partition, store, seq - 1, next_)
    )


def goes_on_after_an_abort(patch: Patch) -> None:
    """A snapshot of which a share was rolled back goes on with the next one."""
    forget = SnapshotScheduler.forget

    def stubborn(self: SnapshotScheduler, partitions: list[int]) -> None:
        under_way = self._under_way
        forget(self, partitions)
        self._under_way = under_way

    patch.setattr(SnapshotScheduler, "forget", stubborn)


def manifest_left_out(patch: Patch) -> None:
    """A base counts without its manifest."""
    share = SnapshotScheduler.share

    def short(self: SnapshotScheduler) -> SnapshotSlice | None:
        found = share(self)
        if found is None or not found.last:
            return found
        return SnapshotSlice(found.under_way, range(found.numbers.start, found.numbers.stop - 1))

    patch.setattr(SnapshotScheduler, "share", short)
    patch.setattr(SnapshotSlice, "last", property(lambda self: self.numbers.stop >= self.under_way.snapshot.messages - 1))


BUGS: dict[Callable[[Patch], None], str] = {
    named_before_the_manifest: "crashes",
    deleted_before_the_base_is_whole: "crashes",
    deleted_up_to_the_end: "long life",
    taken_with_rows_behind: "in flight",
    number_of_the_commit_before: "crashes",
    goes_on_after_an_abort: "aborts",
    manifest_left_out: "crashes",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_caught(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, StreamerError)) as caught:
        SCENARIOS[BUGS[bug]]()
    assert str(caught.value)


# ---------------------------------------------------------------------- rules


def test_a_base_is_named_by_the_commit_after_its_manifest_and_the_one_before_it_goes() -> None:
    with flow() as test:
        seen: list[int] = []
        for number in range(30):
            play(test, rows(100 * number))
            test.run()
            base = named(test)
            if base is not None and (not seen or base != seen[-1]):
                manifest = kinds(test).index(MANIFEST, base)
                assert kinds(test)[base] == CHUNK
                assert manifest < test.log.end(changelog(test), 0) - 1, "the manifest came with an earlier commit"
                assert test.log.low(changelog(test), 0) == (seen[-1] if seen else 0), "the last but one stays"
                seen.append(base)
        assert len(seen) > 3


def test_small_blocks_make_a_base_due_by_their_number(monkeypatch: Patch) -> None:
    """What a restore has to do was bounded in bytes alone: a quiet topic came to tens of thousands of commits, and 20 seconds."""
    monkeypatch.setattr(limits, "SNAPSHOT_BLOCKS_RATIO", 2)
    monkeypatch.setattr(limits, "SNAPSHOT_BLOCKS_MIN_BYTES", 20 * limits.SNAPSHOT_BLOCK_BYTES)
    with flow() as test:
        for restarts in range(6):
            for number in range(15):
                play(test, [*rows(1000 * restarts + 10 * number, 1), ("turn", 6, None)])
            test.crash()  # which counts those that it has read
            test.settle()
        base = named(test)
        assert base is not None
        blocks = [number for number, kind in enumerate(kinds(test)) if kind not in (CHUNK, MANIFEST)]
        assert len([number for number in blocks if number >= base]) < 45 < len(blocks)
        judge(test)


def test_at_least_once_has_bases_too() -> None:
    with flow(partitions=2, guarantee="at-least-once") as test:
        for number in range(30):
            play(test, [*rows(100 * number), ("turn", 10, None)])
            if number % 7 == 6:
                test.crash()
        test.settle()
        assert flows.judge(test.log, COUNT).at_least_once
        assert windows_are_right(test, COUNT)
        assert test.log.low(changelog(test), 0) > 0


def test_a_commit_that_nobody_heard_of_deletes_nothing(monkeypatch: Patch) -> None:
    """At least once: before anything goes, the commit that makes it superfluous must be certain."""
    with flow(guarantee="at-least-once") as test:
        monkeypatch.setattr(AtLeastOnce, "settle", lambda *_args, **_kwargs: False)
        for number in range(30):
            play(test, [*rows(100 * number), ("turn", 10, None)])
        assert kinds(test).count(MANIFEST) > 2
        assert test.log.low(changelog(test), 0) == 0


def test_rows_are_held_back_for_a_snapshot_that_waits_for_a_quiet_commit() -> None:
    with flow() as test:
        waits = test.worker._bases
        assert waits is not None
        waits._waits_since = test.clock.monotonic()
        for advance_s, apply_slots in ((0.0, True), (limits.SNAPSHOT_WAIT_S, False), (limits.SNAPSHOT_HOLD_S, True)):
            test.clock.advance(advance_s)
            before = test.worker.pipeline.window.keys
            play(test, [("good", f"key{advance_s}", 1)])
            test.scores_held = True
            test.turns(3)
            assert (test.worker.pipeline.window.keys > before) is apply_slots
            test.scores_held = False
        test.settle()
        judge(test)


def test_a_broker_that_does_not_let_us_delete_only_makes_the_log_grow(monkeypatch: Patch) -> None:
    with flow() as test:
        bases = test.worker._bases
        assert bases is not None

        def refuse(_offsets: object) -> object:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

        monkeypatch.setattr(bases._admin, "delete_records", refuse)
        for number in range(40):
            play(test, [*rows(100 * number), ("turn", 6, None)])
        test.settle()
        judge(test)
        assert kinds(test).count(MANIFEST) > 2
        assert test.log.low(changelog(test), 0) == 0


def test_a_cut_changelog_is_refused() -> None:
    with flow() as test:
        for number in range(10):
            play(test, rows(100 * number))
            test.run()
        test.log.delete_records(changelog(test), 0, (named(test) or 0) + 1)
        test.crash()
        with pytest.raises(StateError, match="the changelog was cut"):
            test.settle()
