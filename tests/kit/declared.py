"""A good file with a topology, changed line by line."""

from pathlib import Path
from typing import Any

from streamer import Topology
from streamer.planning.plan import Plan, bind
from streamer.settings.settings import Settings
from streamer.testing import constant, stand_in

EVENT = """
from streamer import Event, Model, Topology, rolling, session, tumbling, hopping

class R(Event, topic="in", key="k", time="ts"):
    k: str
    ts: float
    a: float
    note: str = ""
"""
FLOW = """
flow = (
    Topology("t")
    .source(R, dead_letters="dead")
    .window(rolling(count=4))
    .features(lambda w: {"mean": w.mean("a")})
    .infer(Model("m"))
    .flag(above=0.5)
    .publish(predictions="out", anomalies="odd")
)
"""


def declare(text: str) -> Topology:
    """Run a file; the line that should be blamed ends with `# <-`."""
    names: dict[str, Any] = {}
    exec(compile(text, "flow.py", "exec"), names)
    flow: Topology = names["flow"]
    return flow


def planned(text: str, **settings: object) -> Plan:
    return bind(declare(text), Settings.model_validate(settings), Path("nowhere"), model=stand_in(constant(1.0)))


def blamed(text: str) -> str:
    """File and line of the mark."""
    (line,) = [number for number, content in enumerate(text.splitlines(), 1) if content.endswith("# <-")]
    return f"flow.py:{line}: "


def changed(line: str, instead: str) -> str:
    """The good file with one line changed and marked; a line of several gives each a line, the last one marked."""
    whole = EVENT + FLOW
    assert whole.count(line) == 1, line
    return whole.replace(line, f"{instead}  # <-", 1)


SOURCE, WINDOW = '.source(R, dead_letters="dead")', ".window(rolling(count=4))"
FEATURES, INFER, FLAG = '.features(lambda w: {"mean": w.mean("a")})', '.infer(Model("m"))', ".flag(above=0.5)"
PUBLISH, NAME = '.publish(predictions="out", anomalies="odd")', 'Topology("t")'
