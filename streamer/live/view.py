"""The live view drawn with rich; fits 80 x 24, uses what more there is. State has a word and a pattern, not only a colour."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from streamer.live.numbers import END_TO_END, Rates, Share, Status, Watch
from streamer.telemetry.plain import plain

_CELL = 9
_LEDGER_WIDTH = 31
# Lines of everything but the table at the bottom.
_FIXED_LINES = 13
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_BUSY, _FULL, _IDLE = "green", "red", "bright_black"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What one picture shows.

    Attributes:
        title, notice: what runs, and what a person must know about it.
        seconds: since the start.
        fed, total: events sent so far, and how many there will be (None: not sent by us, no end).
        status, rates, shares, lag, latency: see `Watch`.
        predicted, anomalous, dead: records so far.
        anomalies: newest first, as published; None where they are not read back.
    """

    title: str
    notice: str
    seconds: float
    fed: int | None
    total: int | None
    status: Status
    rates: Rates
    shares: dict[str, Share]
    lag: int
    latency: dict[str, tuple[float, float]]
    predicted: int
    anomalous: int
    dead: int
    anomalies: list[dict[str, Any]] | None

    @staticmethod
    def of(watch: Watch, now: float, **more: Any) -> "Frame":
        """Look once and put everything together; `more` is what the metrics do not know."""
        seen = watch.look(now)
        return Frame(
            status=watch.status(), rates=watch.rates(), shares=watch.shares(), lag=int(seen.lag), latency=watch.latency(),
            predicted=int(seen.predicted), anomalous=int(seen.anomalies), dead=int(seen.dead), **more,
        )  # fmt: skip


def draw(frame: Frame, width: int, height: int) -> RenderableType:
    """The picture for a terminal of this size."""
    return Group(
        _head(frame, width),
        Text(f" {plain(frame.notice)}", style="yellow", no_wrap=True, overflow="ellipsis"),
        _progress(frame, width),
        _status(frame.status),
        Text(),
        *_flow(frame.shares),
        Text(),
        _throughput(frame),
        Text(),
        _bottom(frame, width, max(3, height - _FIXED_LINES)),
    )


def line(frame: Frame) -> str:
    """One line for logs and pipes."""
    of = "" if frame.total is None else f" of {frame.total:,}"
    p50, p99 = frame.latency[END_TO_END]
    return plain(
        f"{frame.seconds:3.0f} s  {frame.status.word}: {frame.status.cause}; fed {frame.fed or 0:,}{of}, "
        f"in {frame.rates.done:,.0f}/s, predictions {frame.predicted:,}, "
        f"anomalies {frame.anomalous:,}, dead letters {frame.dead:,}, lag {frame.lag:,}, "
        f"end to end p50 {duration(p50)} p99 {duration(p99)}"
    )


def duration(seconds: float) -> str:
    """Two digits that matter, with their unit; "-" for nothing measured."""
    if seconds <= 0:
        return "-"
    for factor, unit in ((1e6, "us"), (1e3, "ms"), (1.0, "s")):
        if seconds * factor < 999.5 or unit == "s":
            value = seconds * factor
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    raise AssertionError("seconds are always enough")


