"""What a declaration is made of: its steps, each with the line it was written in, and the chain that holds them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.errors import TopologyError, line_of_caller
from streamer.renamed import STEPS, told
from streamer.topology.closing import Closing, Emission
from streamer.topology.event import Event, Format
from streamer.topology.joins import Join
from streamer.topology.rolling import Rolling
from streamer.topology.view import Events, Window

NAME_RULE = "names of topologies and topics are 1 to 249 letters, digits, '.', '_' or '-' (they become names in Kafka)"
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

FeatureFunction = Callable[[Window], Mapping[str, NDArray[Any]]]
FilterFunction = Callable[[Events], NDArray[np.bool_]]


def is_topic(name: object) -> bool:
    """Whether Kafka takes it as the name of a topic."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and name not in (".", "..")


@dataclass(frozen=True, slots=True)
class Model:
    """A model by name; where it lies is a setting (`models`), which version serves is the repository's.

    Attributes:
        name: folder in the model repository, `<models>/<name>/<version>/model.onnx`.
        alias: name of a version in `<models>/<name>/aliases.json`; without it the highest version serves.
        version: a fixed version instead.
    """

    name: str
    alias: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        where: file and line in which it was written.
        said: how a user writes it.
        repeats: whether there may be several.
    """

    where: str
    said: ClassVar[str]
    repeats: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Step):
    """`.source()`: the events, where and in which format they come, and the topic of those that could not be read."""

    event: type[Event]
    topic: str
    format: Format
    dead_letters: str
    said: ClassVar[str] = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Step):
    """`.filter()`: which events go on."""

    function: FilterFunction
    said: ClassVar[str] = "filter"
    repeats: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekey(Step):
    """`.rekey()`: another key for the events, and how far a partition may run ahead of the others."""

    field: str
    max_drift_us: int
    said: ClassVar[str] = "rekey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined(Step):
    """`.join()`: another stream, where and in which format it comes, and the topic of its records that cannot be read."""

    join: Join
    topic: str
    format: Format
    dead_letters: str
    out_of_order_us: int
    idle_timeout_s: float
    said: ClassVar[str] = "join"
    repeats: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Windowed(Step):
    """`.window()`: how samples of a key are kept."""

    window: Rolling | Closing
    emit: Emission = "on_close"
    said: ClassVar[str] = "window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(Step):
    """`.features()`: columns for the model."""

    function: FeatureFunction
    said: ClassVar[str] = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class Infer(Step):
    """`.infer()`: which model, in batches of how many rows."""

    model: Model
    deadline_s: float | None
    max_batch: int
    said: ClassVar[str] = "infer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Step):
    """`.flag()`: the decision; `above` is a number or "model.threshold"."""

    above: float | str
    said: ClassVar[str] = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish(Step):
    """`.publish()`: output topics."""

    predictions: str
    anomalies: str | None
    features: bool
    late_events: str | None
    said: ClassVar[str] = "publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels(Step):
    """`.labels()`: which labels are waited for, where they come, how long, and the topic of those that cannot be read."""

    event: type[Event]
    topic: str
    within_us: int
    on: str | None
    dead_letters: str
    out_of_order_us: int
    idle_timeout_s: float
    said: ClassVar[str] = "labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions(Source):
    """`.predictions()`: what labels are waited for, and the topic of those that could not be read."""

    said: ClassVar[str] = "predictions"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishMatched(Step):
    """`.publish()` of labels: output topics."""

    matched: str
    unmatched: str
    said: ClassVar[str] = "publish"


Kind = TypeVar("Kind", bound=Step)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A named chain of steps. Each step returns a new chain; nothing here opens a connection."""

    name: str
    steps: tuple[Step, ...] = ()
    order: ClassVar[tuple[type[Step], ...]]

    def __post_init__(self) -> None:
        if not is_topic(self.name):
            raise TopologyError(f"{line_of_caller()}: {type(self).__name__}({self.name!r}): {NAME_RULE}")

    if not TYPE_CHECKING:  # to a type checker every step would exist

        def __getattr__(self, name: str) -> Any:
            if name not in STEPS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise TopologyError(f"{line_of_caller()}: " + told(f".{name}()", STEPS[name]))

    def first(self, kind: type[Kind]) -> Kind | None:
        """The step of a kind, None where there is none."""
        return next(iter(self.all(kind)), None)

    def all(self, kind: type[Kind]) -> list[Kind]:
        """All steps of a kind."""
        return [step for step in self.steps if isinstance(step, kind)]

    def need(self, kind: type[Kind]) -> Kind:
        """The step of a kind.

        Raises:
            TopologyError: there is none.
        """
        step = self.first(kind)
        if step is None:
            last = self.steps[-1].where if self.steps else f"{type(self).__name__}({self.name!r})"
            raise TopologyError(f"{last}: the topology has no .{kind.said}() step")
        return step

    def _add(self, step: Step) -> Self:
        place = self.order.index(type(step))
        for earlier in self.steps:
            before = self.order.index(type(earlier))
            if before > place or (before == place and not step.repeats):
                names = " -> ".join(kind.said for kind in self.order)
                several = " and ".join(f"{kind.said}s" for kind in self.order if kind.repeats)
                raise TopologyError(
                    f"{step.where}: .{step.said}() comes after .{earlier.said}() ({earlier.where}); "
                    f"the order is {names}, each once{f', but several {several}' if several else ''}"
                )
        return replace(self, steps=(*self.steps, step))
