"""Where rows come from, when they go, and that each delivery is accounted for; on a manual clock, without a broker."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from streamer import Event
from streamer.clock import ManualClock
from streamer.feeding.files import Files
from streamer.feeding.generator import Generator
from streamer.feeding.pace import Pace, shift_to_now_us
from streamer.feeding.rows import FeedError, Row, row_of
from streamer.feeding.send import Feeder
from tests.kit.fed import FakeProducer

if TYPE_CHECKING:
    from confluent_kafka import Producer


class Reading(Event, topic="readings", key="sensor_id", time="ts"):
    sensor_id: str
    ts: float
    value: float


class InMs(Event, topic="ms", key="id", time="at", time_unit="ms"):
    id: int
    at: int
    ok: bool
    note: str = "-"


class Iso(Event, topic="iso", key="id", time="at", time_unit="iso"):
    id: str
    at: datetime


class Timeless(Event, topic="plain"):
    value: float


class Mixed(Event, topic="mixed", key="id"):
    id: str
    tags: list[str]


def csv(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def refuse(problem: str) -> None:
    raise FeedError(problem)


def read(*paths: Path, event: type[Event] = Reading, key_from_file: bool = False) -> list[Row]:
    return list(Files(list(paths), event, refuse, key_from_file).rows())


class TestCsv:
    def test_header_names_fields(self, tmp_path: Path) -> None:
        rows = read(csv(tmp_path, "a.csv", "value,unused,sensor_id,ts", "1.5,x,s1,100.25"))
        assert rows == [Row(Reading("s1", 100.25, 1.5), 100_250_000)]
        assert rows[0].key == b"s1"
        assert msgspec.json.decode(rows[0].value) == {"sensor_id": "s1", "ts": 100.25, "value": 1.5}

    def test_benchmark_style(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "pump-3.csv", "timestamp,value", "2014-07-01 00:00:00,7")
        assert read(path, key_from_file=True) == [Row(Reading("pump-3", 1_404_172_800.0, 7.0), 1_404_172_800_000_000)]

    def test_missing_key_column_shows_the_way(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "pump-3.csv", "timestamp,value", "2014-07-01 00:00:00,7")
        with pytest.raises(FeedError, match=r"no column sensor_id for Reading.*--key-from-file"):
            read(path)

    @pytest.mark.parametrize("value", ["abc", "", "nan", "inf"])
    def test_bad_value_names_the_line(self, tmp_path: Path, value: str) -> None:
        path = csv(tmp_path, "a.csv", "sensor_id,ts,value", "s1,1,1", f"s1,2,{value}", "s1,3,3")
        with pytest.raises(FeedError, match=r"a\.csv:3: "):
            read(path)

    def test_bad_rows_can_be_left_out(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "a.csv", "sensor_id,ts,value", "s1,1,1", "s1,soon,2", "s1,3", "s1,4,4")
        problems: list[str] = []
        files = Files([path], Reading, problems.append)
        assert [row.time_us for row in files.rows()] == [1_000_000, 4_000_000]
        assert len(problems) == 2
        assert list(files.times_us()) == [1_000_000, 4_000_000]
        assert len(problems) == 2, "looking at the times tells nothing twice"

    def test_other_units(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "a.csv", "id,at,ok", "7,1500,true", "7,1970-01-01T00:00:02.500Z,0")
        assert read(path, event=InMs) == [Row(InMs(7, 1500, True), 1_500_000), Row(InMs(7, 2500, False), 2_500_000)]
        iso = read(csv(tmp_path, "b.csv", "id,at", "x,1970-01-01T00:00:02+00:00"), event=Iso)
        assert iso[0].time_us == 2_000_000


class TestNdjson:
    def test_objects(self, tmp_path: Path) -> None:
        path = csv(
            tmp_path, "a.ndjson", '{"sensor_id":"s1","ts":1,"value":2,"more":0}', "", '{"sensor_id":"s2","ts":2,"value":3}'
        )
        assert [row.key for row in read(path)] == [b"s1", b"s2"]

    @pytest.mark.parametrize("line", ['{"sensor_id":"s1"', "[1]", '{"sensor_id":"s1","ts":1,"value":"2"}', "[" * 100_000])
    def test_bad_line(self, tmp_path: Path, line: str) -> None:
        path = csv(tmp_path, "a.jsonl", '{"sensor_id":"s1","ts":1,"value":2}', line)
        with pytest.raises(FeedError, match=r"a\.jsonl:2: "):
            read(path)


class TestFiles:
    def test_merged_by_event_time(self, tmp_path: Path) -> None:
        paths = [
            csv(tmp_path, "a.csv", "timestamp,value", "1,0", "4,0", "5,0"),
            csv(tmp_path, "b.csv", "timestamp,value", "2,0", "3,0", "6,0"),
        ]
        rows = read(*paths, key_from_file=True)
        assert [row.time_us // 1_000_000 for row in rows] == [1, 2, 3, 4, 5, 6]
        assert [row.key for row in rows] == [b"a", b"b", b"b", b"a", b"a", b"b"]

    def test_total_bounds_the_rows(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "a.csv", "sensor_id,ts,value", "s1,1,1")
        assert Files([path], Reading, refuse).total() == 2

    @pytest.mark.parametrize(("name", "message"), [("none.csv", "cannot read"), ("a.parquet", "what kind of file")])
    def test_unreadable(self, tmp_path: Path, name: str, message: str) -> None:
        with pytest.raises(FeedError, match=message):
            read(tmp_path / name)

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(b"sensor_id,ts,value\n\xff\xfe,1,1\n")
        with pytest.raises(FeedError, match="not UTF-8"):
            read(path)

    def test_key_from_file_needs_a_key(self, tmp_path: Path) -> None:
        with pytest.raises(FeedError, match="Timeless has no key field"):
            read(csv(tmp_path, "a.csv", "value", "1"), event=Timeless, key_from_file=True)


class TestGenerator:
    def test_goes_round_the_keys_and_repeats(self) -> None:
        generator = Generator(Reading, keys=3, count=7, spacing_us=500_000)
        rows = list(generator.rows())
        assert [row.key for row in rows] == [b"sensor-00", b"sensor-01", b"sensor-02"] * 2 + [b"sensor-00"]
        assert [row.time_us for row in rows] == [n * 500_000 for n in range(7)] == list(generator.times_us())
        assert rows == list(generator.rows())
        assert len({cast("Reading", row.event).value for row in rows}) == 7

    def test_without_end(self) -> None:
        generator = Generator(Reading, keys=2, count=None, spacing_us=1000)
        assert len(list(islice(generator.rows(), 50))) == 50
        assert list(generator.times_us()) == [0]
        assert generator.total() is None

    def test_other_types(self) -> None:
        rows = list(Generator(InMs, keys=2, count=4, spacing_us=1_000_000).rows())
        assert [cast("InMs", row.event).at for row in rows] == [0, 1000, 2000, 3000]
        assert [row.key for row in rows] == [b"0", b"1", b"0", b"1"]
        assert [row.time_us for row in Generator(Iso, keys=1, count=2, spacing_us=1_000_000).rows()] == [0, 1_000_000]
        assert msgspec.json.decode(rows[0].value, type=InMs) == rows[0].event

    def test_says_what_it_cannot_make(self) -> None:
        with pytest.raises(FeedError, match=r"Mixed\.tags is list"):
            next(Generator(Mixed, keys=1, count=1, spacing_us=1).rows())


class TestTimes:
    @pytest.mark.parametrize(
        "event",
        [Reading("a", 12.5, 0.0), InMs(1, 12_500, True), Iso("a", datetime.fromisoformat("1970-01-01T00:00:12.500+00:00"))],
    )
    def test_moved_in_any_unit(self, event: Event) -> None:
        row = row_of(event)
        assert row.time_us == 12_500_000
        moved = row.moved(1_000_000)
        assert moved.time_us == 13_500_000
        assert row_of(moved.event) == moved, "the event itself says so too"
        assert type(getattr(moved.event, type(event).__event__.time or "")) is type(
            getattr(event, type(event).__event__.time or "")
        )

    def test_no_time_stays(self) -> None:
        assert row_of(Timeless(1.0)).moved(5) == Row(Timeless(1.0), 0)


class TestPace:
    def test_flat_out_the_last_is_now(self) -> None:
        assert shift_to_now_us([10, 20, 30], Pace(), 1_000) == 970

    def test_in_real_time_the_first_is_now(self) -> None:
        times = [5_000_000, 7_000_000, 9_000_000]
        shift = shift_to_now_us(times, Pace(speed=1), 100_000_000)
        assert times[0] + shift == 100_000_000

    @pytest.mark.parametrize("pace", [Pace(), Pace(rate=1), Pace(rate=1000), Pace(speed=0.5), Pace(speed=1), Pace(speed=60)])
    def test_none_ahead_of_its_sending_and_one_exactly_then(self, pace: Pace) -> None:
        times, now_us = [0, 3_000_000, 300_000_000, 301_000_000, 302_000_000], 10**15
        shift = shift_to_now_us(times, pace, now_us)
        ahead = [time + shift - now_us - round(pace.due_s(number, time) * 1e6) for number, time in enumerate(times)]
        assert max(ahead) == 0

    def test_nothing_to_move(self) -> None:
        assert shift_to_now_us([], Pace(), 5) == 0


class SilentProducer(FakeProducer):
    def poll(self, timeout: float) -> None:
        self.clock.advance(timeout)

    def flush(self, timeout: float) -> int:
        self.clock.advance(timeout)
        return len(self.waiting)


def rows(count: int, spacing_us: int = 1_000_000) -> Iterator[Row]:
    return (Row(Reading("s1", n * spacing_us / 1e6, 1.0), n * spacing_us) for n in range(count))


def feeder_on(producer: FakeProducer, **more: Any) -> Feeder:
    return Feeder(cast("Producer", producer), "readings", producer.clock, **more)


class TestFeeder:
    @pytest.mark.parametrize(
        ("pace", "expected"),
        [(Pace(), [0.0, 0.0, 0.0, 0.0]), (Pace(rate=2), [0.0, 0.5, 1.0, 1.5]), (Pace(speed=10), [0.0, 0.1, 0.2, 0.3])],
    )
    def test_keeps_the_pace(self, pace: Pace, expected: list[float]) -> None:
        clock = ManualClock()
        producer = FakeProducer(clock)
        start = clock.monotonic()
        feeder = feeder_on(producer)
        feeder.feed(rows(4), pace)
        assert [round(at - start, 2) for at, _, _ in producer.sent] == expected
        assert (feeder.sent, feeder.delivered, feeder.failed) == (4, 4, 0)

    def test_full_queue_waits_and_loses_nothing(self) -> None:
        producer = FakeProducer(ManualClock(), room=3)
        feeder = feeder_on(producer)
        feeder.feed(rows(20), Pace())
        assert [value for _, _, value in producer.sent] == [row.value for row in rows(20)]
        assert (feeder.delivered, producer.most_waiting) == (20, 3)

    def test_counts_failures(self) -> None:
        feeder = feeder_on(FakeProducer(ManualClock(), refuse_every=5))
        feeder.feed(rows(20), Pace())
        assert (feeder.sent, feeder.delivered, feeder.failed) == (20, 16, 4)
        assert "timed out" in feeder.last_error.lower()

    def test_silence_is_a_failure(self) -> None:
        feeder = feeder_on(SilentProducer(ManualClock()))
        feeder.feed(rows(3), Pace())
        assert (feeder.delivered, feeder.failed) == (0, 3)
        assert "no answer" in feeder.last_error

    def test_waits_while_held_and_ends_when_stopped(self) -> None:
        clock = ManualClock()
        producer, start = FakeProducer(clock), clock.monotonic()
        feeder = feeder_on(producer, hold=lambda: clock.monotonic() < start + 5, stopped=lambda: clock.monotonic() > start + 6)
        feeder.feed(rows(1000), Pace(rate=1))
        assert producer.sent[0][0] >= start + 5
        assert 0 < len(producer.sent) < 1000

    def test_what_was_read_before_an_error_is_delivered(self) -> None:
        def broken() -> Iterator[Row]:
            yield from rows(3)
            raise FeedError("a.csv:5: bad")

        feeder = feeder_on(FakeProducer(ManualClock()))
        with pytest.raises(FeedError):
            feeder.feed(broken(), Pace())
        assert feeder.delivered == 3
