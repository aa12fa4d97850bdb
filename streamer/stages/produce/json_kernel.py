"""A compiled writer of prediction records: the JSON of a whole batch in one pass, one record a line.

The layout is fixed (`schemas/prediction.v1.json`), so nothing is looked up per row. Floats are written with the fewest digits
that read back as the same float32.
"""

from typing import NamedTuple

import numpy as np

from streamer.stages.produce.shortest import shortest
from streamer.state.compiled import Bools, Bytes, Float32Matrix, Float32s, Int32s, Int64Matrix, Int64s, Uint8, njit

# As people write numbers: up to so many places, and whole numbers of so many digits; others have an exponent.
_PLACES_MAX = 12
_WHOLE_DIGITS_MAX = 16
_DIGITS_MAX = 26

# What a feature is written from.
FLOAT, SIGNED, UNSIGNED = 0, 1, 2


class Texts(NamedTuple):
    """What stands between the fields, the same in every record.

    Attributes:
        constants: id, key, time, score, scores, flag, model, latency, window start, window end, final, then one text for each
            feature, and the end; end to end.
        cuts: (texts,) where each ends; the first starts at 0.
    """

    constants: Bytes
    cuts: Int64s


class Features(NamedTuple):
    """Features of one number.

    Attributes:
        floats: (rows, features), or (rows, 0).
        kinds: (features,) FLOAT, or of whole numbers SIGNED or UNSIGNED.
        wholes: (features, rows) whole numbers, the bits of one without a sign as they are; (0, 0) where there are none.
    """

    floats: Float32Matrix
    kinds: Bytes
    wholes: Int64Matrix


class Rows(NamedTuple):
    """Rows to write.

    Attributes:
        partitions, offsets, times_us, counts, latency_us: (rows,).
        keys, key_ends: key bytes end to end, and where each ends; an end of -1 - e marks a null key ending at e.
        scores: (rows, columns); all are listed when there are several.
        flags: (rows,).
        features: published with them.
    """

    partitions: Int32s
    offsets: Int64s
    keys: Bytes
    key_ends: Int64s
    times_us: Int64s
    scores: Float32Matrix
    flags: Bools
    counts: Int64s
    latency_us: Int64s
    features: Features


class Windows(NamedTuple):
    """Windows that close, (rows,) or (0,). The id of a closed one has key and start, not the offset."""

    starts_us: Int64s
    ends_us: Int64s
    final: Bools


@njit
def _copy(out: Bytes, at: int, source: Bytes, start: int, end: int) -> int:
    # Unsigned places need no check for Python's negative indexes, which would keep the loop from being a block copy.
    to, begin = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(end - start)):
        out[to + j] = source[begin + j]
    return at + end - start


@njit
def write_int(out: Bytes, at: int, value: np.int64) -> int:
    """Decimal digits of an integer; returns the place after them."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    # Unsigned: division by a constant is then a multiplication, without the fix-ups of Python's floor.
    rest, ten = np.uint64(value), np.uint64(10)
    digits = 1
    limit = np.uint64(10)
    while rest >= limit and digits < 19:
        digits += 1
        limit *= ten
    for j in range(at + digits - 1, at - 1, -1):
        shorter = rest // ten
        out[j] = 48 + np.uint8(rest - shorter * ten)
        rest = shorter
    return at + digits


@njit
def _write_whole(out: Bytes, at: int, bits: np.int64, kind: Uint8) -> int:
    """A whole number of either kind; one without a sign may be beyond int64."""
    if kind == SIGNED or bits >= 0:
        return write_int(out, at, bits)
    value, ten = np.uint64(bits), np.uint64(10)
    tens = value // ten
    at = write_int(out, at, np.int64(tens))
    out[at] = 48 + np.uint8(value - tens * ten)
    return at + 1


@njit
def write_fixed(out: Bytes, at: int, value: np.int64, places: int) -> int:
    """An integer in units of 10**-places as a decimal without trailing zeros; returns the place after it."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    rest, ten = np.uint64(value), np.uint64(10)
    while places > 0:
        shorter = rest // ten
        if rest != shorter * ten:
            break
        rest = shorter
        places -= 1
    if places == 0:
        return write_int(out, at, np.int64(rest))
    # The fraction is written from its end, behind the whole part whose length shows only then.
    whole = rest
    for _ in range(places):
        whole //= ten
    at = write_int(out, at, np.int64(whole))
    out[at] = 46
    for j in range(at + places, at, -1):
        shorter = rest // ten
        out[j] = 48 + np.uint8(rest - shorter * ten)
        rest = shorter
    return at + places + 1


@njit
def _write_null(out: Bytes, at: int) -> int:
    out[at], out[at + 1], out[at + 2], out[at + 3] = 110, 117, 108, 108
    return at + 4


@njit
def write_float(out: Bytes, at: int, value: np.float32) -> int:
    """The shortest decimal that reads back as the same float32, the sign of zero kept; NaN and infinities as null."""
    bits = np.float32(value).view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    if magnitude >= np.uint32(0x7F800000):
        return _write_null(out, at)
    if bits != magnitude:
        out[at] = 45
        at += 1
    if magnitude == 0:
        out[at] = 48
        if bits != magnitude:  # "-0" would be a whole number, which has no sign
            out[at + 1], out[at + 2] = 46, 48
            return at + 3
        return at + 1
    unsigned, exponent = shortest(magnitude)
    if -_PLACES_MAX <= exponent <= 0:
        return write_fixed(out, at, np.int64(unsigned), int(-exponent))
    ten = np.uint64(10)
    while unsigned % ten == 0:
        unsigned //= ten
        exponent += 1
    start = at
    at = write_int(out, at, np.int64(unsigned))
    if 0 <= exponent <= _WHOLE_DIGITS_MAX - (at - start):
        for _ in range(exponent):
            out[at] = 48
            at += 1
        return at
    out[at] = 101
    return write_int(out, at + 1, exponent)


