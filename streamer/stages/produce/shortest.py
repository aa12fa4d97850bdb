"""The shortest decimal that reads back as the same float32, by Schubfach.

Raffaello Giulietti, "The Schubfach way to render doubles" (2021), in its form for 32 bits, after the code of Alexander
Bolz (Drachennest). A float and the two points half way to its neighbours are multiplied by one power of ten, in integers that
are rounded to odd, so that comparing them is exact; of the few decimals with a fitting number of digits one or two lie between
those points. There is no case in which it guesses, and no loop.

Parsers of JSON read a double first, which a reader of float32 rounds once more. All floats were tried: for one of them that leads
to its neighbour, and it gets one digit more.
"""

import math
from fractions import Fraction

import numpy as np

from streamer.state.compiled import njit

_K_MIN, _K_MAX = -31, 45


def _power_of_ten(k: int) -> int:
    """The first 64 bits of 10**k, rounded up."""
    return math.ceil(Fraction(10) ** k * Fraction(2) ** (63 - (k * 1741647 >> 19)))


_POWERS = np.array([_power_of_ten(k) for k in range(_K_MIN, _K_MAX + 1)], np.uint64)
# 7.038531e-26 is nearer to it than to its neighbour; the nearest double to that lies just half way between them.
_TWICE_ROUNDED, _TWICE_ROUNDED_DIGITS, _TWICE_ROUNDED_EXPONENT = np.uint32(0x15AE43FD), np.uint64(70385307), np.int64(-33)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ONE, _TWO, _FOUR, _TEN, _FORTY = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(10), np.uint64(40)


@njit
def _scaled(power: np.uint64, value: np.uint64) -> np.uint64:
    """The whole part of value * power / 2**64, its last bit set when anything of weight is behind it."""
    low = (power & _LOW) * value
    high = (power >> _HALF) * value + (low >> _HALF)
    return (high >> _HALF) | np.uint64((high & _LOW) > _ONE)


@njit
def shortest(bits: np.uint32) -> tuple[np.uint64, np.int64]:
    """Digits and exponent of the shortest decimal for a positive, finite float32: its value is digits * 10**exponent.

    Of several that are as short it is the nearest; it may end in zeros.

    Args:
        bits: of the float; the sign is not looked at.
    """
    fraction, exponent = np.int64(bits & np.uint32(0x7FFFFF)), np.int64((bits >> np.uint32(23)) & np.uint32(0xFF))
    if bits & np.uint32(0x7FFFFFFF) == _TWICE_ROUNDED:
        return _TWICE_ROUNDED_DIGITS, _TWICE_ROUNDED_EXPONENT
    c = fraction
    q = np.int64(-149)
    if exponent != 0:
        c = fraction | 0x800000
        q = exponent - 150
        if -23 <= q <= 0 and (c & ((1 << -q) - 1)) == 0:
            return np.uint64(c >> -q), np.int64(0)
    # A power of two is nearer to its lower neighbour than to the upper one.
    uneven = fraction == 0 and exponent > 1
    odd = np.uint64(c & 1)
    k = (q * 1262611 - (524031 if uneven else 0)) >> 22
    h = q + ((-k * 1741647) >> 19) + 1
    power = _POWERS[-k - _K_MIN]
    middle = np.uint64(c) * _FOUR
    lower = _scaled(power, (middle - (_ONE if uneven else _TWO)) << np.uint64(h)) + odd
    value = _scaled(power, middle << np.uint64(h))
    upper = _scaled(power, (middle + _TWO) << np.uint64(h)) - odd
    digits = value // _FOUR
    if digits >= _TEN:
        fewer = digits // _TEN
        below, above = lower <= _FORTY * fewer, _FORTY * (fewer + _ONE) <= upper
        if below != above:
            return fewer + np.uint64(above), k + 1
    below, above = lower <= _FOUR * digits, _FOUR * (digits + _ONE) <= upper
    if below != above:
        return digits + np.uint64(above), k
    half_way = _FOUR * digits + _TWO
    up = value > half_way or (value == half_way and (digits & _ONE) == _ONE)
    return digits + np.uint64(up), k
