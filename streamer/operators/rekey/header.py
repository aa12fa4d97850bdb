"""What stands in front of a value in the internal topic: where the record came from, and how far its partition's time is.

A header is a fixed part of little-endian numbers, then the bytes of the original key. The rest is the original value, as it
was. It is read and written for a whole batch at once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.limits import UPSTREAMS_MAX
from streamer.state.bounds import NUMBER_MAX, TIME_US_MAX
from streamer.state.watermarks import NO_TIME, SILENCE

MAGIC = 0x5352  # "RS" as it stands in the bytes
VERSION = 1
HEADER = np.dtype(
    [
        ("magic", "<u2"),
        ("version", "<u2"),
        ("upstreams", "<i4"),  # partitions of the source topic
        ("partition", "<i4"),  # of the source, as everything below
        ("key_bytes", "<i4"),  # -1: the record had no key
        ("offset", "<i8"),  # -1: no record, only the watermark; -2: the same, and the partition is silent
        ("timestamp_ms", "<i8"),
        ("watermark_us", "<i8"),  # largest event time up to this record
    ]
)
Heads = NDArray[np.void]
NO_KEY = -1


def headers(rows: int, upstreams: int) -> Heads:
    """Empty headers of this version."""
    found = np.zeros(rows, HEADER)
    found["magic"], found["version"], found["upstreams"] = MAGIC, VERSION, upstreams
    return found


def write(heads: Heads, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> list[bytes]:
    """Values of the internal topic; fills in `key_bytes`."""
    heads["key_bytes"] = [NO_KEY if key is None else len(key) for key in keys]
    data, size = heads.tobytes(), HEADER.itemsize
    places = range(0, len(data), size)
    return [data[at : at + size] + (key or b"") + (value or b"") for at, key, value in zip(places, keys, values, strict=True)]


def read(values: Sequence[bytes | None]) -> tuple[Heads, NDArray[np.bool_]]:
    """Headers of these values, and which of them are ours; the header of one that is not is all zeros."""
    size = HEADER.itemsize
    data = b"".join([value[:size] for value in values if value is not None])
    if len(data) != size * len(values):
        cut = [b"" if value is None else value[:size] for value in values]
        data = b"".join([head if len(head) == size else bytes(size) for head in cut])
    heads = np.frombuffer(data, HEADER)
    lengths = np.fromiter((0 if value is None else len(value) for value in values), np.int64, len(values))
    ours = (heads["magic"] == MAGIC) & (heads["version"] == VERSION) & (heads["partition"] >= 0)
    ours &= (heads["upstreams"] > heads["partition"]) & (heads["key_bytes"] >= NO_KEY) & (heads["offset"] >= SILENCE)
    ours &= size + np.maximum(heads["key_bytes"], 0).astype(np.int64) <= lengths
    # Numbers that are no counts, times or offsets would be waited for, or reserved memory for.
    ours &= (heads["upstreams"] <= UPSTREAMS_MAX) & (heads["offset"] <= NUMBER_MAX)
    ours &= (heads["watermark_us"] == NO_TIME) | _bounded(heads["watermark_us"])
    ours &= _bounded(heads["timestamp_ms"])
    return heads, ours


def _bounded(times: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (times >= -TIME_US_MAX) & (times <= TIME_US_MAX)


def split(heads: Heads, values: Sequence[bytes]) -> tuple[list[bytes | None], list[bytes]]:
    """Original keys and values behind these headers."""
    size, lengths = HEADER.itemsize, heads["key_bytes"]
    if len(lengths) and (lengths == lengths[0]).all() and lengths[0] >= 0:
        body = size + int(lengths[0])
        return [value[size:body] for value in values], [value[body:] for value in values]
    bodies = (size + np.maximum(lengths, 0)).tolist()
    keys = [None if n == NO_KEY else value[size:body] for value, n, body in zip(values, lengths.tolist(), bodies, strict=True)]
    return keys, [value[body:] for value, body in zip(values, bodies, strict=True)]
