"""`Window`: what a feature function sees of the windows of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.topology.count import Count
from streamer.topology.event import Event
from streamer.units import Duration, span_name

Column = NDArray[np.float64]
Aggregate = Literal["sum", "mean", "std", "min", "max", "first", "last", "delta", "rate", "distinct", "values"]
AGGREGATES: tuple[Aggregate, ...] = ("sum", "mean", "std", "min", "max", "first", "last", "delta", "rate", "distinct")


@dataclass(slots=True)
class Requested:
    """What a feature function asked of its window when it was tried: only this is computed and kept.

    Attributes:
        aggregates: (field, aggregate).
        matrices: fields whose samples are wanted as they are.
        events: fields of the event itself.
        quantiles: (field, q).
        further: the same for the second and later look-backs; what stands here belongs to the first.
        nullable: fields that samples may be without.
    """

    aggregates: set[tuple[str, str]] = field(default_factory=set)
    matrices: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)
    quantiles: set[tuple[str, float]] = field(default_factory=set)
    further: list["Requested"] = field(default_factory=list)
    nullable: frozenset[str] = field(default=frozenset(), kw_only=True)

    def window_fields(self) -> set[str]:
        """Fields whose samples the window must keep."""
        return {
            name
            for look in (self, *self.further)
            for name in (*(f for f, _ in look.aggregates), *look.matrices, *(f for f, _ in look.quantiles))
        }


class Events:
    """The events of one batch, one row per event, in their order: what a filter sees."""

    def __init__(self, events: Mapping[str, NDArray[Any]]) -> None:
        self._events = events

    def only(self, rows: slice) -> "Events":
        """The same of some rows."""
        return Events({name: column[rows] for name, column in self._events.items()})

    def event(self, name: str) -> NDArray[Any]:
        """A field, shape (rows,): float64, int64 or bool as it is declared, NaN for null; object for anything else."""
        return self._events[name]


class WindowView:
    """One look-back of the windows of a batch, one row per event, in the order of the events.

    Every method returns a float64 array of shape (rows,), `w[field]` one of shape (rows, samples).
    The event itself is the newest sample of its window. A sample may be without a value, where a field may be null: what is
    asked is of those that have one, and NaN where none has.
    """

    def __init__(
        self,
        count: Column,
        aggregates: dict[tuple[str, str], Column],
        matrices: dict[str, Column],
        quantiles: dict[tuple[str, float], Column],
    ) -> None:
        self._count, self._aggregates, self._matrices, self._quantiles = count, aggregates, matrices, quantiles

    def only(self, rows: slice) -> "WindowView":
        """The same of some rows."""
        return WindowView(
            self._count[rows],
            {name: column[rows] for name, column in self._aggregates.items()},
            {name: column[rows] for name, column in self._matrices.items()},
            {name: column[rows] for name, column in self._quantiles.items()},
        )

    @property
    def count(self) -> Count:
        """Samples in the window; `count(name)`: those that have a value."""
        return Count.of(self._count, self._values)

    def _values(self, name: str) -> Column:
        return self._aggregates.get((name, "values"), self._count)

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

    def distinct(self, name: str) -> Column:
        """How many different values there are. Exact over the samples kept, so never more than `max_samples` or `count`."""
        return self._aggregate(name, "distinct")

    def quantile(self, name: str, q: float) -> Column:
        """The q-quantile of the samples kept, q from 0 to 1; between two samples linear, as `numpy.quantile` does it."""
        return self._quantiles[name, q]

    def __getitem__(self, name: str) -> Column:
        """Samples as (rows, samples), newest in the last column, NaN on the left where there are fewer."""
        return self._matrices[name]

    def _aggregate(self, name: str, aggregate: Aggregate) -> Column:
        return self._aggregates[name, aggregate]


class Window(WindowView):
    """The windows of one batch. With one look-back they answer themselves, with several through `over`.

    Args:
        looks: look-back, as it was declared -> its windows.
        events: fields of the events themselves.
        joined: class of another stream -> what is seen of it.
    """

    def __init__(
        self,
        looks: Mapping[str | int, WindowView],
        events: dict[str, NDArray[Any]],
        joined: "Mapping[type[Event], Window] | None" = None,
    ) -> None:
        self._looks, self._events, self._joined = looks, events, joined or {}

    def only(self, rows: slice) -> "Window":
        """The same of some rows."""
        looks = {name: look.only(rows) for name, look in self._looks.items()}
        events = {name: column[rows] for name, column in self._events.items()}
        return Window(looks, events, {event: window.only(rows) for event, window in self._joined.items()})

    @property
    def looks(self) -> Mapping[str | int, WindowView]:
        """The look-backs, as they were declared."""
        return self._looks

    def of(self, event: type[Event]) -> "Window":
        """What the events see of a joined stream, row by row: `w.of(Login).count`.

        Where an event sees nothing, `count` and `sum` are 0 and everything else is NaN. `last` is the newest sample seen.
        """
        if event not in self._joined:
            names = ", ".join(joined.__name__ for joined in self._joined) or "no other stream"
            raise KeyError(f"of({getattr(event, '__name__', event)}) needs a join; the flow joins {names}: add .join(...)")
        return self._joined[event]

    def over(self, look: Duration | int) -> WindowView:
        """The windows over one look-back, as it was declared: `w.over("24h").mean("value")`, or by count `w.over(64)`."""
        name = look if isinstance(look, int) else span_name(look)
        if name not in self._looks:
            raise KeyError(f"the window does not look back {look!r}; add it to rolling(), which has {self._names()}")
        return self._looks[name]

    def event(self, name: str) -> NDArray[Any]:
        """The event's own field, shape (rows,): float64, int64 or bool as it is declared, object for anything else."""
        return self._events[name]

    @property
    def count(self) -> Count:
        """Samples in the window; `count(name)`: those that have a value."""
        return self._only(".count").count

    def quantile(self, name: str, q: float) -> Column:
        """The q-quantile of the samples kept, q from 0 to 1; between two samples linear, as `numpy.quantile` does it."""
        return self._only(f".quantile({name!r}, {q})").quantile(name, q)

    def __getitem__(self, name: str) -> Column:
        """Samples as (rows, samples), newest in the last column, NaN on the left where there are fewer."""
        return self._only(f"[{name!r}]")[name]

    def _aggregate(self, name: str, aggregate: Aggregate) -> Column:
        return self._only(f".{aggregate}({name!r})")._aggregate(name, aggregate)  # noqa: SLF001 - a look of our own

    def _only(self, what: str) -> WindowView:
        """The one look-back there is; `what` is how the call is written behind `w`."""
        if len(self._looks) == 1:
            return next(iter(self._looks.values()))
        asked = f"w{what}" if what.startswith("[") else what[1:]
        raise KeyError(
            f"{asked} over which look-back? The window has {self._names()}; name one, w.over({next(iter(self._looks))!r}){what}"
        )

    def _names(self) -> str:
        return ", ".join(map(repr, self._looks))
