"""The parent of `streamer run --workers` with real processes: whatever happens, it ends, and leaves no child behind.

The children are small scripts in place of a worker, so that each does what its test needs at the instant it needs it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 60
# `streamer run` in a process of its own, where a script takes the worker's place.
PARENT = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path

folder, script, tell_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
import streamer.cli, streamer.limits
import streamer.settings.settings  # loaded now: a stop must meet the parent at its work, not while it starts
streamer.limits.STOP_MARGIN_S = 0.2
sys.executable = script
made, popen = [], subprocess.Popen
stops = signal.SIGTERM, signal.SIGINT

def start(command, **more):
    if len(made) == tell_at:
        os.kill(os.getpid(), signal.SIGTERM)  # the handler runs before the child exists
    # A worker asks for the signals that were held back from it in its first instant; so does the script.
    made.append(popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, stops), **more))
    (folder / "children").write_text("\\n".join(str(child.pid) for child in made))
    return made[-1]

subprocess.Popen = start

def once_ready():
    while not (folder / "ready").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=once_ready, daemon=True).start()
sys.argv = ["streamer", "run", "flow.py:flow", "--workers", "2"]
streamer.cli.app()
"""
NO_TIME = 99


def run(folder: Path, worker: str, *, tell_at: int = NO_TIME) -> subprocess.CompletedProcess[str]:
    """The parent with `worker` (a shell script; $SLOT is its number) as children.

    It gets SIGTERM while it starts child number `tell_at`, or once the file `ready` appears in the folder.
    """
    script = folder / "worker"
    # python -m streamer run flow.py:flow --slot N --http ADDRESS
    script.write_text(f"#!/bin/sh\ncd {folder}\nSLOT=$6\n{worker}\n")
    script.chmod(0o755)
    environment = {**os.environ, "STREAMER_DRAIN_TIMEOUT": "0s"}
    return subprocess.run(
        [sys.executable, "-c", PARENT, str(folder), str(script), str(tell_at)],
        capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment,
    )  # fmt: skip


def left_behind(folder: Path) -> list[int]:
    """Children of that parent that still live."""
    alive = []
    for pid in map(int, (folder / "children").read_text().split()):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        alive.append(pid)
        os.kill(pid, signal.SIGKILL)
    return alive


DIES_ONCE = '[ "$SLOT" = 0 ] && [ ! -e died ] && { touch died; exit 11; }'


def test_a_stop_while_a_child_is_started_again_ends_everything(tmp_path: Path) -> None:
    done = run(tmp_path, f"{DIES_ONCE}\nexec sleep 300", tell_at=2)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "children").read_text().split()) == 3
    assert left_behind(tmp_path) == []


def test_a_stop_while_the_children_are_started_ends_everything(tmp_path: Path) -> None:
    assert run(tmp_path, "exec sleep 300", tell_at=1).returncode == 0
    assert left_behind(tmp_path) == []


def test_a_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    done = run(tmp_path, 'trap "" TERM\n[ "$SLOT" = 1 ] && touch ready\nwhile :; do sleep 0.1; done')
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr.count("worker_killed") >= 1
    assert left_behind(tmp_path) == []


def test_the_status_is_the_worst_of_the_children(tmp_path: Path) -> None:
    worker = (
        'trap "exit $SLOT" TERM\ntouch ready$SLOT\n[ -e ready0 ] && [ -e ready1 ] && touch ready\nwhile :; do sleep 0.1; done'
    )
    assert run(tmp_path, worker).returncode == 1
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(("status", "starts"), [(1, 5), (7, 1), (8, 4)])
def test_a_child_that_keeps_dying_stops_all(status: int, starts: int, tmp_path: Path) -> None:
    done = run(tmp_path, f'[ "$SLOT" = 0 ] && exit {status}\nexec sleep 300')
    assert done.returncode == status
    assert f'"status":{status}' in done.stderr.replace(" ", "")
    assert done.stderr.count("worker_restarted") == starts - 1
    assert left_behind(tmp_path) == []


def test_all_children_that_die_at_once_are_started_again(tmp_path: Path) -> None:
    dies = "[ -e died$SLOT ] || { touch died$SLOT; kill -9 $$; }"
    done = run(tmp_path, f"{dies}\ntouch back$SLOT\n[ -e back0 ] && [ -e back1 ] && touch ready\nexec sleep 300")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("worker_restarted") == 2
