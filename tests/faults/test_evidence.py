"""What the log of a worker proves: partitions owned, being restored, given up, and rollbacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from tests.faults.cluster import wait_for
from tests.faults.evidence import Start, is_stopped, story

if TYPE_CHECKING:
    from pathlib import Path

START = {"event": "partition_started", "timestamp": "2026-11-29T20:15:00.000001Z", "commit": 7, "restored_rows": 40}
LINES = [
    {"event": "partitions_assigned", "partitions": [0, 1]},
    {**START, "partition": 0},
    {"event": "listening", "host": "127.0.0.1", "port": 81},
    {**START, "partition": 1},
    {"event": "partitions_assigned", "partitions": []},
    {"event": "rolling_back", "cause": "commit", "partitions": [0, 1]},
    {**START, "partition": 0},
    {"event": "partitions_revoked", "partitions": [0]},
]


def test_a_story_follows_the_log_and_ignores_what_is_no_line_of_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Traceback\n" + "".join(json.dumps(line) + "\n" for line in LINES) + '{"event": "cut off')
    told = story(log)
    assert (told.owned, told.restoring, told.started) == ({1}, {1}, 3)
    assert (told.taken, told.given, told.undone) == ([[0, 1]], [[0]], ["commit"])
    assert told.starts[1] == Start("2026-11-29T20:15:00.000001Z", 1, 7, 40)
    assert told.address == "127.0.0.1:81"


def test_partitions_lost_are_a_rollback_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [LINES[0], {"event": "partitions_lost", "partitions": [0, 1]}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = story(log)
    assert (told.owned, told.restoring, told.undone) == (set(), set(), ["lost"])


def test_a_stopped_process_is_told_from_a_running_one() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert not is_stopped(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        wait_for("the stop", lambda: is_stopped(process.pid), 5.0, 0.01)
        process.kill()
