"""Names every process of one torture run agrees on; all of them derive from one prefix."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

PREFIX_VARIABLE = "TORTURE_PREFIX"
SOURCE_VARIABLE = "TORTURE_SOURCE"
Flow = Literal["rolling", "joined", "rekeyed", "closing", "stateless", "raw", "missing"]
FLOWS: tuple[Flow, ...] = get_args(Flow)
PARTITIONS = 8
WINDOW_COUNT = 16
MODEL = "torture"
MODEL_VERSION = 1
FEATURES = ("n", "mean", "std", "min", "max", "last", "delta", "rate")

# Of the flow with missing values: how many readings have none, and what the model gets where a window has none.
MISSING_SHARE, NO_VALUE = 0.3, -1.0
REKEY_FIELD = "sensor_id"
# Windows close soon, and by silence only when the load is over: no fault silences a partition for so long.
CLOSE_SIZE_S, CLOSE_LATE_S, CLOSE_IDLE_S, CLOSE_SAMPLES = 1.0, 0.5, 25, 16_384
# Longer than any fault makes records of a topic overtake each other, and longer than any fault silences a topic.
JOIN_LATE_S, JOIN_IDLE_S = 10, 15
# Shorter, where no broker dies.
JOIN_LATE_VARIABLE, IDLE_VARIABLE = "TORTURE_JOIN_LATE", "TORTURE_IDLE"
JOIN_BEFORE_S, JOIN_AFTER_S, JOIN_SAMPLES = 1.0, 0.5, 512


def closing_idle_s() -> float:
    """After how much silence windows close in this run."""
    return float(os.environ.get(IDLE_VARIABLE, f"{CLOSE_IDLE_S}s").removesuffix("s"))


@dataclass(frozen=True, slots=True)
class Names:
    """Topics and group of the run with this prefix.

    Attributes:
        prefix: of all of them.
        source: prefix of another run whose input it reads; its own if empty.
        flow: which topology.
    """

    prefix: str
    source: str = ""
    flow: Flow = "rolling"

    @property
    def input(self) -> str:
        return f"{self.source or self.prefix}.in"

    @property
    def predictions(self) -> str:
        return f"{self.prefix}.predictions"

    @property
    def anomalies(self) -> str:
        return f"{self.prefix}.anomalies"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dead"

    @property
    def group(self) -> str:
        return f"{self.prefix}.group"

    @property
    def changelogs(self) -> tuple[str, ...]:
        """Where the windows are kept, if there are any."""
        return () if self.flow in {"stateless", "raw"} else (f"{self.group}-torture-window-changelog",)

    @property
    def second(self) -> str:
        return f"{self.source or self.prefix}.second"

    @property
    def second_dead_letters(self) -> str:
        return f"{self.prefix}.second-dead"

    @property
    def late(self) -> str:
        return f"{self.prefix}.late"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input, self.second) if self.flow == "joined" else (self.input,)

    @property
    def forwarded(self) -> str:
        """The internal topic of the re-keyed flow."""
        return f"{self.group}-torture-by-{REKEY_FIELD}"

    @property
    def lead(self) -> str:
        """What the flow with the windows subscribes to."""
        return self.forwarded if self.flow == "rekeyed" else self.input

    @property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """The topics that each group reads."""
        if self.flow == "rekeyed":
            return {f"{self.group}-by-{REKEY_FIELD}": (self.input,), self.group: (self.forwarded,)}
        return {self.group: self.inputs}

    @property
    def outputs(self) -> tuple[str, ...]:
        further: dict[str, tuple[str, ...]] = {"joined": (self.second_dead_letters,), "closing": (self.late,)}
        return (self.predictions, self.anomalies, self.dead_letters, *further.get(self.flow, ()))


def names_from_environment() -> Names:
    """Names of the run whose prefix the driver put into the environment."""
    return Names(os.environ.get(PREFIX_VARIABLE, "torture"), os.environ.get(SOURCE_VARIABLE, ""))
