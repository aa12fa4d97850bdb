"""The checks of re-keying are checked: each bug seeded here is noticed by one run that looks at everything."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamer import StreamerError
from streamer.operators.rekey import header
from streamer.operators.rekey.receive import Receive
from streamer.operators.rekey.send import Forward, PartitionTimes, Told
from streamer.rows.batch import Batch
from streamer.rows.records import Records
from streamer.state.watermarks import NO_TIME, Observed, SourceWatermarks
from tests.kit import rekeyed
from tests.kit.flows import origin
from tests.kit.inside import InsideTest
from tests.kit.rekeyed import payment


def origin_lost(patch: pytest.MonkeyPatch) -> None:
    """Results name the copy in the internal topic."""
    patch.setattr(Receive, "_unwrapped", lambda self, records, heads: without_header(records, heads))


def without_header(records: Records, heads: header.Heads) -> Records:
    _, values = header.split(heads, [value or b"" for value in records.values])
    records.values = list(values)
    return records


def largest_instead_of_slowest(patch: pytest.MonkeyPatch) -> None:
    """The windows follow the partition that has come furthest."""
    look = SourceWatermarks.look

    def furthest(self: SourceWatermarks, count: int, partitions: Any, offsets: Any, reached: Any) -> Observed:
        found = look(self, count, partitions, offsets, reached)
        return Observed(found.changed, found.seen, np.maximum.accumulate(np.array(reached)), found.latest)

    patch.setattr(SourceWatermarks, "look", furthest)


def silent_receivers_told_nothing(patch: pytest.MonkeyPatch) -> None:
    """A partition of the internal topic that gets no record hears nothing."""
    patch.setattr(Forward, "marks", lambda self, batches: iter(()))


def time_of_the_whole_batch(patch: pytest.MonkeyPatch) -> None:
    """Records carry what their partition comes to later in the same batch."""
    call = PartitionTimes.__call__

    def later(self: PartitionTimes, batch: Batch) -> None:
        call(self, batch)
        Told.of(batch).watermarks = np.array([self.reached[p] for p in batch.partitions.tolist()], np.int64)

    patch.setattr(PartitionTimes, "__call__", later)


def time_survives_a_rollback(patch: pytest.MonkeyPatch) -> None:
    """A partition that is read anew carries what the attempt before had come to."""

    def keep(self: PartitionTimes, partition: int) -> None:
        self.reached.setdefault(partition, NO_TIME)
        self.rows.setdefault(partition, 0)

    patch.setattr(PartitionTimes, "open", keep)


def table_not_in_the_changelog(patch: pytest.MonkeyPatch) -> None:
    """A restore knows the windows and not how far the source had come."""
    patch.setattr(SourceWatermarks, "apply", lambda self, changed: None)


def old_key_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Dead letters of the second flow have the new key."""
    split = header.split
    patch.setattr(header, "split", lambda heads, values: ([b""] * len(values), split(heads, values)[1]))


BUGS = (
    origin_lost, largest_instead_of_slowest, silent_receivers_told_nothing, time_of_the_whole_batch, time_survives_a_rollback,
    table_not_in_the_changelog, old_key_forgotten,
)  # fmt: skip


def some_of_everything() -> None:
    """What the tests above look at, in one run: out of order, silent receivers, a rollback, a restart, a bad number."""
    with InsideTest(rekeyed.topology("160s", max_drift="10h"), models=rekeyed.score, partitions=3) as test:
        for part in range(3):
            for n in range(12):
                ts = 1_700_000_000 + 40 * (12 * part + n) - 100 * (n % 3 == 1)
                card, terminal = f"card{n % 5}", f"t{n % 2}"
                amount = 2e39 if n == 7 else float(n)
                test.send_bytes(rekeyed.SOURCE, card.encode(), payment(terminal, amount, ts, card))
            for _ in range(part + 1):
                test.workers[0].turn()
            if part == 1:
                test.workers[0].lost([])
            test.run()
            test.crash()
        test.run()
        letters = {origin(letter): letter for letter in test.log.committed_records(rekeyed.DEAD_LETTERS)}
        ids = {json.loads(record.value or b"")["id"] for record in test.log.committed_records(rekeyed.PREDICTIONS)}
        assert len(letters) == 3
        assert {*ids, *letters} == {f"payments/{p}/{o}" for p in range(3) for o in range(test.log.end(rekeyed.SOURCE, p))}
        for name, letter in letters.items():
            _, p, o = name.split("/")
            assert rekeyed.same(letter, test.log.record(rekeyed.SOURCE, int(p), int(o)))
        settle(test)
        heard_right(test)


def settle(test: InsideTest) -> None:
    """Turn until what a restart left to restore is there."""
    for _ in range(100):
        for worker in test.workers:
            worker.turn()
        if all(worker.ready() is None for worker in test.workers):
            return
    raise AssertionError("not ready")


def heard_right(test: InsideTest) -> None:
    """Each receiver knows all of the source, nobody too early, and told its windows of the slowest."""
    reached: dict[tuple[int, int], int] = {}
    for p in range(3):
        so_far = NO_TIME
        for o in range(test.log.end(rekeyed.SOURCE, p)):
            so_far = max(so_far, round(json.loads(test.log.record(rekeyed.SOURCE, p, o).value or b"")["ts"] * 1e6))
            reached[p, o] = so_far
    for receiver, store in test.worker.pipeline.window.stores.items():
        lines, least = rekeyed.upstreams(test.log, receiver)
        told = {one.partition: one for _, one in rekeyed.sent(test.log, receiver)}
        assert told.keys() == {p for p, _ in reached}
        for _, one in rekeyed.sent(test.log, receiver):
            assert one.offset < 0 or one.watermark_us <= reached[one.partition, one.offset]
        assert store.upstreams.table.tolist() == [list(line) for line in lines]
        moments = [time // 10_000_000 * 10_000_000 for time in least if time is not None and time != NO_TIME]
        assert store.watermark == max(moments, default=NO_TIME)


def test_without_a_bug_everything_is_right() -> None:
    some_of_everything()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_caught(bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, StreamerError, LookupError)):
        some_of_everything()
