"""Kafka's own choice of partition for a key, so that the internal topic is laid out as any Kafka client would lay it out."""

import numpy as np
from numpy.typing import NDArray

from streamer.state.bytes_column import BytesColumn
from streamer.state.compiled import Bytes, Int32s, Int64s, njit

_SEED = np.uint32(0x9747B28C)
_M = np.uint32(0x5BD1E995)


@njit
def _hash(data: Bytes, start: int, end: int) -> np.uint32:
    n = end - start
    h = np.uint32(_SEED ^ np.uint32(n))
    at = start
    while n >= 4:
        k = np.uint32(data[at]) | (np.uint32(data[at + 1]) << np.uint32(8))
        k |= (np.uint32(data[at + 2]) << np.uint32(16)) | (np.uint32(data[at + 3]) << np.uint32(24))
        k = np.uint32(k * _M)
        k = np.uint32(k ^ (k >> np.uint32(24)))
        k = np.uint32(k * _M)
        h = np.uint32(np.uint32(h * _M) ^ k)
        at += 4
        n -= 4
    if n >= 3:
        h = np.uint32(h ^ (np.uint32(data[at + 2]) << np.uint32(16)))
    if n >= 2:
        h = np.uint32(h ^ (np.uint32(data[at + 1]) << np.uint32(8)))
    if n >= 1:
        h = np.uint32(np.uint32(h ^ np.uint32(data[at])) * _M)
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(13))) * _M)
    return np.uint32(h ^ (h >> np.uint32(15)))


@njit
def _partitions(data: Bytes, ends: Int64s, count: int, out: Int32s) -> None:
    start = 0
    for row in range(ends.shape[0]):
        out[row] = np.int64(_hash(data, start, ends[row]) & np.uint32(0x7FFFFFFF)) % count
        start = ends[row]


def partitions(keys: list[bytes], count: int) -> NDArray[np.int32]:
    """Partition of each key in a topic with `count` of them, as Java's default and `murmur2_random` choose it."""
    out = np.empty(len(keys), np.int32)
    names = BytesColumn.of(keys)
    _partitions(names.data, names.ends, count, out)
    return out
