"""The last block of a changelog tells whose windows it keeps, whatever lies behind it."""

from typing import TYPE_CHECKING, cast

import pytest

from streamer.changelog.blocks import encode
from streamer.changelog.kept import check_kept
from streamer.changelog.snapshot import CHUNK, MANIFEST
from streamer.clock import ManualClock
from streamer.errors import StateError
from streamer.kafka.config import reader_config
from streamer.kafka.memory_clients import MemoryConsumer
from streamer.kafka.memory_log import MemoryLog
from streamer.settings.settings import Settings
from streamer.state.delta import merge

if TYPE_CHECKING:
    from confluent_kafka import Consumer


def checked(blocks: dict[int, str], behind: int = 0) -> int:
    """Check changelogs with a block of this shape each, and so many records of base snapshots behind it."""
    clock = ManualClock()
    log = MemoryLog(4, clock)
    for partition, fingerprint in blocks.items():
        (value,) = encode(merge([], 1), fingerprint, 1, [(0, 1)])
        log.append("changelog", None, value, partition)
        for _ in range(behind):
            log.append("changelog", CHUNK, b"", partition)
        log.append("changelog", MANIFEST, b"", partition)
    consumer = MemoryConsumer(log, reader_config(Settings(), committed=True))
    return check_kept(cast("Consumer", consumer), "changelog", 4, "ours", clock=clock, timeout_s=1.0)


@pytest.mark.parametrize("behind", [0, 40, 1000])
def test_partitions_with_windows_are_counted(behind: int) -> None:
    assert checked({}, behind) == 0
    assert checked({0: "ours", 3: "ours"}, behind) == 2


@pytest.mark.parametrize("behind", [0, 40, 1000])
def test_windows_of_another_shape_are_told_wherever_they_lie(behind: int) -> None:
    with pytest.raises(StateError, match=r"changelog/3/0 was written for the window theirs, the topology now has ours"):
        checked({0: "ours", 3: "theirs"}, behind)
