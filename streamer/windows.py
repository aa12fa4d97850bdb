"""What a window is (`rolling`), and what a feature function sees of it (`Window`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.errors import TopologyError, line_of_caller
from streamer.limits import SAMPLES_PER_KEY_MAX
from streamer.units import parse_duration_s

Column = NDArray[np.float64]
Aggregate = Literal["sum", "mean", "std", "min", "max", "first", "last", "delta", "rate"]
AGGREGATES: tuple[Aggregate, ...] = ("sum", "mean", "std", "min", "max", "first", "last", "delta", "rate")


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last samples of a key, seen anew at every event.

    Attributes:
        samples: most samples a key keeps.
        span_us: width in event time (t - span, t], microseconds; 0 for a window by count in log order.
    """

    samples: int
    span_us: int

    @property
    def by_time(self) -> bool:
        """Whether the window is cut by event time and not by count alone."""
        return self.span_us > 0


def rolling(span: str | None = None, *, count: int | None = None, max_samples: int = 256) -> Rolling:
    """A window that moves with every event of its key.

    Args:
        span: width in event time, such as "60s": the window of an event at t holds the key's samples in (t - span, t];
            ties stand in log order. What arrives late changes later windows, never one that was already sent.
        count: instead of a span: the last `count` events of the key in log order.
        max_samples: with a span, the most samples kept for a key; beyond it the oldest are dropped and counted
            in `streamer_window_truncated_total`.

    Raises:
        TopologyError: neither or both of span and count, or a size out of range; the message starts with the line.
    """
    try:
        return _rolling(span, count, max_samples)
    except ValueError as error:
        raise TopologyError(f"{line_of_caller(1)}: rolling(): {error}") from error


def _rolling(span: str | None, count: int | None, max_samples: int) -> Rolling:
    if (span is None) == (count is None):
        raise ValueError('give either a span, rolling("60s"), or a count, rolling(count=64)')
    size = max_samples if count is None else count
    if not 1 <= size <= SAMPLES_PER_KEY_MAX:
        raise ValueError(f"a window holds 1 to {SAMPLES_PER_KEY_MAX:,} samples of a key, not {size:,}")
    span_us = 0 if span is None else round(parse_duration_s(span) * 1e6)
    if span is not None and span_us < 1:
        raise ValueError(f"a window by time is at least a microsecond wide, not {span!r}")
    return Rolling(size, span_us)


@dataclass(slots=True)
class Needs:
    """What a feature function asked of its window when it was tried: only this is computed and kept."""

    aggregates: set[tuple[str, str]] = field(default_factory=set)
    matrices: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)

    def window_fields(self) -> set[str]:
        """Fields whose samples the window must keep."""
        return {f for f, _ in self.aggregates} | self.matrices


class Window:
    """The windows of one batch, one row per event, in the order of the events.

    Every method returns a float64 array of shape (rows,), `w[field]` one of shape (rows, samples).
    The event itself is the newest sample of its window.
    """

    def __init__(
        self,
        count: Column,
        aggregates: dict[tuple[str, str], Column],
        matrices: dict[str, Column],
        events: dict[str, NDArray[Any]],
    ) -> None:
        self._count, self._aggregates, self._matrices, self._events = count, aggregates, matrices, events

    @property
    def count(self) -> Column:
        """Samples in the window."""
        return self._count

    def sum(self, name: str) -> Column:
        """Sum of the samples."""
        return self._aggregate(name, "sum")

    def mean(self, name: str) -> Column:
        """Arithmetic mean of the samples."""
        return self._aggregate(name, "mean")

    def std(self, name: str) -> Column:
        """Population standard deviation (divides by the count); 0 for one sample."""
        return self._aggregate(name, "std")

    def min(self, name: str) -> Column:
        """Smallest sample."""
        return self._aggregate(name, "min")

    def max(self, name: str) -> Column:
        """Largest sample."""
        return self._aggregate(name, "max")

    def first(self, name: str) -> Column:
        """Oldest sample."""
        return self._aggregate(name, "first")

    def last(self, name: str) -> Column:
        """Newest sample: the event's own."""
        return self._aggregate(name, "last")

    def delta(self, name: str) -> Column:
        """Newest minus oldest sample."""
        return self._aggregate(name, "delta")

    def rate(self, name: str) -> Column:
        """Delta per second of event time between oldest and newest sample; 0 where that time is not positive."""
        return self._aggregate(name, "rate")

    def event(self, name: str) -> NDArray[Any]:
        """The event's own field, shape (rows,): float64 for numbers, object for anything else."""
        return self._events[name]

    def __getitem__(self, name: str) -> Column:
        """Samples as (rows, samples), newest in the last column, NaN on the left where there are fewer."""
        return self._matrices[name]

    def _aggregate(self, name: str, aggregate: Aggregate) -> Column:
        return self._aggregates[name, aggregate]


class TracingWindow(Window):
    """Stands in for a window of two rows and notes what a feature function asks for."""

    def __init__(self, numeric: Sequence[str], fields: Sequence[str], samples: int) -> None:
        super().__init__(np.ones(2), {}, {}, {})
        self.needs = Needs()
        self._numeric, self._fields, self._samples = tuple(numeric), tuple(fields), samples

    def __getitem__(self, name: str) -> Column:
        self._need_samples(f"w[{name!r}]")
        self.needs.matrices.add(self._known(name, self._numeric))
        matrix = np.full((2, self._samples), np.nan)
        matrix[:, -1] = 1.0
        return matrix

    def event(self, name: str) -> NDArray[Any]:
        """Note that the event's own field is wanted."""
        self.needs.events.add(self._known(name, self._fields))
        return np.ones(2) if name in self._numeric else np.array([""] * 2, dtype=object)

    def _aggregate(self, name: str, aggregate: Aggregate) -> Column:
        self._need_samples(f"{aggregate}({name!r})")
        self.needs.aggregates.add((self._known(name, self._numeric), aggregate))
        return np.ones(2)

    def _need_samples(self, what: str) -> None:
        if self._samples == 0:
            raise KeyError(f"{what} needs a window; add .window(rolling(count=64)) before .features()")

    def _known(self, name: str, allowed: tuple[str, ...]) -> str:
        if name not in allowed:
            raise KeyError(f"the event has no such field {name!r} here; there are: {', '.join(allowed)}")
        return name
