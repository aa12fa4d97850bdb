"""Memory that a restore has left behind goes back to the system."""

import ctypes
import os
from pathlib import Path

import pytest

from streamer.worker.heap import give_back

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc has malloc_trim")
def test_what_lies_free_among_blocks_that_stay_goes_back() -> None:
    blocks = [bytearray(64 * 1024) for _ in range(1600)]
    staying = blocks[::40]
    full = resident()
    del blocks
    before = resident()
    give_back()
    assert len(staying) == 40
    assert resident() < full - 50 * MIB, f"{full // MIB} MiB, {before // MIB} after they were freed, {resident() // MIB} at last"
