"""What a window is (`rolling`), and what a feature function sees of it (`Window`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.errors import TopologyError, line_of_caller
from streamer.limits import SAMPLES_PER_KEY_MAX, TICKS_PER_WAIT
from streamer.topology.closing import Closing
from streamer.topology.event import Event
from streamer.units import Duration, parse_duration_us, parse_samples

# Rolling windows wait no longer than a step of time for a partition that is silent; in these bounds, since a shorter silence
# may be the network's, and a longer one might never be over where workers come and go.
_SILENCE_S_MIN, _SILENCE_S_MAX = 1.0, 60.0

Column = NDArray[np.float64]
Aggregate = Literal["sum", "mean", "std", "min", "max", "first", "last", "delta", "rate", "distinct"]
AGGREGATES: tuple[Aggregate, ...] = ("sum", "mean", "std", "min", "max", "first", "last", "delta", "rate", "distinct")


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last samples of a key, seen anew at every event through one or more look-backs.

    Attributes:
        samples: most samples a key keeps, or with a resolution, panes.
        names: the look-backs as they were declared, spans such as "24h" or counts.
        looks: the same as numbers: widths in event time (t - width, t], microseconds, or counts.
        ttl_us: a key silent for longer than this in event time starts anew, microseconds; 0 for never.
        resolution_us: width of a pane, microseconds; 0 where samples are kept themselves.
    """

    samples: int
    names: tuple[str | int, ...]
    looks: tuple[int, ...]
    ttl_us: int = 0
    resolution_us: int = 0
    kind: ClassVar[str] = "rolling"
    closes: ClassVar[bool] = False
    idle_timeout_us: ClassVar[int] = 0

    @property
    def silence_s(self) -> float:
        """The silence after which a partition of the source does not hold windows back any more, seconds; 0 for never."""
        return min(max(self.ttl_us / 1e6 / TICKS_PER_WAIT, _SILENCE_S_MIN), _SILENCE_S_MAX) if self.ttl_us else 0.0

    @property
    def moments_us(self) -> tuple[int, int, int, int] | None:
        """When time changes anything, as for windows that close; None when it does not."""
        return (max(1, self.ttl_us // TICKS_PER_WAIT), 0, 1, 0) if self.ttl_us else None

    @property
    def by_time(self) -> bool:
        """Whether the window is cut by event time and not by count alone."""
        return isinstance(self.names[0], str)

    @property
    def widest(self) -> int:
        """Place of the look-back that sees everything the others see."""
        return self.looks.index(max(self.looks))


def rolling(
    *spans: str,
    count: int | Sequence[int] | None = None,
    max_samples: int | None = None,
    resolution: Duration | None = None,
    ttl: Duration | None = None,
    grace: str | None = None,
    idle_timeout: str | None = None,
) -> Rolling:
    """A window that moves with every event of its key.

    Args:
        spans: widths in event time, such as "60s" or "1h", "24h", "7d": one pass over one store answers all of them, see
            `Window.over`. The window of an event at t holds the key's samples in (t - span, t]; ties stand in log order.
            What arrives late changes later windows, never one that was already sent.
        count: instead of spans: the last `count` events of the key in log order, or several such counts.
        max_samples: with spans, the most samples kept for a key, 256 unless given; beyond it the oldest are dropped and
            counted in `streamer_window_truncated_total`.
        resolution: with spans, keep no samples but one summary for each slice of event time of this width, as "1h" for 30
            days: a pane, aligned to the epoch. An event sees its own pane and the span / resolution - 1 before it, as far
            as they had been filled when it came.
        ttl: a key whose last sample is older than this before the watermark (the largest event time of its partition) starts
            anew, as "7d"; without it only a full store forgets keys.
        grace: refused, a rolling window never closes.
        idle_timeout: refused as well.

    Raises:
        TopologyError: neither or both of span and count, or a size out of range; the message starts with the line.
    """
    try:
        if grace is not None or idle_timeout is not None:
            raise ValueError("a rolling window never closes; leave grace= and idle_timeout= to windows that do")  # noqa: TRY301
        window = _rolling(spans, count, 256 if max_samples is None else max_samples, ttl)
        return window if resolution is None else _in_panes(window, resolution, max_samples)
    except ValueError as error:
        raise TopologyError(f"{line_of_caller()}: rolling(): {error}") from error


def _rolling(spans: tuple[str, ...], count: int | Sequence[int] | None, max_samples: int, ttl: Duration | None) -> Rolling:
    if bool(spans) == (count is not None):
        raise ValueError('give either a span, rolling("60s"), or a count, rolling(count=64)')
    counts = () if count is None else tuple(count) if isinstance(count, Sequence) else (count,)
    looks = counts or tuple(_span_us(span) for span in spans)
    if not looks or len(set(looks)) < len(looks):
        raise ValueError(f"give each look-back once, not {spans or counts}")
    for size in counts or (max_samples,):
        parse_samples(size)
    ttl_us = _ttl_us(ttl, max(looks) if spans else 0)
    return Rolling(max(counts, default=max_samples), spans or counts, looks, ttl_us)


def _in_panes(window: Rolling, resolution: Duration, max_samples: int | None) -> Rolling:
    width_us = _span_us(resolution)
    if not window.by_time or max_samples is not None:
        raise ValueError("resolution= is for spans, and in place of max_samples=: it says how many summaries a key keeps")
    for name, look in zip(window.names, window.looks, strict=True):
        if look % width_us:
            raise ValueError(f"{name!r} is no multiple of resolution={resolution!r}")
    panes = max(window.looks) // width_us
    if panes > SAMPLES_PER_KEY_MAX:
        raise ValueError(f"resolution={resolution!r} makes {panes:,} panes, and a key keeps {SAMPLES_PER_KEY_MAX:,} at most")
    return replace(window, samples=panes, resolution_us=width_us)


def _span_us(span: Duration) -> int:
    span_us = parse_duration_us(span)
    if span_us < 1:
        raise ValueError(f"a window by time is at least a microsecond wide, not {span!r}")
    return span_us


def _ttl_us(ttl: Duration | None, widest_us: int) -> int:
    ttl_us = 0 if ttl is None else parse_duration_us(ttl)
    if ttl is not None and ttl_us < 1:
        raise ValueError(f"a ttl is at least a microsecond, not {ttl!r}")
    if 0 < ttl_us < widest_us:
        raise ValueError(f"ttl={ttl!r} is shorter than the window: it would forget samples that are still inside")
    return ttl_us


@dataclass(slots=True)
class Requested:
    """What a feature function asked of its window when it was tried: only this is computed and kept.

    Attributes:
        aggregates: (field, aggregate).
        matrices: fields whose samples are wanted as they are.
        events: fields of the event itself.
        quantiles: (field, q).
        further: the same for the second and later look-backs; what stands here belongs to the first.
    """

    aggregates: set[tuple[str, str]] = field(default_factory=set)
    matrices: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)
    quantiles: set[tuple[str, float]] = field(default_factory=set)
    further: list["Requested"] = field(default_factory=list)

    def window_fields(self) -> set[str]:
        """Fields whose samples the window must keep."""
        return {
            name
            for look in (self, *self.further)
            for name in (*(f for f, _ in look.aggregates), *look.matrices, *(f for f, _ in look.quantiles))
        }


class WindowView:
    """One look-back of the windows of a batch, one row per event, in the order of the events.

    Every method returns a float64 array of shape (rows,), `w[field]` one of shape (rows, samples).
    The event itself is the newest sample of its window.
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

    def over(self, look: str | int) -> WindowView:
        """The windows over one look-back, as it was declared: `w.over("24h").mean("value")`, or by count `w.over(64)`."""
        if look not in self._looks:
            raise KeyError(f"the window does not look back {look!r}; add it to rolling(), which has {self._names()}")
        return self._looks[look]

    def event(self, name: str) -> NDArray[Any]:
        """The event's own field, shape (rows,): float64 for numbers, object for anything else."""
        return self._events[name]

    @property
    def count(self) -> Column:
        """Samples in the window."""
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


class TracingView(WindowView):
    """Stands in for a look-back of two rows and notes what a feature function asks of it."""

    def __init__(self, numeric: tuple[str, ...], samples: int, declared: Mapping[str, str], *, in_panes: bool = False) -> None:
        super().__init__(np.ones(2), {}, {}, {})
        self.needs = Requested()
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

    def _need_samples(self, what: str) -> None:
        if self._samples == 0:
            raise KeyError(f"{what} needs a window; add .window(rolling(count=64)) before .features()")

    def _need_each_sample(self, what: str) -> None:
        self._need_samples(what)
        if self._in_panes:
            raise KeyError(f"{what} needs every sample, and a window with resolution= keeps summaries; use max_samples= instead")


class TracingWindow(Window):
    """Stands in for a window of two rows and notes what a feature function asks for; `window` is None without one."""

    def __init__(
        self,
        numeric: Sequence[str],
        fields: Sequence[str],
        window: Rolling | Closing | None,
        joined: "Mapping[type[Event], TracingWindow] | None" = None,
        *,
        declared: Mapping[str, str] | None = None,
        example_of: Callable[[str], Any] = lambda _: "",
    ) -> None:
        self._numeric, self._fields, self._window, self._declared = tuple(numeric), tuple(fields), window, declared or {}
        self._example_of = example_of
        self._tracers: dict[str | int, TracingView] = {}
        for name, look in zip(window.names, window.looks, strict=True) if window else [(0, 0)]:
            samples, in_panes = (min(look, window.samples), window.resolution_us > 0) if window else (0, False)
            self._tracers[name] = TracingView(self._numeric, samples, self._declared, in_panes=in_panes)
        super().__init__(self._tracers, {}, joined)

    @property
    def needs(self) -> Requested:
        """What was asked so far."""
        first, *further = (tracer.needs for tracer in self._tracers.values())
        return replace(first, events=set(self._events), further=further)

    def over(self, look: str | int) -> WindowView:
        """Refuse a look-back without a window."""
        if self._window is None:
            raise KeyError(f'over({look!r}) needs a window; add .window(rolling("1h", "24h")) before .features()')
        return super().over(look)

    def event(self, name: str) -> NDArray[Any]:
        """Note that the event's own field is wanted."""
        _known(name, self._fields, self._declared)
        self._events[name] = np.ones(2) if name in self._numeric else np.fromiter([self._example_of(name)] * 2, object)
        return self._events[name]


def _known(name: str, allowed: tuple[str, ...], declared: Mapping[str, str]) -> str:
    if name in allowed:
        return name
    why = f"the event has no such field {name!r} here"
    if name in declared:
        why = f"the field {name!r} is {declared[name]}, and only float, int and bool can be kept here"
    raise KeyError(f"{why}; there are: {', '.join(allowed)}")
