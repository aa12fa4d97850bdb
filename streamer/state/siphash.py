"""SipHash-1-3, a hash that who does not know its key cannot make collide: keys of events come from anybody.

Source: J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012; one round a word and three at the
end, as Python hashes bytes.
"""

import numpy as np

from streamer.state.compiled import Bytes, Uint64s, njit, njit_inline

_WORD = 8


@njit_inline
def _rotated(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@njit_inline
def _round(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a += b
    c += d
    b = _rotated(b, 13) ^ a
    d = _rotated(d, 16) ^ c
    a = _rotated(a, 32)
    c += b
    a += d
    b = _rotated(b, 17) ^ c
    d = _rotated(d, 21) ^ a
    return a, b, _rotated(c, 32), d


@njit_inline
def _word(data: Bytes, start: int, length: int) -> np.uint64:
    """Up to eight bytes, little-endian."""
    word = np.uint64(0)
    for i in range(length):
        word |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return word


@njit
def siphash(data: Bytes, start: int, end: int, key: Uint64s) -> np.uint64:
    """Hash of `data[start:end]` under a `key` of two words."""
    a = key[0] ^ np.uint64(0x736F6D6570736575)
    b = key[1] ^ np.uint64(0x646F72616E646F6D)
    c = key[0] ^ np.uint64(0x6C7967656E657261)
    d = key[1] ^ np.uint64(0x7465646279746573)
    at = start
    while at + _WORD <= end:
        word = _word(data, at, _WORD)
        a, b, c, d = _round(a, b, c, d ^ word)
        a ^= word
        at += _WORD
    word = _word(data, at, end - at) | np.uint64((end - start) & 0xFF) << np.uint64(56)
    a, b, c, d = _round(a, b, c, d ^ word)
    a ^= word
    c ^= np.uint64(0xFF)
    for _ in range(3):
        a, b, c, d = _round(a, b, c, d)
    return a ^ b ^ c ^ d
