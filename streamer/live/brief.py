"""What a worker does, in one line: state, rate, lag and when it will be gone, latency. Lines of several workers make one."""

from collections.abc import Sequence

import msgspec

from streamer.live.numbers import END_TO_END, Watch
from streamer.live.view import duration
from streamer.telemetry.plain import plain

# A child of `--workers` writes its numbers between its log lines, behind this; no line of ours begins with a control.
MARK = "\x1e"


class Brief(msgspec.Struct, frozen=True):
    """The numbers of the line; seconds are None where they are not known, or without end."""

    state: str
    cause: str
    good: bool
    rate: float
    lag: float
    lag_s: float | None
    catch_up_s: float | None
    p50_s: float
    p99_s: float

    @staticmethod
    def of(watch: Watch, now: float) -> "Brief":
        """Look once."""
        seen, status = watch.look(now), watch.status()
        p50, p99 = watch.latency()[END_TO_END]
        catch_up = seen.catch_up_s if seen.catch_up_s < float("inf") else None
        return Brief(status.word, status.cause, status.good, watch.rates().done, seen.lag, seen.lag_s, catch_up, p50, p99)

    def __str__(self) -> str:
        lag = f"lag {self.lag:,.0f}"
        if self.lag:
            old = "" if self.lag_s is None else f"{_about(self.lag_s)} old, "
            lag += f" ({old}{'growing' if self.catch_up_s is None else f'gone in {_about(self.catch_up_s)}'})"
        return plain(
            f"{self.state}  {self.rate:,.0f}/s  {lag}  p50 {duration(self.p50_s)} p99 {duration(self.p99_s)}  {self.cause}"
        )


def together(parts: Sequence[Brief], workers: int) -> str:
    """One line of several workers: sums, and the worst of what does not add up."""
    if not parts:
        return f"starting  {workers} workers"
    worst = min(parts, key=lambda part: part.good)
    behind = [part for part in parts if part.lag]
    catch_up = [part.catch_up_s for part in behind]
    whole = Brief(
        worst.state, worst.cause, worst.good, sum(part.rate for part in parts), sum(part.lag for part in parts),
        max((part.lag_s for part in behind if part.lag_s is not None), default=None),
        None if None in catch_up else max(filter(None, catch_up), default=0.0),
        max(part.p50_s for part in parts), max(part.p99_s for part in parts),
    )  # fmt: skip
    return f"{len(parts)} of {workers} workers  {whole}"


def _about(seconds: float) -> str:
    """A time as one would say it."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
