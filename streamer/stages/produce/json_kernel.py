"""Compiled writers of JSON values: texts and numbers as bytes, each at a place, which they return moved on.

Floats are written with the fewest digits that read back as the same float32.
"""

import numpy as np

from streamer.stages.produce.shortest import shortest
from streamer.state.compiled import Bytes, njit

# As people write numbers: up to so many places, and whole numbers of so many digits; others have an exponent.
_PLACES_MAX = 12
_WHOLE_DIGITS_MAX = 16


@njit
def copy_bytes(out: Bytes, at: int, source: Bytes, start: int, end: int) -> int:
    """The bytes of `source` from `start` to `end` as they are."""
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
def write_unsigned(out: Bytes, at: int, bits: np.int64) -> int:
    """Decimal digits of the number without a sign that has these bits; it may be beyond int64."""
    if bits >= 0:
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
def write_null(out: Bytes, at: int) -> int:
    """What stands for no value."""
    out[at], out[at + 1], out[at + 2], out[at + 3] = 110, 117, 108, 108
    return at + 4


@njit
def write_float(out: Bytes, at: int, value: np.float32) -> int:
    """The shortest decimal that reads back as the same float32, the sign of zero kept; NaN and infinities as null."""
    bits = np.float32(value).view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    if magnitude >= np.uint32(0x7F800000):
        return write_null(out, at)
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
def write_escaped(out: Bytes, at: int, source: Bytes, start: int, end: int) -> int:
    """A part of a text, from `start` to `end`, as it stands between quotes."""
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
def write_text(out: Bytes, at: int, source: Bytes, start: int, end: int) -> int:
    """A text, from `start` to `end`, in quotes."""
    out[at] = 34
    at = write_escaped(out, at + 1, source, start, end)
    out[at] = 34
    return at + 1


@njit
def write_bool(out: Bytes, at: int, value: np.bool_) -> int:
    """True or false."""
    if value:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 116, 114, 117, 101
        return at + 4
    out[at], out[at + 1], out[at + 2], out[at + 3], out[at + 4] = 102, 97, 108, 115, 101
    return at + 5
