"""Windows that close: tumbling, hopping and session windows, as a topology declares them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from streamer.errors import TopologyError, line_of_caller
from streamer.limits import ROWS_PER_BATCH_MAX, TICKS_PER_WAIT
from streamer.renamed import knows_old_names
from streamer.units import Duration, parse_duration_us, parse_samples

Emission = Literal["on_close", "each", "both"]
EMISSIONS: tuple[Emission, ...] = ("on_close", "each", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Slices [start, end) of event time, for each key its own.

    Attributes:
        kind: "tumbling", "hopping" or "session".
        samples: most samples a key keeps over all its open windows.
        size_us, hop_us: width of a window and distance of their starts, microseconds; 0 for sessions.
        gap_us: a session ends when its key was silent for so long, microseconds; 0 for others.
        grace_us: a window closes when the watermark is this far behind its end, microseconds.
        idle_timeout_us: a silent partition closes its windows after this, microseconds of our clock; 0 for never.
    """

    kind: str
    samples: int
    size_us: int
    hop_us: int
    gap_us: int
    grace_us: int
    idle_timeout_us: int

    names: tuple[str | int, ...] = ("window",)
    ttl_us: int = 0
    resolution_us: int = 0
    by_time: bool = False
    widest: int = 0

    closes: ClassVar[bool] = True

    @property
    def silence_s(self) -> float:
        """The silence after which a partition of the source does not hold windows back any more, seconds; 0 for never."""
        return self.idle_timeout_us / 1e6

    @property
    def moments_us(self) -> tuple[int, int, int, int]:
        """When time changes anything: step and offset of the moments, and to what event times are rounded down and added."""
        if self.gap_us:
            return max(1, self.gap_us // TICKS_PER_WAIT), 0, 1, self.gap_us + self.grace_us
        # A window ends at a multiple of `hop` after its width, and closes so much later.
        return self.hop_us, self.size_us + self.grace_us, self.hop_us, self.size_us + self.grace_us

    @property
    def looks(self) -> tuple[int, ...]:
        """One look: the window itself, of at most so many samples."""
        return (self.samples,)


@knows_old_names
def tumbling(size: Duration, *, grace: Duration = "0s", idle_timeout: Duration | None = None, max_samples: int = 256) -> Closing:
    """Windows of equal width beside each other, cut at whole multiples since the epoch: each event is in one.

    Args:
        size: width in event time, such as "60s".
        grace: the window [start, end) closes when the watermark, the largest event time of the partition, reaches
            end + grace. Later events go to the topic `.publish(late_events=...)`.
        idle_timeout: close the windows of a partition that has been silent for so long, by our clock; without it they wait for
            the next event.
        max_samples: most samples kept for a key over all its open windows; beyond it the oldest are dropped and counted in
            `streamer_window_truncated_total`.

    Raises:
        TopologyError: a size out of range; the message starts with the line.
    """
    return _checked("tumbling", size=size, hop=size, grace=grace, idle_timeout=idle_timeout, max_samples=max_samples)


@knows_old_names
def hopping(
    size: Duration, *, hop: Duration, grace: Duration = "0s", idle_timeout: Duration | None = None, max_samples: int = 256
) -> Closing:
    """Windows of equal width that start every so often and overlap: an event is in size / hop of them.

    `hop` is the distance of their starts, such as "10s", and an event is in 2,048 windows at most;
    everything else is as for `tumbling`.
    """
    return _checked("hopping", size=size, hop=hop, grace=grace, idle_timeout=idle_timeout, max_samples=max_samples)


@knows_old_names
def session(*, gap: Duration, grace: Duration = "0s", idle_timeout: Duration | None = None, max_samples: int = 256) -> Closing:
    """Windows as long as the key is active: events less than `gap` apart are in one, which ends a gap after the last.

    An event that lies between two sessions that have not closed joins them into one. Everything else is as for `tumbling`.
    """
    return _checked("session", gap=gap, grace=grace, idle_timeout=idle_timeout, max_samples=max_samples)


def _checked(kind: str, *, max_samples: int, **widths: Duration | None) -> Closing:
    try:
        return _closing(kind, max_samples, widths)
    except ValueError as error:
        raise TopologyError(f"{line_of_caller()}: {kind}(): {error}") from error


def _closing(kind: str, max_samples: int, widths: dict[str, Duration | None]) -> Closing:
    us = {name: parse_duration_us(width) for name, width in widths.items() if width is not None}
    for name in ("size", "hop", "gap", "idle_timeout"):
        if us.get(name, 1) < 1:
            raise ValueError(f"{name} is at least a microsecond, not {widths[name]!r}")
    size_us, hop_us = us.get("size", 0), us.get("hop", 0)
    if hop_us > size_us:
        raise ValueError(f"hop={widths['hop']!r} is longer than the window: events between two windows would be in none")
    # The windows of one event close one by one, but together when the watermark jumps: they must fit into a batch.
    if hop_us and (hops := -(-size_us // hop_us)) > ROWS_PER_BATCH_MAX:
        raise ValueError(f"hop={widths['hop']!r} puts an event into {hops:,} windows, {ROWS_PER_BATCH_MAX:,} is the most")
    return Closing(
        kind=kind, samples=parse_samples(max_samples), size_us=size_us, hop_us=hop_us, gap_us=us.get("gap", 0),
        grace_us=us["grace"], idle_timeout_us=us.get("idle_timeout", 0),
    )  # fmt: skip
