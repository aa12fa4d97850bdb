"""`rolling`: a window that moves with every event of its key, as a topology declares it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from streamer.errors import TopologyError, line_of_caller
from streamer.limits import SAMPLES_PER_KEY_MAX, TICKS_PER_WAIT
from streamer.units import Duration, parse_duration_us, parse_samples, span_name

# Rolling windows wait no longer than a step of time for a partition that is silent; in these bounds, since a shorter silence
# may be the network's, and a longer one might never be over where workers come and go.
_SILENCE_S_MIN, _SILENCE_S_MAX = 1.0, 60.0


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
    *spans: Duration,
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
            raise ValueError("a rolling window never closes; leave grace= and idle_timeout= to windows that do")  # noqa: TRY301 - told below
        window = _rolling(tuple(map(span_name, spans)), count, 256 if max_samples is None else max_samples, ttl)
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
