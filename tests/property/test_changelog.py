"""A restore is the live path: after any prefix of commits the rebuilt store equals the live one, bit for bit."""

from typing import Any

import numpy as np
import pytest
import zstandard
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.changelog import blocks as changelog
from streamer.changelog.blocks import Block, CommitMetadata, decode, encode
from streamer.changelog.restore import Restore
from streamer.clock import ManualClock
from streamer.errors import StateError
from streamer.kafka.memory_clients import MemoryConsumer
from streamer.kafka.memory_log import MemoryLog
from streamer.limits import CHANGELOG_BYTES_MAX
from streamer.operators.rolling.store import RollingSpec
from streamer.state.delta import merge
from streamer.topology.rolling import rolling
from streamer.topology.view import Requested
from tests.kit.writer import SPEC, TOPIC, Rows, Writer, advance, commits_, new_store, restore, rows_


@pytest.fixture(params=[60, 200, CHANGELOG_BYTES_MAX])
def _bytes_max(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of a row each, of a few rows, and as in service."""
    monkeypatch.setattr(changelog, "CHANGELOG_BYTES_MAX", request.param)


@pytest.mark.usefixtures("_bytes_max")
@settings(max_examples=60)
@given(commits=commits_)
def test_every_prefix_of_commits_restores_the_live_store(commits: list[list[Rows]]) -> None:
    writer = Writer()
    for number, commit in enumerate(commits, start=1):
        writer.commit(commit)
        store, done = restore(writer.log, writer.next, number)
        assert store.dump() == writer.store.dump()
        assert (done.next, done.seq, done.rows) == ([writer.next], number, sum(len(r) for c in commits[:number] for r in c))


@pytest.mark.usefixtures("_bytes_max")
@settings(max_examples=60)
@given(commit=st.lists(rows_, min_size=1, max_size=3))
def test_a_commit_reads_back_as_it_was(commit: list[Rows]) -> None:
    store = new_store()
    deltas = [advance(store, rows) for rows in commit]
    whole = merge(deltas, 2)
    blocks = [decode(message, SPEC.fingerprint, "here") for message in encode(whole, SPEC.fingerprint, 9, [(5, 77), (3, 4)])]
    assert [(b.part, b.parts, b.seq) for b in blocks] == [(n, len(blocks), 9) for n in range(len(blocks))]
    assert all(b.covered == [(5, 77), (3, 4)] for b in blocks)
    back = merge([block.delta(2) for block in blocks], 2)
    assert back.new_keys == whole.new_keys
    for name in ("slots", "times", "values"):
        assert getattr(back, name).dtype == getattr(whole, name).dtype
        assert getattr(back, name).tobytes() == getattr(whole, name).tobytes()


def test_no_message_is_too_large_however_many_keys_are_new() -> None:
    """A broker refuses more than a megabyte: a commit full of keys it never saw must still pass."""
    dice = np.random.default_rng(5)
    rows = [(dice.bytes(18).hex(), n, float(n)) for n in range(65_536)]
    writer = Writer()
    messages = writer.commit([rows])
    assert max(map(len, messages)) <= CHANGELOG_BYTES_MAX
    store, _ = restore(writer.log, writer.next, 1)
    assert store.dump() == writer.store.dump()


def test_no_message_is_too_large_with_the_longest_keys_there_are() -> None:
    dice = np.random.default_rng(5)
    rows = [(dice.bytes(256).hex(), n, float(n)) for n in range(5_000)]
    assert max(map(len, Writer().commit([rows, rows]))) <= CHANGELOG_BYTES_MAX


# ---------------------------------------------------------------------- what must not be read


def block(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "format": changelog.FORMAT, "fingerprint": SPEC.fingerprint, "seq": 1, "first": 0, "next": 1, "part": 0, "parts": 1,
        "keys": b"", "key_sizes": b"", "slots": b"", "times": b"", "values": b"",
    }  # fmt: skip
    return packed(Block(**{**fields, **changes}))


def packed(value: object) -> bytes:
    return zstandard.ZstdCompressor().compress(changelog._ENCODER.encode(value))


def i4(*numbers: int) -> bytes:
    return np.array(numbers, "<i4").tobytes()


# One key of two bytes is given slot 0.
GIVES = {"keys": b"ab", "key_sizes": i4(2), "slots": i4(-2), "times": bytes(8), "values": bytes(16)}


def test_a_block_that_fits_is_read() -> None:
    assert list(decode(block(**GIVES), SPEC.fingerprint, "here").delta(2).new_keys) == [b"ab"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "was something else produced to this topic"),
        (b"not a block", "was something else produced to this topic"),
        (zstandard.ZstdCompressor().compress(b"{}"), "was something else produced to this topic"),
        (block()[:-3], "was something else produced to this topic"),
        (packed([1, "other"]), "has changelog format 1, this version reads 3; run the version that wrote it"),
        (packed([2, SPEC.fingerprint, 1, 0, 1, 0, 1, [b"a"]]), "has changelog format 2, this version reads 3"),
        (packed([3, SPEC.fingerprint, 1]), "was something else produced to this topic"),
        (block(**GIVES | {"key_sizes": i4(3)}), "is a damaged changelog block"),
        (block(**GIVES | {"key_sizes": i4(-2)}), "is a damaged changelog block"),
        (block(**GIVES | {"key_sizes": i4(3, -1)}), "is a damaged changelog block"),
        (block(**GIVES | {"key_sizes": b""}), "is a damaged changelog block"),
        (block(**GIVES | {"slots": i4(0)}), "is a damaged changelog block"),
        (block(**GIVES | {"slots": i4(-2) + b"0"}), "is a damaged changelog block"),
        (block(**GIVES | {"times": bytes(4)}), "is a damaged changelog block"),
        (block(**GIVES | {"values": bytes(15)}), "is a damaged changelog block"),
        (block(values=bytes(8)), "is a damaged changelog block"),
        (block(fingerprint="rolling/9/0/x"), "was written for the window rolling/9/0/x"),
    ],
)
def test_a_message_that_is_not_ours_is_refused_with_its_place(value: bytes, says: str) -> None:
    with pytest.raises(StateError, match=says) as refusal:
        decode(value, SPEC.fingerprint, "topic/3/42")
    assert str(refusal.value).startswith("topic/3/42 ")


@pytest.mark.parametrize(
    "other",
    [
        RollingSpec.of(rolling("10s", max_samples=5), Requested({("a", "mean"), ("b", "rate")})),
        RollingSpec.of(rolling("11s", max_samples=4), Requested({("a", "mean"), ("b", "rate")})),
        RollingSpec.of(rolling(count=4), Requested({("a", "mean"), ("b", "rate")})),
        RollingSpec.of(rolling("10s", max_samples=4), Requested({("a", "mean")})),
        RollingSpec.of(rolling("10s", max_samples=4), Requested({("a", "mean"), ("c", "rate")})),
    ],
)
def test_another_shape_has_another_fingerprint(other: RollingSpec) -> None:
    assert other.fingerprint != SPEC.fingerprint


def test_a_rate_of_a_window_by_count_needs_times_that_were_not_kept() -> None:
    plain, timed = (RollingSpec.of(rolling(count=4), Requested({("a", kind)})) for kind in ("mean", "rate"))
    assert (plain.fingerprint, timed.fingerprint) == ("rolling/4/0/a", "rolling/4/0/a/times")


def test_asking_more_of_the_same_samples_keeps_the_fingerprint() -> None:
    more = RollingSpec.of(rolling("10s", max_samples=4), Requested({("a", "std"), ("b", "rate")}, {"a"}))
    assert more.fingerprint == SPEC.fingerprint


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        (None, CommitMetadata(None)),
        ("", CommitMetadata(None)),
        ("note of another tool", CommitMetadata(None)),
        ("streamer/1 seq=17", CommitMetadata(17)),  # of a version without snapshots
        (CommitMetadata(17).format(), CommitMetadata(17)),
        (CommitMetadata(17, 0).format(), CommitMetadata(17, 0)),
        (CommitMetadata(17, 9_000, "asfoel7qTjm0slMj3wLBkQ", 4).format(), CommitMetadata(17, 9_000, "asfoel7qTjm0slMj3wLBkQ", 4)),
    ],
)
def test_number_and_base_travel_in_the_metadata(text: str | None, mark: CommitMetadata) -> None:
    assert CommitMetadata.parse(text) == mark


# ---------------------------------------------------------------------- chains


def test_exactly_once_refuses_a_gap_a_repetition_and_a_wrong_end() -> None:
    writer = Writer()
    messages = [writer.commit([[(n, n, 1.0)]])[0] for n in range(3)]
    end = writer.next
    for order, committed, seq in (
        ([0, 2], end, 3),  # a gap
        ([0, 1, 1], 4, 2),  # a repetition
        ([0, 1], end, 3),  # cut short
        ([0, 1, 2], end, 2),  # another number than committed
        ([0, 1, 2], end - 1, 3),  # another offset than committed
        ([1, 2], None, None),  # never committed, as far as the group knows, and the first is gone
        ([0, 1, 2], end, 0),  # new windows, and old blocks
        ([1, 2], end, 3),  # the first is gone
        ([], end, 3),  # deleted
    ):
        log = MemoryLog(1, ManualClock())
        for number in order:
            log.append(TOPIC, None, messages[number], partition=0)
        with pytest.raises(StateError, match="or with a new --group"):
            restore(log, committed, seq)


def test_exactly_once_goes_on_where_the_blocks_end_when_the_group_has_lost_its_offsets() -> None:
    writer = Writer()
    for n in range(3):
        writer.commit([[(n, n, 1.0)]])
    store, done = restore(writer.log, None, None)
    assert store.dump() == writer.store.dump()
    assert (done.next, done.seq) == ([writer.next], 3)


def test_at_least_once_skips_what_a_zombie_wrote() -> None:
    writer = Writer()
    for n in range(3):
        writer.commit([[(n, n, 1.0)]])
    zombie = Writer(writer.log)
    zombie.seq, zombie.next = 1, 2  # it goes on from the first commit, and knows nothing of the others
    zombie.commit([[("z", 1, 5.0)], [("y", 1, 5.0)]])
    zombie.commit([[("z", 1, 6.0)]])
    writer.commit([[("w", 9, 2.0)]])
    store, done = restore(writer.log, 3, 2, strict=False)
    assert store.dump() == writer.store.dump()
    assert (done.next, done.seq) == ([writer.next], 4)


def test_at_least_once_goes_on_where_the_chain_ends_and_not_where_the_group_is() -> None:
    writer = Writer()
    writer.commit([[(1, 1, 1.0)]])
    assert restore(writer.log, 0, 0, strict=False)[1].next == [writer.next]
    assert restore(writer.log, 0, 0, strict=False)[1].seq == 1


def test_a_writer_that_died_between_parts_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "CHANGELOG_BYTES_MAX", 100)
    writer = Writer()
    writer.commit([[(n, n, 1.0) for n in range(4)]])
    torn = Writer(MemoryLog(1, ManualClock()))
    torn.seq, torn.next = writer.seq, writer.next
    parts = torn.commit([[(n, n, 7.0) for n in range(20)]])
    assert len(parts) > 2
    for message in parts[:-1]:
        writer.log.append(TOPIC, None, message, partition=0)
    assert restore(writer.log, writer.next, 1, strict=False)[0].dump() == writer.store.dump()
    writer.commit([[(n, n, 3.0) for n in range(20)]])
    store, done = restore(writer.log, 0, 0, strict=False)
    assert store.dump() == writer.store.dump()
    assert done.next == [writer.next]


def test_parts_of_two_writers_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "CHANGELOG_BYTES_MAX", 100)
    live, zombie = Writer(), Writer()
    mine = live.commit([[(n, n, 1.0) for n in range(20)]])
    theirs = zombie.commit([[(n, n, 9.0) for n in range(20)]], dead=2)
    assert len(mine) == len(theirs) > 2
    log = MemoryLog(1, ManualClock())
    for pair in zip(theirs, mine, strict=True):
        for message in pair:
            log.append(TOPIC, None, message, partition=0)
    store, done = restore(log, 0, 0, strict=False)
    ends = [([writer.next], writer.store.dump()) for writer in (live, zombie)] + [([0], new_store().dump())]
    assert (done.next, store.dump()) in ends


def test_a_pending_transaction_is_waited_for() -> None:
    """The commit marker may still be on its way: the log ends where it ended for writers, not for readers."""
    writer = Writer()
    writer.commit([[(1, 1, 1.0)]])
    log = writer.log
    log.open["other"] = []
    log.append(TOPIC, None, block(seq=2, first=writer.next, next=9, **GIVES), partition=0, transaction="other")
    consumer: Any = MemoryConsumer(log, {"group.id": "r", "enable.partition.eof": True})
    reader = Restore(consumer, TOPIC, ManualClock(), strict=True)
    reader.begin(0, new_store(), [9], CommitMetadata(2), (0, log.end(TOPIC, 0)))
    assert [reader.step(0.0) for _ in range(20)] == [[]] * 20
    log.open["other"][0].state = "committed"
    done = [found for _ in range(5) for found in reader.step(0.0)]
    assert [(d.next, d.seq) for d in done] == [([9], 2)]


def test_a_cancelled_restore_never_comes_back() -> None:
    writer = Writer()
    writer.commit([[(1, 1, 1.0)]])
    consumer: Consumer | Any = MemoryConsumer(writer.log, {"group.id": "r", "enable.partition.eof": True})
    reader = Restore(consumer, TOPIC, ManualClock(), strict=True)
    reader.begin(0, new_store(), [writer.next], CommitMetadata(1), (0, 1))
    reader.cancel([0])
    consumer.incremental_assign([TopicPartition(TOPIC, 0, 0)])
    assert [reader.step(0.0) for _ in range(3)] == [[]] * 3
