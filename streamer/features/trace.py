"""What stands in for windows when a feature function is tried: it notes what is asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.topology.closing import Closing
from streamer.topology.event import column_dtypes
from streamer.topology.examples import example_of
from streamer.topology.rolling import Rolling
from streamer.topology.view import Aggregate, Column, Events, Requested, Window, WindowView
from streamer.units import Duration

if TYPE_CHECKING:
    from streamer.topology.event import Event


class TracingView(WindowView):
    """Stands in for a look-back of two rows and notes what a feature function asks of it."""

    def __init__(
        self, numeric: tuple[str, ...], samples: int, declared: Mapping[str, str], *,
        in_panes: bool = False, nullable: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        super().__init__(np.ones(2), {}, {}, {})
        self.needs = Requested(nullable=nullable)
        self._numeric, self._samples, self._declared, self._in_panes = numeric, samples, declared, in_panes

    def __getitem__(self, name: str) -> Column:
        self._need_each_sample(f"w[{name!r}]")
        self.needs.matrices.add(_known(name, self._numeric, self._declared))
        matrix = np.full((2, self._samples), np.nan)
        matrix[:, -1] = 1.0
        return matrix

    def quantile(self, name: str, q: float) -> Column:
        """Note the quantile, and refuse one that is none."""
        self._need_each_sample(f"quantile({name!r}, {q})")
        if not 0 <= q <= 1:
            raise KeyError(f"quantile({name!r}, {q}): q is a share of the samples, from 0 to 1")
        self.needs.quantiles.add((_known(name, self._numeric, self._declared), float(q)))
        return np.ones(2)

    def _aggregate(self, name: str, aggregate: Aggregate) -> Column:
        (self._need_each_sample if aggregate == "distinct" else self._need_samples)(f"{aggregate}({name!r})")
        self.needs.aggregates.add((_known(name, self._numeric, self._declared), aggregate))
        return np.ones(2)

    def _values(self, name: str) -> Column:
        self._need_samples(f"count({name!r})")
        if _known(name, self._numeric, self._declared) in self.needs.nullable:
            self.needs.aggregates.add((name, "values"))
        return np.ones(2)

    def _need_samples(self, what: str) -> None:
        if self._samples == 0:
            raise KeyError(f"{what} needs a window; add .window(rolling(count=64)) before .features()")

    def _need_each_sample(self, what: str) -> None:
        self._need_samples(what)
        if self._in_panes:
            raise KeyError(f"{what} needs every sample, and a window with resolution= keeps summaries; use max_samples= instead")


class TracingEvents(Events):
    """Stands in for two events of a class and notes which fields a filter asks for."""

    def __init__(self, event: "type[Event]") -> None:
        self._event, self._asked = event, dict[str, NDArray[Any]]()
        super().__init__(self._asked)

    @property
    def asked(self) -> frozenset[str]:
        """Fields that were asked for so far."""
        return frozenset(self._asked)

    def event(self, name: str) -> NDArray[Any]:
        """Note that the field is wanted."""
        _known(name, self._event.__struct_fields__, {})
        self._asked[name] = _two(name, column_dtypes(self._event), partial(example_of, self._event))
        return self._asked[name]


class TracingWindow(Window):
    """Stands in for a window of two rows and notes what a feature function asks for.

    `window` is None without one; `seen` is the class of another stream, where it stands in for what is seen of that.
    """

    def __init__(
        self,
        numeric: Mapping[str, np.dtype[Any]],
        fields: Sequence[str],
        window: Rolling | Closing | None,
        joined: "Mapping[type[Event], TracingWindow] | None" = None,
        *,
        declared: Mapping[str, str] | None = None,
        example_of: Callable[[str], Any] = lambda _: "",
        nullable: frozenset[str] = frozenset(),
        seen: str = "",
    ) -> None:
        self._dtypes, self._fields, self._window, self._declared = numeric, tuple(fields), window, declared or {}
        self._example_of, self._seen = example_of, seen
        self._tracers: dict[str | int, TracingView] = {}
        for name, look in zip(window.names, window.looks, strict=True) if window else [(0, 0)]:
            samples, in_panes = (min(look, window.samples), window.resolution_us > 0) if window else (0, False)
            self._tracers[name] = TracingView(tuple(numeric), samples, self._declared, in_panes=in_panes, nullable=nullable)
        super().__init__(self._tracers, {}, joined)

    @property
    def needs(self) -> Requested:
        """What was asked so far."""
        first, *further = (tracer.needs for tracer in self._tracers.values())
        return replace(first, events=set(self._events), further=further)

    def over(self, look: Duration | int) -> WindowView:
        """Refuse a look-back without a window."""
        if self._window is None:
            raise KeyError(f'over({look!r}) needs a window; add .window(rolling("1h", "24h")) before .features()')
        return super().over(look)

    def event(self, name: str) -> NDArray[Any]:
        """Note that the event's own field is wanted; what it sees of another stream is none of its own."""
        if self._seen:
            why = f"an event sees no {self._seen}, one or several, and none is its own"
            raise KeyError(f"w.of({self._seen}).event({name!r}): {why}; of the newest it is w.of({self._seen}).last({name!r})")
        _known(name, self._fields, self._declared)
        self._events[name] = _two(name, self._dtypes, self._example_of)
        return self._events[name]


def trial_reason(error: Exception) -> str:
    """Why a function failed on stand-ins, for a message; what they say themselves stands alone, all else behind its type."""
    return error.args[0] if isinstance(error, KeyError) and error.args else f"{type(error).__name__}: {error}"


def _two(name: str, dtypes: Mapping[str, np.dtype[Any]], example_of: Callable[[str], Any]) -> NDArray[Any]:
    """A field of two events: ones, or a small value of its type twice."""
    return np.fromiter([example_of(name)] * 2, object) if name not in dtypes else np.ones(2, dtypes[name])


def _known(name: str, allowed: tuple[str, ...], declared: Mapping[str, str]) -> str:
    if name in allowed:
        return name
    why = f"the event has no such field {name!r} here"
    if name in declared:
        why = f"the field {name!r} is {declared[name]}, and only float, int and bool can be kept here"
    raise KeyError(f"{why}; there are: {', '.join(allowed)}")
