"""When which fault happens: drawn from the seed alone, so that a seed replays a schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "add", "remove", "pause", "broker"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: at which second, which kind, how long until what it took away comes back."""

    at_s: float
    kind: Kind
    back_after_s: float = 0.0


def draw(seed: int, seconds: float, kills: int, pauses: int = 0, broker_kills: int = 0) -> list[Fault]:
    """Faults spread over the middle of the run, one worker added early and one removed late."""
    dice = random.Random(f"schedule {seed}")
    faults = [
        Fault(seconds * dice.uniform(0.10, 0.40), "add"),
        Fault(seconds * dice.uniform(0.55, 0.85), "remove"),
    ]
    share = 0.75 / max(1, kills)
    for number in range(kills):
        at = seconds * (0.10 + share * (number + dice.random()))
        faults.append(Fault(at, "kill", dice.choice((0.2, 1.0, 3.0, 8.0))))
    faults.extend(Fault(seconds * dice.uniform(0.1, 0.8), "pause", dice.choice((1.0, 4.0, 9.0, 14.0))) for _ in range(pauses))
    faults.extend(Fault(seconds * dice.uniform(0.2, 0.8), "broker") for _ in range(broker_kills))
    return sorted(faults, key=lambda fault: fault.at_s)
