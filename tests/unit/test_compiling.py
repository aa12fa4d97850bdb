"""What the first rows need is compiled before they come: kernels that a flow uses are there once its stages stand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Counts what numba compiles or loads from its cache: before the first row, and by the first rows with their commit.
FIRST_ROWS = """
import sys
from numba.core.dispatcher import Dispatcher
made, compile = [], Dispatcher.compile
Dispatcher.compile = lambda self, sig: (made.append(self.py_func.__qualname__), compile(self, sig))[1]
import msgspec
from streamer import Event, Model, Topology, interval, rolling, tumbling
from streamer.testing import TopologyTest, constant

class Reading(Event, topic="r", key="k", time="ts"):
    k: str
    ts: float
    v: float
    n: str = "b"
    u: float | None = 1.0

class Other(Reading, topic="o", key="k", time="ts"):
    pass

kind = sys.argv[1]
windows = {"panes": rolling("1h", resolution="1m"), "gaps": rolling("1h", resolution="1m"), "closing": tumbling("5s")}
flow = Topology("t").source(Reading, dead_letters="d")
if kind == "joined":
    flow = flow.join(interval(Other, before="10s"), dead_letters="od")
if kind == "rekeyed":
    flow = flow.rekey("n")
flow = flow.window(windows.get(kind, rolling("10s")))
see = (lambda w: {"m": w.of(Other).mean("v")}) if kind == "joined" else lambda w: {"m": w.mean("u" if kind == "gaps" else "v")}
flow = flow.features(see).infer(Model("m")).publish(predictions="p", late_events="late" if kind == "closing" else None)
with TopologyTest(flow, models=constant(1.0), partitions=1) as test:
    before = len(made)
    test.send(Reading("a", test.now, 1.0), times=30)
    assert test.read("p"), "no result"
    test.crash()
    test.send(Reading("a", test.now, 1.0), times=30)
    assert test.read("p"), "no result"
print(before, made[before:])
"""

TOLD = """
from streamer.telemetry.logs import configure_logs
configure_logs("info", "json", secrets=[])
from streamer.telemetry.compiling import tell_of_compiling
tell_of_compiling()
from numba import njit
for step in (1, 2):
    njit("int64(int64)")(lambda n: n + step)
"""


def python(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )


@pytest.mark.parametrize("windows", ["time", "panes", "gaps", "closing", "joined", "rekeyed"])
def test_nothing_is_left_to_compile_when_the_first_rows_come(windows: str) -> None:
    before, _, after = python(FIRST_ROWS, windows).stdout.strip().partition(" ")
    assert int(before) > 10
    assert after == "[]"


def test_the_log_says_once_that_kernels_are_compiled() -> None:
    lines = [json.loads(line) for line in python(TOLD).stderr.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["compiling_kernels"]


def test_a_flow_does_not_wait_for_kernels_of_others() -> None:
    loaded = python("import sys, streamer.worker.worker; print(*sys.modules)").stdout.split()
    assert "streamer.operators.rolling.kernels" in loaded
    assert {
        "streamer.operators.rolling.pane_kernels",
        "streamer.operators.rolling.pane_gap_kernels",
        "streamer.operators.closing.kernels",
        "streamer.operators.join.kernels",
    } & set(loaded) == set()
