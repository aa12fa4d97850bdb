"""`streamer demo` as a newcomer without a terminal sees it, and the parts it is made of."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from streamer.demo.recording import BadRecord, Recording
from streamer.demo.run import Outcome
from streamer.demo.summary import lines, spells
from streamer.errors import StreamerError
from streamer.feeding.rows import Row
from streamer.telemetry.metrics import Metrics
from topologies.sensor import Reading

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "streamer", "demo"]
PAUSE_S = 14.0  # longer than the session of its consumer, and than a transaction may take


def number(text: str, name: str) -> int:
    found = re.search(rf"^{name} +([\d,]+)$", text, re.MULTILINE)
    assert found, f"no {name} in\n{text}"
    return int(found[1].replace(",", ""))


class TestWithoutTerminal:
    def test_every_event_has_its_outcome(self) -> None:
        # The environment belongs to other brokers; the demo must not look.
        environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "STREAMER_GROUP": "other"}
        started = time.monotonic()
        done = subprocess.run(
            [*COMMAND, "--rate", "4000"], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert time.monotonic() - started < 60
        total = Recording.load(ROOT / "topologies" / "data", Reading).total
        assert number(done.stdout, "events in") == total
        assert number(done.stdout, "dead letters") == 8
        assert number(done.stdout, "predictions") == total - 8
        assert number(done.stdout, "flags") > 0
        assert re.search(r"^end to end +p50 \S+ m?s, p99 \S+ m?s", done.stdout, re.MULTILINE)
        assert re.search(r"^flagged +\S+", done.stdout, re.MULTILINE)
        known = re.search(r"^known +(\d+) of 18 anomalies", done.stdout, re.MULTILINE)
        assert known
        assert int(known[1]) >= 12, "the model finds most of what people labelled in its own training data"
        assert "in memory" in done.stdout
        assert len(re.findall(r"^ *\d+ s  \w+: ", done.stdout, re.MULTILINE)) >= 3, "a plain line a second"
        assert "\x1b" not in done.stdout
        for reason in (
            "invalid_json",
            "invalid_utf8",
            "key_mismatch",
            "missing_field",
            "null_key",
            "time_too_far_ahead",
            "wrong_type",
        ):
            assert number(done.stdout, f" +{reason}") == 1

    def test_events_without_outcome_are_a_failure(self) -> None:
        impatient = "import streamer.cli.demo as d; d._limit_s = lambda _: 2.0; from streamer.cli import app; app(['demo'])"
        done = subprocess.run(
            [sys.executable, "-c", impatient], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
        )
        assert done.returncode == 1, done.stdout
        assert "error: not every event had its outcome within 2 s" in done.stderr
        assert "every event has its outcome" not in done.stdout

    @pytest.mark.again
    def test_keep_goes_on_after_a_pause_longer_than_its_session(self, kept: "subprocess.Popen[str]") -> None:
        before = predictions(kept)
        kept.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        kept.send_signal(signal.SIGCONT)
        while predictions(kept) < before + 5_000:
            pass
        rest = interrupted(kept)
        outcomes = number(rest, "predictions") + number(rest, "dead letters")
        assert number(rest, "events in") - outcomes == (number(rest, "rolled back") if "rolled back" in rest else 0)

    def test_keep_goes_on_until_told_to_stop(self, kept: "subprocess.Popen[str]") -> None:
        rest = interrupted(kept)
        assert number(rest, "events in") == number(rest, "predictions") + number(rest, "dead letters")


@pytest.fixture
def kept() -> Iterator["subprocess.Popen[str]"]:
    """`demo --keep`, from its first predictions on."""
    process = subprocess.Popen([*COMMAND, "--keep"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        while predictions(process) == 0:
            pass
        yield process
    finally:
        process.kill()
        process.wait()


def predictions(process: "subprocess.Popen[str]") -> int:
    """How many there are, by the next line of a running demo that says so."""
    assert process.stdout is not None
    found = (re.search(r"predictions ([\d,]+),", line) for line in process.stdout if "running" in line)
    return next(int(count[1].replace(",", "")) for count in found if count)


def interrupted(process: "subprocess.Popen[str]") -> str:
    """What a demo says once it is told to stop, which it does in order."""
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    return rest


def write(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")


class TestRecording:
    def test_series_end_together_and_keep_their_order(self, tmp_path: Path) -> None:
        write(tmp_path, "long.csv", "timestamp,value", *(f"{n},{n}" for n in range(100)))
        write(tmp_path, "short.csv", "timestamp,value", *(f"{5000 + n},{n}" for n in range(10)))
        recording = Recording.load(tmp_path, Reading)
        played = list(recording.play(10**15))
        assert len(played) == recording.total == 118
        good = [row for row in played if isinstance(row, Row)]
        for key, rows in ((b"long", 100), (b"short", 10)):
            times = [row.time_us for row in good if row.key == key]
            assert len(times) == rows
            assert times == sorted(times)
            assert times[-1] == 10**15
        places = [place for place, row in enumerate(good) if row.key == b"short"]
        assert max(after - before for before, after in pairwise(places)) <= 12, "played side by side"

    def test_bad_records_are_bad_in_different_ways(self, tmp_path: Path) -> None:
        write(tmp_path, "a.csv", "sensor_id,ts,value", *(f"s1,{n},{n}" for n in range(100)))
        bad = [row for row in Recording.load(tmp_path, Reading).play(0) if isinstance(row, BadRecord)]
        assert len(bad) == 8
        for record in bad:
            try:
                event = msgspec.json.decode(record.value or b"", type=Reading)
            except msgspec.MsgspecError:
                continue
            assert record.key != event.sensor_id.encode() or event.ts > 4e9

    def test_known_anomalies_are_relative_to_the_end(self, tmp_path: Path) -> None:
        write(tmp_path, "a.csv", "timestamp,value", *(f"2014-01-01 00:0{n}:00,{n}" for n in range(9)))
        write(tmp_path, "labels.json", '{"a.csv": [["2014-01-01 00:02:00", "2014-01-01 00:07:00"]], "other.csv": []}')
        assert Recording.load(tmp_path, Reading).known == {"a": [(-360_000_000, -60_000_000)]}

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StreamerError, match="source checkout"):
            Recording.load(tmp_path, Reading)


def test_summary_holds_flags_against_known_anomalies() -> None:
    anomalies = [{"key": "a", "time": time, "score": 1.0} for time in (5.0, 6.0, 99.0)]
    known = {"a": [(4.0, 6.0), (50.0, 60.0)], "b": [(4.0, 6.0)]}
    text = list(lines(Outcome(flagged=3, anomalies=anomalies, known=known), Metrics()))[-1]
    assert text.split(maxsplit=1)[1].startswith("1 of 3 anomalies")
    assert "1 flags lie elsewhere" in text


def test_spells_join_neighbours() -> None:
    hour = 3600.0
    anomalies = [
        {"key": key, "time": time * hour, "score": score}
        for key, time, score in (("a", 1, 0.5), ("a", 30, 0.7), ("a", 2, 0.9), ("b", 2, 0.1))
    ]
    found = spells(anomalies)
    assert [(spell.first, spell.last, spell.flags, spell.score) for spell in found["a"]] == [
        (hour, 2 * hour, 2, 0.9),
        (30 * hour, 30 * hour, 1, 0.7),
    ]
    assert len(found["b"]) == 1
