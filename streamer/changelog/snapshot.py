"""Base snapshots: all of a store as messages of its changelog, so that a restore need not read what came before.

A snapshot is a row of chunks, written a few per transaction between ordinary blocks, and a manifest at the end. Only the
manifest makes it count. It stands for the state after one commit; blocks of later commits lie between its chunks and are
applied after it.
"""

import hashlib
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import zstandard

from streamer.changelog.blocks import START_OVER, UNREADABLE
from streamer.errors import StateError
from streamer.limits import CHANGELOG_BYTES_MAX
from streamer.state.bounds import INPUTS_MAX, NUMBER_MAX, Damaged, carve, check_arrays, inflated, shown
from streamer.state.bytes_column import BytesColumn
from streamer.state.keyed_store import Dump

SNAPSHOT_FORMAT = 2
# The same with rows of a table deleted, which versions that know no deletions must not take for rows.
SNAPSHOT_FORMAT_DELETES = 3
# Keys of the records in the changelog topic; blocks have none.
CHUNK, MANIFEST = b"chunk", b"manifest"
_WORD_BYTES = 8
_DIGEST_BYTES = 16
# A store has a dozen.
_ARRAYS_MAX = 64
_KEYS = {"keys": "|u1", "key_ends": "<i8"}
_Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
_Part = TypeVar("_Part", "Chunk", "Manifest")


class Chunk(msgspec.Struct, array_like=True):
    """A piece of a snapshot.

    Attributes:
        format: version of the layout.
        fingerprint: shape of the store.
        id: of the snapshot, so that pieces of one that was given up are not taken for another's.
        number: place among the chunks, from 0.
        size: bytes of the whole snapshot, uncompressed.
        payload: bytes from `number` times the size of a chunk, compressed.
    """

    format: int
    fingerprint: str
    id: bytes
    number: _Number
    size: _Number
    payload: bytes


class Manifest(msgspec.Struct, array_like=True):
    """What makes a snapshot valid.

    Attributes:
        format, fingerprint, id: as in its chunks.
        seq, next: the commit it stands for, and the offset of each input after it.
        chunks: how many there are.
        digest: over the payloads, in order.
    """

    format: int
    fingerprint: str
    id: bytes
    seq: _Number
    next: Annotated[list[_Number], msgspec.Meta(max_length=INPUTS_MAX)]
    chunks: _Number
    digest: bytes


class _Head(msgspec.Struct, array_like=True):
    """Name, type and shape of each array that follows; the first two are the keys by slot."""

    arrays: Annotated[list[tuple[str, str, tuple[_Number, ...]]], msgspec.Meta(max_length=_ARRAYS_MAX)]


