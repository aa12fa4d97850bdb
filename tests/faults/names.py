"""Names every process of one torture run agrees on; all of them derive from one prefix."""

from __future__ import annotations

import os
from dataclasses import dataclass

PREFIX_VARIABLE = "TORTURE_PREFIX"
PARTITIONS = 8
WINDOW_COUNT = 16
MODEL = "torture"
MODEL_VERSION = 1
FEATURES = ("n", "mean", "std", "min", "max", "last", "delta", "rate")


@dataclass(frozen=True, slots=True)
class Names:
    """Topics and group of the run with this prefix."""

    prefix: str

    @property
    def input(self) -> str:
        return f"{self.prefix}.in"

    @property
    def predictions(self) -> str:
        return f"{self.prefix}.predictions"

    @property
    def anomalies(self) -> str:
        return f"{self.prefix}.anomalies"

    @property
    def rejected(self) -> str:
        return f"{self.prefix}.rejected"

    @property
    def group(self) -> str:
        return f"{self.prefix}.group"

    @property
    def changelog(self) -> str:
        return f"{self.group}-torture-window-changelog"

    @property
    def outputs(self) -> tuple[str, str, str]:
        return (self.predictions, self.anomalies, self.rejected)


def names_from_environment() -> Names:
    """Names of the run whose prefix the driver put into the environment."""
    return Names(os.environ.get(PREFIX_VARIABLE, "torture"))
