"""What every operator is to those around it, and what it may ask of them: protocols, and no one's code."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.operators.ticks import NO_TICKS, Ticks
from streamer.rows.batch import Batch
from streamer.state.keyed_store import StateStore
from streamer.telemetry.metrics import Metrics


class Inputs(Protocol):
    """What is known of the partitions that are read, and who of them may be made to wait."""

    @property
    def topics(self) -> Sequence[str]:
        """Of the flow, the lead first."""

    @property
    def lead(self) -> str:
        """The topic that the group spreads."""

    def reading(self) -> list[int]:
        """Partitions that are ours and restored."""

    def silence_s(self, partition: int) -> list[float | None]:
        """Per topic, how long the partition has been at its end; None while it may have unread records."""

    def wait_for_others(self, partition: int, topics: Iterable[str]) -> int:
        """Have these topics of a partition wait and its others go on; returns how many wait."""


class Releasing(Protocol):
    """What gives batches of its own, which no poll brought about."""

    @property
    def due(self) -> bool:
        """Whether rows wait only until it is certain that nothing comes before them."""

    def released(self, room: Callable[[], int]) -> Iterator[Batch]:
        """Those whose time has come, while there is room for them."""


class Stateless(Protocol):
    """What looks at each row alone and keeps nothing: it stands between decode and the window stage."""

    @property
    def kind(self) -> str:
        """Names it, with a number behind."""

    @property
    def columns(self) -> frozenset[str]:
        """Event fields that it reads."""

    @property
    def told(self) -> str:
        """What it does, in words."""

    def __call__(self, batch: Batch) -> None:
        """Do it to the rows that were decoded."""


class Keyed(Protocol):
    """What is kept per partition and advances with its rows: the window stage and its like."""

    @property
    def stores(self) -> Mapping[int, Any]:
        """Partition -> its windows."""

    @property
    def keys(self) -> int:
        """Live keys."""

    @property
    def truncated(self) -> int:
        """Windows that lost samples."""

    @property
    def evicted(self) -> int:
        """Keys that made room for others."""

    def open(self, partition: int) -> StateStore | None:
        """Begin a partition anew."""

    def close(self, partition: int) -> None:
        """Forget a partition."""

    def __call__(self, batch: Batch) -> None:
        """Advance."""

    def releasing(self, inputs: Inputs, clock: Clock, metrics: Metrics) -> Releasing | None:
        """What gives the rows that time brings about; None where only records do."""


class Ticked(Keyed, Protocol):
    """The same where time may come from elsewhere."""

    def __call__(self, batch: Batch, ticks: Ticks = NO_TICKS) -> None:
        """Advance by the rows and by the ticks among them."""


class Run(Protocol):
    """One batch at the engine; the rest may be read once `wait` says so.

    Attributes:
        scores: (rows, columns); NaN in rows that failed.
        failed: row -> why the model refused it.
        ill: what is wrong with the engine itself, which refuses rows that it took before; `scores` say nothing then.
        started, ended: monotonic seconds.
    """

    scores: NDArray[np.float32]
    failed: dict[int, str]
    ill: str | None
    started: float
    ended: float

    def wait(self, timeout_s: float) -> bool:
        """Whether it is finished, after at most `timeout_s`."""


class Engine(Protocol):
    """What scores rows."""

    def submit(self, features: Mapping[str, NDArray[np.float32]], rows: int) -> Run:
        """Queue a batch, or score it at once if that is quick."""

    def stuck(self) -> str | None:
        """None, or which run has taken so long that it hangs; safe from any thread."""

    def close(self) -> None:
        """End its threads after what is queued."""


class EngineError(Exception):
    """The engine refuses every row, even one that it took before: no row is at fault, and all of them are redone."""


class Scoring(Protocol):
    """What holds batches between window and flag: the infer stage and its like."""

    rows: int
    value_bytes: int

    def submit(self, batch: Batch) -> None:
        """Queue a batch."""

    def collect(self, timeout_s: float) -> Batch | None:
        """The oldest batch when it is done."""

    def stuck(self) -> str | None:
        """None, or which run hangs."""

    def drop(self) -> None:
        """Forget what is queued."""

    def __len__(self) -> int:
        """Batches queued."""

    def close(self) -> None:
        """End its threads."""
