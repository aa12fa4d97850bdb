"""What the steps of a flow are called: in metrics, in the latency ledger and by `streamer plan`."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# What a worker moves every row through, in order.
STAGES = ("consume", "decode", "window", "infer", "flag", "produce", "commit")
_IN = ("consume", "decode")


@dataclass(frozen=True, slots=True)
class Steps:
    """Names of the operators of a flow: kind and number, such as `rolling-1`. The way in and out has the same names in all.

    Attributes:
        window: the one that keeps the state; `features` where none does.
        infer, flag: of the model and what is made of its scores.
        scores: whether there are these two.
        stateless: those in front of the one that keeps the state, in order; they have their names for stages.
    """

    window: str = "window"
    infer: str = "infer"
    flag: str = "flag"
    scores: bool = True
    stateless: tuple[str, ...] = ()

    def at(self, stage: str) -> str | None:
        """The step that stands at a stage; None where none does."""
        own = {"window": self.window, "infer": self.scores and self.infer, "flag": self.scores and self.flag}
        return own.get(stage, stage) or None

    @property
    def way(self) -> tuple[str, ...]:
        """All steps that a row passes, in order."""
        behind = (step for stage in STAGES[len(_IN) :] if (step := self.at(stage)) is not None)
        return (*_IN, *self.stateless, *behind)


def numbered(kinds: Iterable[str]) -> tuple[str, ...]:
    """Names of steps of these kinds, such as `filter-1`, `filter-2`."""
    seen = Counter[str]()
    names = []
    for kind in kinds:
        seen[kind] += 1
        names.append(f"{kind}-{seen[kind]}")
    return tuple(names)
