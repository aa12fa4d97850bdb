"""A base snapshot stands for all blocks up to its commit: a restore from it equals the live store, bit for bit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.changelog import snapshot as snapshots
from streamer.changelog.snapshot import CHUNK, MANIFEST, Chunk, Manifest, Snapshot
from streamer.clock import ManualClock
from streamer.errors import StateError
from streamer.kafka.memory_log import MemoryLog
from streamer.limits import CHANGELOG_BYTES_MAX
from streamer.operators.rolling.store import RollingStore
from streamer.state.bytes_column import BytesColumn
from streamer.state.keyed_store import Dump
from tests.kit.writer import SPEC, TOPIC, Rows, Writer, commits_, new_store, restore, rows_

if TYPE_CHECKING:
    from numpy.typing import NDArray


def same(one: RollingStore, other: RollingStore) -> bool:
    """Whether two stores are equal, bit for bit."""
    a, b = one.dump(), other.dump()
    assert a.keys == b.keys
    assert a.arrays.keys() == b.arrays.keys()
    for name, array in a.arrays.items():
        assert array.dtype == b.arrays[name].dtype, name
        assert array.shape == b.arrays[name].shape, name
        assert array.tobytes() == b.arrays[name].tobytes(), name
    return True


class Snapshotting(Writer):
    """A writer with base snapshots whose messages go out one by one."""

    base: int | None = None
    _first: int | None = None
    _number = 0
    _snapshot: Snapshot | None = None

    def begin(self, name: bytes = b"s1") -> None:
        """Take a snapshot of the state as it is; one that was under way is given up."""
        self._snapshot = Snapshot(self.store.dump(), SPEC.fingerprint, self.seq, [self.next], name)
        self._number, self._first = 0, self.log.end(TOPIC, 0)

    def put(self, messages: int = 10**9) -> None:
        """Write so many messages of it; the last one makes it the base."""
        while self._snapshot is not None and messages:
            key, value = self._snapshot.message(self._number)
            self.log.append(TOPIC, key, value, partition=0)
            self._number, messages = self._number + 1, messages - 1
            if self._number == self._snapshot.messages:
                self.base, self._snapshot = self._first, None

    def restored(self, *, strict: bool = True) -> RollingStore:
        """What a restore makes of the log, checked against where the writer is."""
        store, done = restore(self.log, self.next, self.seq, self.base, strict=strict)
        assert (done.seq, done.next, done.base) == (self.seq, [self.next], self.base)
        return store


@pytest.fixture(params=[100, 1_000, CHANGELOG_BYTES_MAX])
def _chunk_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that cut through keys and numbers, and as in service."""
    monkeypatch.setattr(snapshots, "CHANGELOG_BYTES_MAX", request.param)


begin = st.tuples(st.just("begin"), st.none())
put = st.tuples(st.just("put"), st.integers(1, 8))
commit = st.tuples(st.just("commit"), st.lists(rows_, min_size=1, max_size=2))
delete = st.tuples(st.just("delete"), st.none())


@pytest.mark.usefixtures("_chunk_bytes")
@settings(max_examples=150)
@given(steps=st.lists(st.one_of(begin, put, commit, commit, delete), max_size=30))
def test_every_prefix_restores_the_live_store(steps: Sequence[tuple[str, object]]) -> None:
    """Whatever lies between chunks, whatever was given up, and with everything below the base deleted."""
    writer = Snapshotting()
    for number, (kind, what) in enumerate(steps):
        if kind == "begin":
            writer.begin(str(number).encode())
        elif kind == "put":
            assert isinstance(what, int)
            writer.put(what)
        elif kind == "commit":
            assert isinstance(what, list)
            writer.commit(what)
        elif writer.base is not None:
            writer.log.delete_records(TOPIC, 0, writer.base)
        if writer.seq:
            assert same(writer.restored(), writer.store)
            assert same(writer.restored(strict=False), writer.store)


@pytest.mark.usefixtures("_chunk_bytes")
@given(commits=commits_)
def test_a_snapshot_reads_back_as_it_was(commits: list[list[Rows]]) -> None:
    writer = Snapshotting()
    for rows in commits:
        writer.commit(rows)
    writer.begin()
    writer.put()
    log = MemoryLog(1, ManualClock())
    for offset in range(writer.base or 0, writer.log.end(TOPIC, 0)):
        stored = writer.log.record(TOPIC, 0, offset)
        log.append(TOPIC, stored.key, stored.value, partition=0)
    store, done = restore(log, writer.next, writer.seq, 0)
    assert same(store, writer.store)
    assert done.rows == 0