class Snapshot:
    """One snapshot on its way out; compressed piece by piece, when a transaction takes it.

    Args:
        dump: the state.
        fingerprint: shape of the store.
        seq: commit it stands for.
        next_: offset of each input after that commit.
        id_: unlike that of any other snapshot of the partition.
        most: bytes of a message that the topic takes, if that is less than CHANGELOG_BYTES_MAX.

    Attributes:
        messages: how many there are, manifest included.
        written: bytes of those made so far, compressed.
    """

    def __init__(
        self, dump: Dump, fingerprint: str, seq: int, next_: list[int], id_: bytes, *, most: int = CHANGELOG_BYTES_MAX
    ) -> None:
        self._format = SNAPSHOT_FORMAT_DELETES if dump.deletes else SNAPSHOT_FORMAT
        self._chunk_bytes = min(most, CHANGELOG_BYTES_MAX)
        self._fingerprint, self._seq, self._next, self._id = fingerprint, seq, next_, id_
        named = {"keys": dump.keys.data, "key_ends": dump.keys.ends, **dump.arrays}
        columns = {name: np.asarray(array, order="C") for name, array in named.items()}
        head = msgspec.msgpack.encode(_Head([(name, a.dtype.str, a.shape) for name, a in columns.items()]))
        arrays = [array.reshape(-1).view(np.uint8).data for array in columns.values()]
        self._parts = [memoryview(len(head).to_bytes(_WORD_BYTES, "little")), memoryview(head), *arrays]
        # Each part begins at a multiple of a word, so that arrays can be used where they lie.
        self._starts = list(accumulate((_padded(part.nbytes) for part in self._parts), initial=0))
        self.size = self._starts[-1]
        self._chunks = -(-self.size // self._chunk_bytes)
        self.messages = self._chunks + 1
        self.written = 0
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._compressor = zstandard.ZstdCompressor(level=1)

    def message(self, number: int) -> tuple[bytes, bytes]:
        """Key and value of a message; to be asked for in order, once each."""
        if number == self._chunks:
            manifest = Manifest(
                self._format, self._fingerprint, self._id, self._seq, self._next, self._chunks, self._digest.digest()
            )
            return MANIFEST, msgspec.msgpack.encode(manifest)
        payload = self._compressor.compress(self._piece(number))
        self._digest.update(payload)
        value = msgspec.msgpack.encode(Chunk(self._format, self._fingerprint, self._id, number, self.size, payload))
        self.written += len(value)
        return CHUNK, value

    def _piece(self, number: int) -> bytearray:
        start = number * self._chunk_bytes
        piece = bytearray(min(self._chunk_bytes, self.size - start))
        for part, begin in zip(self._parts, self._starts, strict=False):
            low, high = max(start, begin), min(start + len(piece), begin + part.nbytes)
            if low < high:
                piece[low - start : high - start] = part[low - begin : high - begin]
        return piece


class Assembly:
    """A snapshot on its way back: chunks in order, then the manifest.

    Args:
        fingerprint: shape of the store it is for.
    """

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._id: bytes | None = None
        self._buffer = bytearray()
        self._size = self._chunk_bytes = 0
        self._chunks = 0
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def begins(self, value: bytes, where: str) -> bool:
        """Whether a chunk is the first of its snapshot.

        Raises:
            StateError: it cannot be read.
        """
        return self._read(_CHUNKS.decode, value, where).number == 0

    def add(self, value: bytes, where: str) -> None:
        """Take the next chunk; those of other snapshots are passed over.

        Raises:
            StateError: it is not the next one, or cannot be read.
        """
        chunk = self._read(_CHUNKS.decode, value, where)
        if self._id is None:
            self._id, self._size = chunk.id, chunk.size
        if chunk.id != self._id:
            return
        if chunk.size != self._size:
            raise StateError(
                f"{where} is a chunk of {chunk.size:,} bytes of a base snapshot, the first said {self._size:,}; {START_OVER}"
            )
        if chunk.number != self._chunks:
            raise StateError(f"{where} is chunk {chunk.number} of a base snapshot, expected was {self._chunks}; {START_OVER}")
        # What a chunk says of the whole is not believed: memory is taken for what is there.
        expected = min(self._chunk_bytes, self._size - len(self._buffer)) if self._chunks else None
        try:
            piece = inflated(chunk.payload, CHANGELOG_BYTES_MAX, expected)
        except Damaged as error:
            raise StateError(f"{where} is a damaged chunk of a base snapshot ({error}); {START_OVER}") from error
        self._chunk_bytes = self._chunk_bytes or len(piece)  # the first is as large as those behind it, but the last
        self._buffer += piece
        self._digest.update(chunk.payload)
        self._chunks += 1

    def finish(self, value: bytes, where: str) -> tuple[Manifest, Dump] | None:
        """What the manifest makes of the chunks; None if it belongs to another snapshot.

        Raises:
            StateError: it does not fit them.
        """
        manifest = self._read(_MANIFESTS.decode, value, where)
        if manifest.id != self._id:
            return None
        if (manifest.chunks, manifest.digest) != (self._chunks, self._digest.digest()):
            raise StateError(
                f"{where} is the manifest of {manifest.chunks} chunks of a base snapshot, and the {self._chunks} before it "
                f"are not those; {START_OVER}"
            )
        try:
            if len(self._buffer) != self._size:
                raise Damaged(f"it has {len(self._buffer):,} bytes of {self._size:,}")
            return manifest, _dump(self._buffer)
        except UNREADABLE as error:
            raise StateError(f"{where} ends a damaged base snapshot ({error}); {START_OVER}") from error

    def _read(self, decode: Callable[[bytes], _Part], value: bytes, where: str) -> _Part:
        try:
            part = decode(value)
        except UNREADABLE as error:
            raise StateError(
                f"{where} is not part of a base snapshot ({error}); was something else produced to this topic?"
            ) from error
        if part.format not in (SNAPSHOT_FORMAT, SNAPSHOT_FORMAT_DELETES):
            raise StateError(
                f"{where} has snapshot format {part.format}, this version reads {SNAPSHOT_FORMAT}; run the version that wrote it"
            )
        if part.fingerprint != self._fingerprint:
            raise StateError(
                f"{where} was written for the window {shown(part.fingerprint)}, the topology now has {self._fingerprint}; "
                f"give the topology a new name, or {START_OVER}"
            )
        return part


_CHUNKS = msgspec.msgpack.Decoder(Chunk)
_MANIFESTS = msgspec.msgpack.Decoder(Manifest)
_HEADS = msgspec.msgpack.Decoder(_Head)


def _dump(buffer: bytearray) -> Dump:
    """The state in a complete snapshot; arrays lie where they are.

    Raises:
        Damaged: they do not, or are no arrays.
    """
    length = int.from_bytes(buffer[:_WORD_BYTES], "little")
    head = _HEADS.decode(memoryview(buffer)[_WORD_BYTES : _WORD_BYTES + length])
    arrays, at = {}, _WORD_BYTES + _padded(length)
    for name, kind, shape in head.arrays:
        array = arrays[name] = carve(buffer, at, kind, shape)
        at += _padded(array.nbytes)
    check_arrays(arrays, {name: (kind, (arrays[name].size if name in arrays else 0,)) for name, kind in _KEYS.items()})
    return Dump(BytesColumn(arrays.pop("keys"), arrays.pop("key_ends")), arrays)


def _padded(size: int) -> int:
    return -(-size // _WORD_BYTES) * _WORD_BYTES
