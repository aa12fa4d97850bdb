"""What a restore has left in the heap goes back to the system.

Stores that are dropped and restored again, as in every rebalance, free what they held among blocks that stay; the C library
keeps that for itself until it is told otherwise.
"""

import ctypes
from collections.abc import Callable
from typing import Any


def _malloc_trim() -> Callable[[int], Any]:
    """Of glibc; elsewhere nothing is done."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda _: 0


_trim = _malloc_trim()


def give_back() -> None:
    """Free pages of the heap go back. It walks the heap: a few milliseconds for some hundred MiB, so not for every batch."""
    _trim(0)
