"""Windows that close: tumbling, hopping and session windows, as a topology declares them."""

from dataclasses import dataclass
from typing import Literal

from streamer.errors import TopologyError, line_of_caller
from streamer.limits import ROWS_PER_BATCH_MAX
from streamer.units import parse_duration_us, parse_samples

Emission = Literal["on_close", "each", "both"]
EMISSIONS: tuple[Emission, ...] = ("on_close", "each", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Slices [start, end) of event time, for each key its own.

    Attributes:
        kind: "tumbling", "hopping" or "session".
        samples: most samples a key keeps over all its open windows.
        size_us, every_us: width of a window and distance of their starts, microseconds; 0 for sessions.
        gap_us: a session ends when its key was silent for so long, microseconds; 0 for others.
        late_us: a window closes when the watermark is this far behind its end, microseconds.
        idle_us: a silent partition closes its windows after this, microseconds of our clock; 0 for never.
    """

    kind: str
    samples: int
    size_us: int
    every_us: int
    gap_us: int
    late_us: int
    idle_us: int

    names: tuple[str | int, ...] = ("window",)
    ttl_us: int = 0
    resolution_us: int = 0
    by_time: bool = False
    widest: int = 0

    @property
    def looks(self) -> tuple[int, ...]:
        """One look: the window itself, of at most so many samples."""
        return (self.samples,)


def tumbling(size: str, *, late: str = "0s", idle: str | None = None, max_samples: int = 256) -> Closing:
    """Windows of equal width beside each other, cut at whole multiples since the epoch: each event is in one.

    Args:
        size: width in event time, such as "60s".
        late: grace: the window [start, end) closes when the watermark, the largest event time of the partition, reaches
            end + late. Later events go to the topic `.publish(late=...)`.
        idle: close the windows of a partition that has been silent for so long, by our clock; without it they wait for
            the next event.
        max_samples: most samples kept for a key over all its open windows; beyond it the oldest are dropped and counted in
            `streamer_window_truncated_total`.

    Raises:
        TopologyError: a size out of range; the message starts with the line.
    """
    return _checked("tumbling", size=size, every=size, gap=None, late=late, idle=idle, max_samples=max_samples)


def hopping(size: str, *, every: str, late: str = "0s", idle: str | None = None, max_samples: int = 256) -> Closing:
    """Windows of equal width that start every so often and overlap: an event is in size / every of them.

    `every` is the distance of their starts, such as "10s", and an event is in 2,048 windows at most;
    everything else is as for `tumbling`.
    """
    return _checked("hopping", size=size, every=every, gap=None, late=late, idle=idle, max_samples=max_samples)


def session(*, gap: str, late: str = "0s", idle: str | None = None, max_samples: int = 256) -> Closing:
    """Windows as long as the key is active: events less than `gap` apart are in one, which ends a gap after the last.

    An event that lies between two sessions that have not closed joins them into one. Everything else is as for `tumbling`.
    """
    return _checked("session", size=None, every=None, gap=gap, late=late, idle=idle, max_samples=max_samples)


def _checked(
    kind: str, *, size: str | None, every: str | None, gap: str | None, late: str, idle: str | None, max_samples: int
) -> Closing:
    try:
        return _closing(kind, {"size": size, "every": every, "gap": gap, "late": late, "idle": idle}, max_samples)
    except ValueError as error:
        raise TopologyError(f"{line_of_caller(2)}: {kind}(): {error}") from error


def _closing(kind: str, widths: dict[str, str | None], max_samples: int) -> Closing:
    us = {name: 0 if text is None else parse_duration_us(text) for name, text in widths.items()}
    for name in ("size", "every", "gap", "idle"):
        if widths[name] is not None and us[name] < 1:
            raise ValueError(f"{name} is at least a microsecond, not {widths[name]!r}")
    if us["every"] > us["size"]:
        raise ValueError(f"every={widths['every']!r} is longer than the window: events between two windows would be in none")
    # The windows of one event close one by one, but together when the watermark jumps: they must fit into a batch.
    if us["every"] and (hops := -(-us["size"] // us["every"])) > ROWS_PER_BATCH_MAX:
        raise ValueError(f"every={widths['every']!r} puts an event into {hops:,} windows, {ROWS_PER_BATCH_MAX:,} is the most")
    return Closing(
        kind=kind,
        samples=parse_samples(max_samples),
        size_us=us["size"],
        every_us=us["every"],
        gap_us=us["gap"],
        late_us=us["late"],
        idle_us=us["idle"],
    )
