"""Names that were others once. Whoever writes an old one is told the new one; there is no second way to say a thing."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from streamer.errors import TopologyError, line_of_caller

P = ParamSpec("P")
R = TypeVar("R")

ARGUMENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "Topology.source": {"rejected": "dead_letters"},
    "Topology.rekey": {"align": "max_drift"},
    "Topology.join": {"rejected": "dead_letters", "late": "out_of_order", "idle": "idle_timeout"},
    "Topology.publish": {"late": "late_events"},
    "tumbling": {"late": "grace", "idle": "idle_timeout"},
    "hopping": {"late": "grace", "idle": "idle_timeout", "every": "hop"},
    "session": {"late": "grace", "idle": "idle_timeout"},
}
FUNCTIONS: Final[Mapping[str, str]] = {"latest": "as_of", "delayed": "lagged"}
STEPS: Final[Mapping[str, str]] = {
    "match": "LabelMatch(name).predictions(Scored, ...).labels(Label, within=...).publish(matched=..., unmatched=...)"
}
SETTINGS: Final[Mapping[str, str]] = {"memory": "state_memory", "start": "start_from"}
TESTS: Final[Mapping[str, str]] = {"restart": "crash()", "clock": 'advance("5s")'}
COMMANDS: Final[Mapping[str, str]] = {"broker": "dev broker"}


def told(old: str, new: str) -> str:
    """What is said of an old name."""
    return f"{old} is called {new} now"


def refuse_function(name: str) -> None:
    """Say what a function of this package is called now, if it was renamed.

    Raises:
        TopologyError: it was; the message starts with the line.
    """
    if name in FUNCTIONS:
        raise TopologyError(f"{line_of_caller()}: " + told(f"{name}()", f"{FUNCTIONS[name]}()"))


def knows_old_names(function: Callable[P, R]) -> Callable[P, R]:
    """Let a step or a window refuse what its arguments were called once, with the line and the name of today."""
    arguments = ARGUMENTS[function.__qualname__]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for old in arguments.keys() & kwargs.keys():
            step = function.__qualname__.replace("Topology", "")
            raise TopologyError(f"{line_of_caller()}: {step}(): " + told(f"{old}=", f"{arguments[old]}="))
        return function(*args, **kwargs)

    return checked
