"""A worker that is told to stop while it still imports ends with status 0, and the public names are still there."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import streamer
from streamer.first_instant import stops_held

INIT = Path(streamer.__file__)
WAIT_S = 60
# Where the first thing that takes time is imported: what a signal finds there.
STOPPED_IN_IMPORT = """
import os, runpy, signal, sys
class Stop:
    def find_spec(self, name, *_):
        if name == "streamer.cli":
            print("numpy" in sys.modules, flush=True)
            os.kill(os.getpid(), signal.{signal})
sys.meta_path.insert(0, Stop())
sys.argv = ["streamer", {command!r}, "nothing.py:nothing"]
runpy.run_module("streamer", run_name="__main__")
"""


def stopped(command: str, number: signal.Signals) -> tuple[int, str]:
    """Status and output of a command that gets a signal in the middle of its imports."""
    code = STOPPED_IN_IMPORT.format(signal=number.name, command=command)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=WAIT_S, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_well_before_it_has_imported_anything_that_takes_time(number: signal.Signals) -> None:
    assert stopped("run", number) == (0, "False\n")


def test_other_commands_do_not_claim_to_have_done_their_work() -> None:
    assert stopped("feed", signal.SIGTERM) == (-signal.SIGTERM, "False\n")


def test_a_stop_that_comes_before_python_has_read_a_line_is_not_lost() -> None:
    with stops_held():
        worker = subprocess.Popen([sys.executable, "-m", "streamer", "run", "nothing.py:nothing"])
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(WAIT_S) == 0
    # ... and this process is as open to signals as before.
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_every_public_name_has_one_home() -> None:
    imports = [node for node in ast.walk(ast.parse(INIT.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: node.module for node in imports if (node.module or "").startswith("streamer.") for alias in node.names}
    assert typed == streamer._HOMES
    assert sorted(typed) == sorted(streamer.__all__)
    # An alias of a type is of the module that the type is of.
    assert all(getattr(streamer, name).__module__ == home for name, home in typed.items() if name != "Column")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = streamer.nothing  # type: ignore[attr-defined]
