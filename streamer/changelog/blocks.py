"""Blocks of the columnar changelog: what entered a store between two commits, as one compressed message.

A block is written in the transaction that holds the outputs of the same rows. Blocks of a partition form a chain: each
names the input offsets it covers, `[first, next)`, and a sequence number that the commit repeats in the metadata of the
committed offset. Restoring is `for block in chain: store.apply(block)`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from streamer.errors import StateError
from streamer.limits import CHANGELOG_BYTES_MAX, CHANGELOG_PLAIN_BYTES_MAX, KEY_BYTES_MAX
from streamer.state.bounds import INPUTS_MAX, NUMBER_MAX, Damaged, inflated, shown
from streamer.state.bytes_column import BytesColumn
from streamer.state.delta import TICK, Delta
from streamer.state.watermarks import NO_CHANGE

FORMAT = 3
# The same with rows of a table deleted, which versions that know no deletions must not take for rows.
FORMAT_DELETES = 4
START_OVER = "start over with streamer state reset, or with a new --group"
_METADATA = "streamer/1 "
_DIGITS_MAX = 18
# Bytes of an operation beside its values, and of a key beside its text.
_ROW_BYTES, _KEY_BYTES = 12, 4
_Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
_Id = Annotated[str, msgspec.Meta(max_length=64)]


@dataclass(frozen=True, slots=True)
class ChangelogTopic:
    """Where state changes go.

    Attributes:
        topic: its name.
        fingerprint: of the store.
        fields: how many the store has.
        ids: of the input topics.
        row_bytes_max: what the topic takes of a message before it is compressed, and so of a row, which cannot be cut.
    """

    topic: str
    fingerprint: str
    fields: int
    ids: tuple[str, ...] = ()
    row_bytes_max: int = CHANGELOG_PLAIN_BYTES_MAX


class Block(msgspec.Struct, array_like=True):
    """One message of the changelog. Arrays are little-endian bytes, which lie where the message does.

    Attributes:
        format: version of this layout.
        fingerprint: shape of the store it belongs to.
        seq: number of the commit, per partition.
        first, next: offsets of the lead input covered, next exclusive.
        part, parts: a commit too large for one message is cut; only all parts together count.
        keys, key_sizes: new keys of a `Delta`, one after the other, and how long each is.
        slots, times, values: its operations; times are differences from row to row.
        others: first and next of further inputs, in their order.
        upstreams: four little-endian int64 per line, in a re-keyed flow; with the first part.
        ids: of the topics of the inputs, the lead first; empty where the cluster has none.
    """

    format: int
    fingerprint: str
    seq: _Number
    first: _Number
    next: _Number
    part: _Number
    parts: _Number
    keys: memoryview
    key_sizes: memoryview
    slots: memoryview
    times: memoryview
    values: memoryview
    others: Annotated[list[tuple[_Number, _Number]], msgspec.Meta(max_length=INPUTS_MAX)] = []
    upstreams: memoryview = memoryview(b"")
    ids: Annotated[list[_Id], msgspec.Meta(max_length=INPUTS_MAX)] = []

    @property
    def covered(self) -> list[tuple[int, int]]:
        """Input offsets covered, `[first, next)` for each input."""
        return [(self.first, self.next), *self.others]

    def delta(self, fields: int) -> Delta:
        """The columns, ready to apply."""
        # The compiled kernels take aligned, writable arrays only: one copy each.
        slots, values = np.array(np.frombuffer(self.slots, "<i4")), np.array(np.frombuffer(self.values, "<f8"))
        ends = np.cumsum(np.frombuffer(self.key_sizes, "<i4"), dtype=np.int64)
        names = BytesColumn(np.array(np.frombuffer(self.keys, np.uint8)), ends)
        times, upstreams = np.cumsum(np.frombuffer(self.times, "<i8")), np.array(np.frombuffer(self.upstreams, "<i8"))
        return Delta(names, slots, times, values.reshape(fields, len(slots)), upstreams.reshape(-1, 4))

    @property
    def whole(self) -> bool:
        """Whether its columns fit each other; kernels trust that they do."""
        rows, rest = divmod(len(self.slots), 4)
        odd = len(self.values) % (8 * rows) if rows else len(self.values)
        if rest or odd or len(self.key_sizes) % 4 or len(self.times) != 8 * rows or len(self.upstreams) % 32:
            return False
        slots, sizes = np.frombuffer(self.slots, "<i4"), np.frombuffer(self.key_sizes, "<i4")
        given = int(np.count_nonzero(slots < TICK))
        return len(sizes) == given and sizes.min(initial=0) >= 0 and int(sizes.sum(dtype=np.int64)) == len(self.keys)


class _Head(msgspec.Struct, array_like=True):
    """What every version of a block begins with."""

    format: int
    fingerprint: str


_HEADS = msgspec.msgpack.Decoder(_Head)
_BLOCKS = msgspec.msgpack.Decoder(Block)
_ENCODER = msgspec.msgpack.Encoder()
# What comes of bytes that are none of ours: other types, text that is none, nesting without an end.
UNREADABLE = (Damaged, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(
    delta: Delta, fingerprint: str, seq: int, covered: Sequence[tuple[int, int]], *,
    ids: Sequence[str] = (), most: int = CHANGELOG_PLAIN_BYTES_MAX,
) -> Iterator[bytes]:  # fmt: skip
    """Messages of one commit for one partition, each at most CHANGELOG_BYTES_MAX before compression, and a row at the least.

    Args:
        delta: what entered the store.
        fingerprint: of the store.
        seq: number of the commit.
        covered: its offsets, `[first, next)` for each input.
        ids: of the input topics.
        most: bytes of a message that the topic takes, if that is less.
    """
    (first, next_), *others = covered
    cuts, keys = _cuts(delta, min(CHANGELOG_BYTES_MAX, most))
    format_ = FORMAT_DELETES if np.isnan(delta.values).any() else FORMAT
    compressor = zstandard.ZstdCompressor(level=1)
    for part, (start, end) in enumerate(pairwise(cuts)):
        names = delta.new_keys.part(keys[part], keys[part + 1])
        block = Block(
            format_, fingerprint, seq, first, next_, part, len(cuts) - 1,
            _bytes(names.data, "u1"), _bytes(np.diff(names.ends, prepend=0), "<i4"), _bytes(delta.slots[start:end], "<i4"),
            _bytes(np.diff(delta.times[start:end], prepend=0), "<i8"), _bytes(delta.values[:, start:end], "<f8"), others,
            _bytes(delta.upstreams if part == 0 else NO_CHANGE, "<i8"), list(ids),
        )  # fmt: skip
        yield compressor.compress(_ENCODER.encode(block))


def row_bytes(fields: int, name: int = KEY_BYTES_MAX) -> int:
    """What a row takes before compression: a key of `name` bytes gets a slot, and a sample of it comes."""
    return 2 * (_ROW_BYTES + 8 * fields) + _KEY_BYTES + name


def _bytes(array: NDArray[Any], kind: str) -> memoryview:
    """The numbers one after the other, little-endian."""
    return np.ascontiguousarray(array, kind).reshape(-1).view(np.uint8).data


def _cuts(delta: Delta, most: int) -> tuple[list[int], list[int]]:
    """Where the parts of a commit begin and the last one ends: as rows, and as new keys.

    A new key travels with the row that gives it a slot.
    """
    rows, width = len(delta.slots), _ROW_BYTES + 8 * delta.values.shape[0]
    sizes = np.concatenate([[0], delta.new_keys.ends]) + _KEY_BYTES * np.arange(len(delta.new_keys) + 1)
    known = np.zeros(rows + 1, np.int64)
    np.cumsum(delta.slots < TICK, out=known[1:])
    taken = np.arange(rows + 1) * width + sizes[known]
    cuts = [0]
    while cuts[-1] < rows:
        beside = 0 if cuts[-1] else delta.upstreams.nbytes  # they go with the first part
        end = int(np.searchsorted(taken, taken[cuts[-1]] + most - beside, "right")) - 1
        cuts.append(max(end, cuts[-1] + 1))
    if not rows:
        cuts.append(0)
    return cuts, known[cuts].tolist()


def decode(value: bytes, fingerprint: str, where: str) -> Block:
    """Read one message.

    Raises:
        StateError: it cannot be read, or was written by another version or for another window.
    """
    try:
        plain = inflated(value, CHANGELOG_PLAIN_BYTES_MAX)
        _check(_HEADS.decode(plain), fingerprint, where)
        block = _BLOCKS.decode(plain)
    except UNREADABLE as error:
        raise StateError(f"{where} is not a changelog block ({error}); was something else produced to this topic?") from error
    if not block.whole:
        raise StateError(f"{where} is a damaged changelog block: its columns do not fit each other; {START_OVER}")
    return block


def _check(head: _Head, fingerprint: str, where: str) -> None:
    if head.format not in (FORMAT, FORMAT_DELETES):
        raise StateError(
            f"{where} has changelog format {head.format}, this version reads {FORMAT}; run the version that wrote it"
        )
    if head.fingerprint != fingerprint:
        raise StateError(
            f"{where} was written for the window {shown(head.fingerprint)}, the topology now has {fingerprint}; "
            f"give the topology a new name, or {START_OVER}"
        )


class CommitMetadata(NamedTuple):
    """What the metadata of a committed offset says.

    A commit number of 0 stands for new windows from that offset on; None for a commit that was not ours.

    Attributes:
        seq: number of the commit.
        base: changelog offset of the base snapshot.
        id: of the topic that the offset is one of.
        of: how many partitions the topic had, where windows belong to partitions.
    """

    seq: int | None
    base: int | None = None
    id: str | None = None
    of: int | None = None

    def format(self) -> str:
        """What a commit writes beside the offset."""
        return _METADATA + " ".join(f"{name}={word}" for name, word in self._asdict().items() if word is not None)

    @staticmethod
    def parse(text: str | None) -> "CommitMetadata":
        """Read what stands beside a committed offset.

        Raises:
            StateError: it begins as ours does and is not.
        """
        if not text or not text.startswith(_METADATA):
            return CommitMetadata(None)
        found = dict(word.split("=", 1) for word in text[len(_METADATA) :].split() if "=" in word)
        numbers = [found.get("seq", ""), found.get("base", "0"), found.get("of", "0")]
        if not all(number.isdecimal() and number.isascii() and len(number) <= _DIGITS_MAX for number in numbers):
            raise StateError(
                f"the metadata {shown(text)!r} of a committed offset is damaged: it names no commit; did another tool commit "
                f"for the group? {START_OVER[0].upper()}{START_OVER[1:]}"
            )
        base, of = (int(found[name]) if name in found else None for name in ("base", "of"))
        return CommitMetadata(int(found["seq"]), base, found.get("id"), of)
