"""What may stand in the log: whatever is read back is bounded here before it takes memory or kernels see it.

Kernels trust their numbers, so a number that is an index is one that this file has let through. What does not fit is no
exception of a bug but damage, or somebody else's record; who reads says where it lies.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from streamer.state.bytes_column import BytesColumn
from streamer.state.compiled import Int32s, Int64s, njit

# Times in microseconds, numbers of commits, offsets: with a duration added, a larger one would not fit 64 bits.
TIME_US_MAX = NUMBER_MAX = 1 << 62
# The longest key, and the most partitions of a source that a re-keyed flow names: as in `limits`, which a test holds to it.
KEY_BYTES_MAX, UPSTREAMS_MAX = 512, 200_000
# More would be an input for each of them.
INPUTS_MAX = 64
_SHOWN = 200


class Damaged(ValueError):  # noqa: N818 - it says what something is
    """Something read back is not what was written; the message says what about it."""


@njit
def _slots_after(slots: Int32s, times: Int64s, used: int) -> int:
    for i in range(slots.shape[0]):
        slot, time = int(slots[i]), times[i]
        if slot < -1:
            slot = -2 - slot
            if slot > used:
                return -1
            used = max(used, slot + 1)
        elif slot >= used:
            return -1
        if time < -TIME_US_MAX or time > TIME_US_MAX:
            return -1
    return used


@njit
def _in_line(ends: Int64s, size: int, most: int) -> bool:
    before = 0
    for i in range(ends.shape[0]):
        if ends[i] < before or ends[i] - before > most:
            return False
        before = ends[i]
    return before == size


def slots_after(slots: NDArray[np.int32], times: NDArray[np.int64], used: int) -> int:
    """Slots in use after operations on a store that uses so many.

    Raises:
        Damaged: a slot is used that was not given, or given before those in front of it, or a time is none.
    """
    after = _slots_after(slots, times, used)
    if after < 0:
        raise Damaged("an operation is of a slot or a time that there is not")
    return after


def inflated(packed: bytes, most: int, exactly: int | None = None) -> bytes:
    """Decompress what tells its size, as all we write does.

    Raises:
        Damaged: it is not compressed, is cut, or would be larger than `most` bytes, or of another size than `exactly`.
    """
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= most:
            raise Damaged(f"it claims to hold {size:,} bytes, {most:,} are the most")
        if exactly not in (None, size):
            raise Damaged(f"it holds {size:,} bytes, {exactly:,} were to come")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=most)
    except zstandard.ZstdError as error:
        raise Damaged(str(error)) from error


def check_names(names: BytesColumn, most: int = KEY_BYTES_MAX) -> None:
    """Whether names lie one behind the other, none longer than `most` bytes.

    Raises:
        Damaged: they do not.
    """
    if not _in_line(names.ends, len(names.data), most):
        raise Damaged("its keys do not lie one behind the other, or one is too long")


def check_lines(lines: NDArray[np.int64], first_column: NDArray[np.int64] | None = None) -> None:
    """Whether a table of source partitions is one: (n, 3), or (k, 4) with their numbers in `first_column`.

    Raises:
        Damaged: there are too many, or a number is none.
    """
    if not len(lines):
        return
    if len(lines) > UPSTREAMS_MAX or (first_column is not None and not within(first_column, 0, UPSTREAMS_MAX - 1)):
        raise Damaged(f"it names more partitions of a source than {UPSTREAMS_MAX:,}")


def check_arrays(found: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Whether arrays are of the kinds and shapes that they must have.

    Raises:
        Damaged: one is missing, or differs.
    """
    for name, (kind, shape) in expected.items():
        array = found.get(name)
        if array is None or array.dtype.str != kind or array.shape != shape:
            has = "is missing" if array is None else f"is {array.dtype.str} {array.shape}"
            raise Damaged(f"its array {name!r} {has}, not {kind} {shape}")


def shape_of(array: NDArray[Any], rows: int) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of an array like this one with so many rows."""
    return array.dtype.str, (rows, *array.shape[1:])


def size_of(arrays: Mapping[str, NDArray[Any]], name: str) -> int:
    """Numbers in an array, 0 where it is missing."""
    return arrays[name].size if name in arrays else 0


def within(array: NDArray[Any], low: float, high: float | NDArray[Any]) -> bool:
    """Whether all numbers lie between two, both included; one that is no number does not."""
    if not array.size:
        return True
    if isinstance(high, np.ndarray):
        return bool(array.min() >= low and (array <= high).all())
    return bool(array.min() >= low and array.max() <= high)


def carve(buffer: bytearray, at: int, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of plain numbers where it lies in a buffer.

    Raises:
        Damaged: it is of another kind, or does not lie in there.
    """
    try:
        dtype = np.dtype(kind)
    except (TypeError, ValueError, SyntaxError) as error:
        raise Damaged(f"{shown(kind)} is no kind of number") from error
    if dtype.kind not in "iufb" or dtype.names is not None or dtype.itemsize > 8 or min(shape, default=0) < 0:
        raise Damaged(f"an array of {shown(kind)} is none of ours")
    count = prod(shape)
    if at + count * dtype.itemsize > len(buffer) or len(shape) > 8:
        raise Damaged("an array ends behind the end")
    if not count:
        if max(shape, default=0) > len(buffer):
            raise Damaged("an array without numbers claims to be long")
        return np.empty(shape, dtype)
    return np.frombuffer(buffer, dtype, count, at).reshape(shape)


def shown(text: str) -> str:
    """A text from the log for a message: not too long, and nothing in it that a terminal would take as an order."""
    return text[:_SHOWN] if text.isprintable() else ascii(text[:_SHOWN])
