"""The status line: right numbers, one line that refreshes below the log, one of several workers, none without a terminal."""

import io
import re
import sys
import threading

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from streamer.cli import app
from streamer.cli.foot import CHILD, Foot, ParentFoot
from streamer.live.brief import MARK, Brief, together
from streamer.live.line import StatusLine
from streamer.live.numbers import Watch
from streamer.live.view import Frame, draw
from streamer.telemetry.metrics import Metrics

BUSY = Brief("running", "keeps up with its input", good=True, rate=1200, lag=0, lag_s=0, catch_up_s=0, p50_s=0.019, p99_s=0.036)
BEHIND = Brief("behind", "the model is full", good=False, rate=800, lag=5000, lag_s=130, catch_up_s=8.4, p50_s=1, p99_s=2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(written: str) -> list[str]:
    """What a terminal shows: the carriage return goes back, and what follows it erases the line."""
    return [line.rsplit("\r\x1b[K", 1)[-1] for line in written.split("\n")]


def test_it_stays_below_what_is_logged() -> None:
    terminal = Terminal()
    line = StatusLine(terminal)
    line.write("first\n")
    line.show("running 1/s")
    line.write("second\n")
    line.show("running 2/s")
    assert screen(terminal.getvalue()) == ["first", "second", "running 2/s"]
    line.show("")
    line.write("third\n")
    assert screen(terminal.getvalue()) == ["first", "second", "third", ""]


def test_it_never_wraps_and_never_steers_the_terminal() -> None:
    terminal = Terminal()
    StatusLine(terminal).show("x" * 500 + "\n")
    StatusLine(terminal).show("a\x1b[2Jb\nc")
    first, second = terminal.getvalue().split("\r\x1b[K")[1:]
    assert len(first) == 79
    assert second == "a\\x1b[2Jb\\x0ac"


def test_it_refreshes_while_the_block_runs_and_is_gone_behind_it() -> None:
    terminal, shown = Terminal(), threading.Event()

    def line() -> str:
        shown.set()
        return "running"

    with StatusLine(terminal).refreshed(line):
        assert shown.wait(30)
    assert screen(terminal.getvalue()) == [""]


def test_numbers_of_one_worker() -> None:
    metrics = Metrics()
    metrics.set("streamer_partitions_assigned", 2)
    watch = Watch(metrics)
    watch.look(100.0)
    metrics.add("streamer_records_total", 900, "predicted")
    metrics.add("streamer_records_total", 80, "folded")
    metrics.add("streamer_records_total", 20, "dead")
    metrics.add("streamer_records_total", 1000, "rekeyed")
    for partition, lag, seconds, left in ("0", 300, 4.0, 9.0), ("1", 0, 0.0, 0.0):
        metrics.set("streamer_consumer_lag_records", lag, "t", partition)
        metrics.set("streamer_consumer_lag_seconds", seconds, "t", partition)
        metrics.set("streamer_catch_up_seconds", left, "t", partition)
    brief = Brief.of(watch, 102.0)
    assert (brief.rate, brief.lag, brief.lag_s, brief.catch_up_s) == (500, 300, 4, 9)
    assert str(brief).startswith("running  500/s  lag 300 (4 s old, gone in 9 s)  p50 -")


@pytest.mark.parametrize(
    ("brief", "says"),
    [
        (BUSY, "running  1,200/s  lag 0  p50 19 ms p99 36 ms  keeps up with its input"),
        (BEHIND, "behind  800/s  lag 5,000 (2 min old, gone in 8 s)  p50 1.0 s p99 2.0 s  the model is full"),
        (msgspec.structs.replace(BEHIND, catch_up_s=None, lag_s=None), "lag 5,000 (growing)"),
        (msgspec.structs.replace(BEHIND, catch_up_s=100_000.0), "gone in 28 h"),
    ],
)
def test_a_line_says_when_it_is_over(brief: Brief, says: str) -> None:
    assert says in str(brief)


def test_one_line_of_several_workers() -> None:
    assert together([], 3) == "starting  3 workers"
    assert together([BUSY, BEHIND], 3) == (
        "2 of 3 workers  behind  2,000/s  lag 5,000 (2 min old, gone in 8 s)  p50 1.0 s p99 2.0 s  the model is full"
    )
    assert "growing" in together([BUSY, msgspec.structs.replace(BEHIND, catch_up_s=None)], 2)


def test_without_a_terminal_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert Foot().logs is None
    assert ParentFoot(2).logs is None
    with ParentFoot(2).shown():
        pass
    assert stream.getvalue() == ""


def test_the_parent_shows_what_its_children_tell_and_passes_on_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    foot = ParentFoot(2)
    told = MARK + msgspec.json.encode(BUSY).decode()
    script = f"import os, sys, time\nassert os.environ[{CHILD!r}]\nsys.stderr.write('a line\\n' + {told!r} + '\\n')\n"
    child = foot.start(0, [sys.executable, "-c", script + "sys.stderr.flush()\ntime.sleep(300)"], console=True)
    seen = threading.Event()

    def look() -> None:
        while not foot._briefs:
            if seen.wait(0.01):
                return
        seen.set()

    threading.Thread(target=look, daemon=True).start()
    assert seen.wait(60)
    assert "a line\n" in terminal.getvalue()
    assert MARK not in terminal.getvalue()
    child.kill()
    child.wait()
    for thread in threading.enumerate():
        if thread.name == "streamer-hears-0":
            thread.join(60)
    assert foot._briefs == {}, "one that has ended is not counted"


def test_the_live_view_of_a_worker_reads_no_anomalies_back() -> None:
    watch = Watch(Metrics())
    frame = Frame.of(watch, 1.0, title="t", notice="n", seconds=61.0, fed=None, total=None, anomalies=None)
    console = Console(width=100, height=30, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(draw(frame, 100, 30))
    assert "streamer tail FILE:TOPOLOGY anomalies" in captured.get()
    assert re.search(r"t +01:01", captured.get())


def test_the_live_view_shows_one_worker() -> None:
    refused = CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(app, ["run", "f.py", "--workers", "2", "--live"])
    assert refused.exit_code == 2
    assert "--live shows one worker" in refused.output