@njit
def _write_escaped(out: Bytes, at: int, source: Bytes, start: int, end: int) -> int:
    for j in range(start, end):
        c = source[j]
        if c in (34, 92):
            out[at] = 92
            at += 1
        elif c < 32:
            for letter in (92, 117, 48, 48):
                out[at] = letter
                at += 1
            out[at] = 48 + (c >> 4)
            c = c & 15
            c = 48 + c if c < 10 else 87 + c
            at += 1
        out[at] = c
        at += 1
    return at


@njit
def _write_text(out: Bytes, at: int, source: Bytes, start: int, end: int) -> int:
    out[at] = 34
    at = _write_escaped(out, at + 1, source, start, end)
    out[at] = 34
    return at + 1


@njit
def _write_bool(out: Bytes, at: int, value: bool) -> int:  # noqa: FBT001 - it is what is written
    if value:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 116, 114, 117, 101
        return at + 4
    out[at], out[at + 1], out[at + 2], out[at + 3], out[at + 4] = 102, 97, 108, 115, 101
    return at + 5


@njit
def _write_scores(out: Bytes, at: int, scores: Float32s) -> int:
    """All scores of a row, of which there are several."""
    for j in range(scores.shape[0]):
        out[at] = 91 if j == 0 else 44
        at = write_float(out, at + 1, scores[j])
    out[at] = 93
    return at + 1


@njit
def _write_span(out: Bytes, at: int, texts: Texts, start_us: np.int64, end_us: np.int64) -> int:
    """From when to when the window of a row is."""
    constants, cuts = texts
    at = _copy(out, at, constants, cuts[7], cuts[8])
    at = write_fixed(out, at, start_us, 6)
    at = _copy(out, at, constants, cuts[8], cuts[9])
    at = write_fixed(out, at, end_us, 6)
    return _copy(out, at, constants, cuts[9], cuts[10])


@njit
def write_predictions(out: Bytes, texts: Texts, rows: Rows, column: int, windows: Windows) -> int:
    """Write one JSON object a row, each followed by a line break; returns the bytes written.

    Args:
        out: room for all rows (see `room`).
        texts: what stands between the fields.
        rows: what is written.
        column: which of the scores is the score.
        windows: of flows with windows that close.
    """
    constants, cuts = texts
    partitions, offsets, keys, key_ends, times_us, scores, flags, counts, latency_us, features = rows
    floats, kinds, wholes = features
    starts_us, ends_us, final = windows
    at, key_start = 0, 0
    many = scores.shape[1] > 1
    closing = final.shape[0] > 0
    for i in range(partitions.shape[0]):
        at = _copy(out, at, constants, 0, cuts[0])
        at = write_int(out, at, partitions[i])
        out[at] = 47
        end = key_ends[i]
        if closing and final[i]:
            at = _write_escaped(out, at + 1, keys, key_start, end)
            out[at] = 47
            at = write_int(out, at + 1, starts_us[i])
        else:
            at = write_int(out, at + 1, offsets[i])
        at = _copy(out, at, constants, cuts[0], cuts[1])
        if end < 0:
            end = -1 - end
            at = _write_null(out, at)
        else:
            at = _write_text(out, at, keys, key_start, end)
        key_start = end
        at = _copy(out, at, constants, cuts[1], cuts[2])
        at = write_fixed(out, at, times_us[i], 6)
        at = _copy(out, at, constants, cuts[2], cuts[3])
        at = write_float(out, at, scores[i, column])
        if many:
            at = _copy(out, at, constants, cuts[3], cuts[4])
            at = _write_scores(out, at, scores[i])
        at = _copy(out, at, constants, cuts[4], cuts[5])
        at = _write_bool(out, at, flags[i])
        at = _copy(out, at, constants, cuts[5], cuts[6])
        at = write_int(out, at, counts[i])
        at = _copy(out, at, constants, cuts[6], cuts[7])
        at = write_fixed(out, at, latency_us[i], 3)
        if closing:
            at = _write_span(out, at, texts, starts_us[i], ends_us[i])
            at = _write_bool(out, at, final[i])
        for j in range(floats.shape[1]):
            at = _copy(out, at, constants, cuts[10 + j], cuts[11 + j])
            at = write_float(out, at, floats[i, j]) if kinds[j] == FLOAT else _write_whole(out, at, wholes[j, i], kinds[j])
        last = cuts.shape[0] - 1
        at = _copy(out, at, constants, cuts[last - 1], cuts[last])
        out[at] = 10
        at += 1
    return at


def room(rows: int, constants: int, key_bytes: int, numbers: int) -> int:
    """Bytes that are always enough: texts, keys escaped to six bytes each and written twice at most, and 26 for every number."""
    return rows * (constants + 2 + _DIGITS_MAX * (9 + numbers) + 16) + 12 * key_bytes