def test_names_and_arrays_of_any_kind_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CHANGELOG_BYTES_MAX", 64)
    arrays: dict[str, NDArray[Any]] = {
        "none": np.zeros((0, 4)),
        "mark": np.array(7, np.int64),
        "bytes": np.arange(11, dtype=np.uint8),
        "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    }
    dump = Dump(BytesColumn.of([b"a", b"", b"\xff" * 300]), arrays)
    snapshot = Snapshot(dump, "shape", 3, [9, 4], b"id")
    assembly = snapshots.Assembly("shape")
    for number in range(snapshot.messages - 1):
        assembly.add(snapshot.message(number)[1], "here")
    found = assembly.finish(snapshot.message(snapshot.messages - 1)[1], "here")
    assert found is not None
    manifest, back = found
    assert (manifest.seq, manifest.next) == (3, [9, 4])
    assert back.keys == dump.keys
    for name, array in arrays.items():
        assert back.arrays[name].dtype == array.dtype
        assert np.array_equal(back.arrays[name], array)
        assert back.arrays[name].shape == array.shape


def test_no_chunk_is_too_large() -> None:
    writer = Snapshotting()
    dice = np.random.default_rng(5)
    writer.commit([[(dice.bytes(18).hex(), n, float(dice.random())) for n in range(65_536)]])
    writer.begin()
    writer.put()
    sizes = [len(writer.log.record(TOPIC, 0, n).value or b"") for n in range(writer.base or 0, writer.log.end(TOPIC, 0))]
    assert len(sizes) > 3
    assert max(sizes) <= CHANGELOG_BYTES_MAX * 1.01


# ---------------------------------------------------------------------- what must not be taken for a base


def broken(writer: Snapshotting, offset: int, **changes: object) -> None:
    """Change fields of one message in the log."""
    stored = writer.log.record(TOPIC, 0, offset)
    kind = Chunk if stored.key == CHUNK else Manifest
    part = msgspec.msgpack.decode(stored.value or b"", type=kind)
    stored.value = msgspec.msgpack.encode(msgspec.structs.replace(part, **changes))


@pytest.fixture
def based(monkeypatch: pytest.MonkeyPatch) -> Snapshotting:
    """A log of two blocks, four or more chunks with a block among them, a manifest, and another block."""
    monkeypatch.setattr(snapshots, "CHANGELOG_BYTES_MAX", 100)
    writer = Snapshotting()
    writer.commit([[(1, 1, 1.0), (2, 2, 2.0)]])
    writer.commit([[(1, 3, 3.0)]])
    writer.begin()
    writer.put(2)
    writer.commit([[(2, 4, 4.0)]])
    writer.put()
    writer.commit([[(3, 5, 5.0)]])
    assert writer.base == 2
    assert writer.log.record(TOPIC, 0, writer.log.end(TOPIC, 0) - 2).key == MANIFEST
    return writer


def test_the_base_is_where_a_restore_begins(based: Snapshotting) -> None:
    based.log.record(TOPIC, 0, 0).value = b"nobody reads this any more"
    assert same(based.restored(), based.store)


@pytest.mark.parametrize(
    ("offset", "changes", "says"),
    [
        (2, {"format": 9}, "has snapshot format 9, this version reads 2; run the version that wrote it"),
        (2, {"fingerprint": "rolling/9/0/x"}, "was written for the window rolling/9/0/x, the topology now has"),
        (2, {"number": 1}, "is chunk 1 of a base snapshot, expected was 0"),
        (3, {"payload": b"junk"}, "is a damaged chunk"),
        (-2, {"digest": b"0" * 16}, "are not those; start over with streamer state reset"),
        (-2, {"chunks": 2}, "is the manifest of 2 chunks"),
        (-2, {"format": 0}, "has snapshot format 0"),
        (-2, {"id": b"another"}, "has no end, the changelog was cut"),
    ],
)
def test_a_broken_base_is_refused_with_its_place(based: Snapshotting, offset: int, changes: dict[str, object], says: str) -> None:
    broken(based, offset % based.log.end(TOPIC, 0), **changes)
    with pytest.raises(StateError, match=says) as refusal:
        based.restored()
    assert str(refusal.value).startswith(f"{TOPIC}/0")


@pytest.mark.parametrize("offset", [2, 3, 5])
def test_a_missing_chunk_is_seen(based: Snapshotting, offset: int) -> None:
    assert based.log.record(TOPIC, 0, offset).key == CHUNK
    based.log.record(TOPIC, 0, offset).state = "aborted"
    with pytest.raises(StateError, match="tart over with streamer state reset"):
        based.restored()


def test_a_base_that_was_deleted_is_seen(based: Snapshotting) -> None:
    based.log.delete_records(TOPIC, 0, 3)
    with pytest.raises(StateError, match="the base snapshot at offset 2 is gone, the log goes on at 3: the changelog was cut"):
        based.restored()
    based.log.delete_records(TOPIC, 0, based.log.end(TOPIC, 0))
    with pytest.raises(StateError, match="has no end, the changelog was cut"):
        based.restored()


def test_a_log_without_base_must_begin_at_its_beginning(based: Snapshotting) -> None:
    based.base = None
    assert same(based.restored(), based.store)
    based.log.delete_records(TOPIC, 0, 1)
    with pytest.raises(StateError, match="the changelog has a gap"):
        based.restored()


def test_a_value_that_is_no_chunk_is_refused(based: Snapshotting) -> None:
    based.log.record(TOPIC, 0, 2).value = b"\xc1"
    with pytest.raises(StateError, match="was something else produced to this topic"):
        based.restored()


def test_a_wrong_block_between_the_chunks_is_seen(based: Snapshotting) -> None:
    based.log.record(TOPIC, 0, 4).state = "aborted"
    with pytest.raises(StateError, match="the changelog has a gap"):
        based.restored()


def test_chunks_of_a_zombie_between_ours_do_no_harm(based: Snapshotting) -> None:
    """At least once: a worker that had lost its partition writes beside us, and no commit names what it wrote."""
    zombie = Snapshotting(based.log)
    zombie.seq, zombie.next = based.seq, based.next
    based.begin(b"ours")
    based.put(1)
    zombie.begin(b"theirs")
    zombie.put(2)
    based.put(2)
    zombie.put()
    based.put()
    assert same(based.restored(strict=False), based.store)


def test_new_windows_may_begin_anywhere() -> None:
    """After a reset the group stands at an offset with commit 0, and there are no blocks yet."""
    log = MemoryLog(1, ManualClock())
    store, done = restore(log, 17, 0)
    assert same(store, new_store())
    assert (done.next, done.seq) == ([17], 0)
    with pytest.raises(StateError, match="Offsets were set by another tool"):
        restore(log, 17, None)
