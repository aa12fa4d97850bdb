"""A worker that hangs is ended from within, and not one that only looks as if it did."""

import subprocess
import sys
import time
from itertools import chain, repeat

from streamer.cli.hanging import ended_when_hanging

HANGS = """
import time
from streamer.cli.hanging import ended_when_hanging

def user_function():
    time.sleep(60)

with ended_when_hanging(lambda: "its loop has not turned for 130 s", every_s=0.05):
    user_function()
"""


def test_a_process_that_hangs_ends_and_says_where() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "worker_hangs" in said
    assert "its loop has not turned for 130 s" in said
    assert "user_function" in said


def test_one_that_was_stopped_for_a_while_goes_on() -> None:
    answers, looked = chain(["stopped", "stopped", None, "stopped", "stopped"], repeat(None)), list[str | None]()

    def live() -> str | None:
        looked.append(next(answers))
        return looked[-1]

    with ended_when_hanging(live, every_s=0.01):
        while len(looked) <= 5:
            time.sleep(0.01)
    assert next(answers) is None, "all five answers were looked at, and this process lives"
