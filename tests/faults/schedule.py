"""When which fault happens, from the seed alone: the same seed, the same schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

HostKind = Literal[
    "add", "remove", "kill", "kill-twice", "kill-restoring", "pause-session", "pause-transaction",
    "broker-stop", "broker-kill", "storm",
]  # fmt: skip
NetworkKind = Literal[
    "drop", "delay", "half-open", "cut-answer", "reset-twice", "late-end", "late-offsets", "late-add-offsets", "late-produce",
    "hold-fetch", "hold-find",
]  # fmt: skip
Kind = HostKind | NetworkKind
HOST: tuple[HostKind, ...] = get_args(HostKind)
NETWORK: tuple[NetworkKind, ...] = get_args(NetworkKind)
KINDS: tuple[Kind, ...] = (*HOST, *NETWORK)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: how long after the one before, which kind, how long until what it took away comes back."""

    after_s: float
    kind: Kind
    back_after_s: float


def draw(seed: int, kinds: Sequence[Kind]) -> list[Fault]:
    """Each of these kinds once per mention, in an order of its own. A worker must have been added before one is removed."""
    dice = random.Random(f"schedule {seed}")
    order = list(kinds)
    dice.shuffle(order)
    if "add" in order and "remove" in order and order.index("remove") < order.index("add"):
        first, second = order.index("remove"), order.index("add")
        order[first], order[second] = order[second], order[first]
    return [Fault(dice.uniform(0.5, 4.0), kind, dice.choice((0.2, 1.0, 3.0, 8.0))) for kind in order]