def moment(seconds: float) -> str:
    """An event time as month, day, hour and minute, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M")


def drivers(anomaly: dict[str, Any], most: int) -> str:
    """The features that drove an anomaly, as deviations from usual."""
    return "  ".join(f"{driver['feature']} {driver['deviation']:+.1f}" for driver in anomaly.get("drivers", ())[:most])


def _head(frame: Frame, width: int) -> Text:
    of = "" if frame.total is None else f" of {frame.total:,}"
    events = f"{frame.fed:,}{of} events  " if frame.fed is not None else ""
    right = f"{events}{int(frame.seconds) // 60:02d}:{int(frame.seconds) % 60:02d} "
    left = f" {plain(frame.title)}"
    return Text.assemble((left, "bold"), " " * max(1, width - len(left) - len(right)), right, no_wrap=True)


def _progress(frame: Frame, width: int) -> RenderableType:
    if frame.total is None:
        return Text("─" * width, style=_IDLE)
    done = frame.predicted + frame.dead
    return Bar(size=max(frame.total, 1), begin=0, end=done, width=width, color="cyan", bgcolor="bright_black")


def _status(status: Status) -> Text:
    style = "bold black on green" if status.good else "bold white on red"
    return Text.assemble(" ", (f" {status.word.upper()} ", style), f"  {plain(status.cause)}")


def _flow(shares: dict[str, Share]) -> list[Text]:
    """Three lines: the steps in order, a bar each, and what they mostly did."""
    names, bars, words = Text(" "), Text(" "), Text(" ")
    for place, (step, share) in enumerate(shares.items()):
        cell = max(_CELL, len(step))
        names.append(step.ljust(cell)).append("→ " if place < len(shares) - 1 else "", style=_IDLE)
        bars.append_text(_bar(share)).append(" " * (cell - _CELL + 2))
        word, part, style = max(
            (("busy", share.busy, _BUSY), ("full", share.blocked, _FULL), ("idle", 1 - share.busy - share.blocked, _IDLE)),
            key=lambda state: state[1],
        )
        words.append(f"{word} {part:4.0%}".ljust(cell + 2), style=style)
    return [names, bars, words]


def _bar(share: Share) -> Text:
    """Busy solid, full (others wait for it) hatched, idle dotted."""
    eighths = round(share.busy * _CELL * 8)
    busy = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
    full = "▒" * min(_CELL - len(busy), round(share.blocked * _CELL))
    bar = Text(busy, style=_BUSY).append(full, style=_FULL)
    return bar.append("·" * (_CELL - len(busy) - len(full)), style=_IDLE)


def _throughput(frame: Frame) -> RenderableType:
    """Per second and so far, column by column."""
    rates = frame.rates
    columns = (
        ("", "per second", "so far"),
        ("in", f"{rates.done:,.0f}", f"{frame.predicted + frame.dead:,}"),
        ("predictions", f"{rates.predicted:,.0f}", f"{frame.predicted:,}"),
        ("anomalies", f"{rates.anomalies:.1f}", f"{frame.anomalous:,}"),
        ("dead letters", f"{rates.dead:.1f}", f"{frame.dead:,}"),
        ("lag", f"{frame.lag:,}", ""),
    )
    table = Table.grid(padding=(0, 1))
    for place, _ in enumerate(columns):
        table.add_column(justify="left" if place == 0 else "right", width=12)
    for row, style in enumerate((_IDLE, "bold", "default")):
        table.add_row(*(Text(column[row], style=_IDLE if place == 0 else style) for place, column in enumerate(columns)))
    return Padding(table, (0, 0, 0, 1))


def _bottom(frame: Frame, width: int, lines: int) -> RenderableType:
    table = Table.grid(padding=0)
    table.add_column(width=_LEDGER_WIDTH)
    table.add_column(width=width - _LEDGER_WIDTH)
    table.add_row(_ledger(frame.latency), _anomalies(frame, width - _LEDGER_WIDTH, lines))
    return table


def _ledger(latency: dict[str, tuple[float, float]]) -> Text:
    text = Text(f" {'latency':<11}{'p50':>8}{'p99':>8}\n", style="bold", no_wrap=True)
    for part, (p50, p99) in latency.items():
        style = "bold cyan" if part == END_TO_END else "default"
        text.append(
            f" {part:<11}{duration(p50):>8}{duration(p99):>8}\n", style=f"not bold {style}" if style == "default" else style
        )
    return text


def _anomalies(frame: Frame, width: int, lines: int) -> Text:
    text = Text("newest anomalies\n", style="bold", no_wrap=True, overflow="ellipsis")
    if frame.anomalies is None:
        return text.append("streamer tail FILE:TOPOLOGY anomalies", style=f"not bold {_IDLE}")
    most = 3 if width > 80 else 1
    key_width = min(36, width - 22 - 15 * most)
    for anomaly in frame.anomalies[: lines - 1]:
        key = plain(str(anomaly["key"]))
        key = key if len(key) <= key_width else key[: key_width - 1] + "…"
        row = f"{moment(anomaly['time'])} {key:<{key_width}} {anomaly['score']:5.2f}  {plain(drivers(anomaly, most))}"
        text.append(f"{row[: width - 1]}\n", style="not bold")
    if not frame.anomalies:
        text.append("none yet", style=f"not bold {_IDLE}")
    text.rstrip()
    return text
