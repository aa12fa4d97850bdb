"""Files as people have them: each row is read as it stands or refused with its line; none is lost and none is guessed."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from streamer import Event
from streamer.feeding.files import Files
from streamer.feeding.rows import FeedError
from streamer.limits import FEED_LINE_CHARS_MAX

HEAD = "sensor_id,ts,value,note\n"


class Reading(Event, topic="readings", key="sensor_id", time="ts"):
    sensor_id: str
    ts: float
    value: float


class Noted(Event, topic="noted", key="sensor_id", time="ts"):
    sensor_id: str
    ts: float = 0.0
    value: float = 1.5
    note: str = "-"
    high: int | None = None


class Nullable(Event, topic="nullable", key="sensor_id"):
    sensor_id: str
    value: float | None
    note: str | None
    text: str


class Renamed(Event, topic="renamed", key="sensor", time="at", rename="camel"):
    sensor: str
    at: float
    a_value: float


@pytest.fixture(name="write")
def _write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "a.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


Write = Callable[..., Path]


def read(path: Path, event: type[Event] = Reading) -> tuple[list[object], list[str]]:
    """Events, and what was refused; an error that ends the reading is the last of those."""
    events, refused = list[object](), list[str]()
    try:
        events.extend(row.event for row in Files([path], event, refused.append).rows())
    except FeedError as error:
        refused.append(f"END {error}")
    return events, [problem.replace(str(path), path.name) for problem in refused]


def ids(events: list[object]) -> list[str]:
    return [event.sensor_id for event in events]  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- quotes


@pytest.mark.parametrize(
    "text",
    [
        's1,1,1,a\ns2,2,2,"oops\ns3,3,3,c\ns4,4,4,d\n',
        's1,1,1,a\ns2,2,2,"oops\ns3,3,3,"c"\ns4,4,4,d\n',
        's1,1,1,a\ns2,2,2,"oops\ns3,3,3,c\ns4,4,4,"\n',
        's1,1,1,a\ns2,2,2,"oops\ns3,3,3,c\ns4,4,4,d"\ns5,5,5,e\n',
        's1,1,1,a\r\ns2,2,2,"oops\r\ns3,3,3,c\r\n',
    ],
)
def test_a_quote_that_is_not_closed_swallows_no_rows(write: Write, text: str) -> None:
    """In a column that nobody reads, too."""
    events, refused = read(write(HEAD + text))
    assert ids(events) == ["s1"]
    assert len(refused) == 1
    assert refused[0].startswith("END a.csv:3: a quote that opens in this row")


def test_a_quote_in_the_last_line_concerns_that_line(write: Write) -> None:
    events, refused = read(write(HEAD + 's1,1,1,a\ns2,2,2,"oops\n'))
    assert (ids(events), [problem[:9] for problem in refused]) == (["s1"], ["a.csv:3: "])


def test_a_quote_in_the_wrong_place_concerns_its_row(write: Write) -> None:
    events, refused = read(write(HEAD + 's1,1,1,"a"b\ns2,2,2,5" disk\ns3,3,3,"5"" disk"\n'))
    assert ids(events) == ["s2", "s3"]
    assert [problem[:9] for problem in refused] == ["a.csv:2: "]


def test_cells_may_have_lines(write: Write) -> None:
    text = HEAD + 's1,1,1,"first\nsecond, third\r\n\nlast"\n\ns2,2,2,\ns3,3,x,"a\nb"\n'
    events, refused = read(write(text), Noted)
    assert [event.note for event in events] == ["first\nsecond, third\r\n\nlast", "-"]  # type: ignore[attr-defined]
    assert [problem.partition(": ")[0] for problem in refused] == ["a.csv:8"], "the line where the row begins"


# ---------------------------------------------------------------------- cells


@pytest.mark.parametrize("row", ["s2,2,2,a,5", "s2,2,2,a,", "s2,2,2", "s2", ",,", " "])
def test_a_row_has_as_many_cells_as_there_are_columns(write: Write, row: str) -> None:
    events, refused = read(write(f"{HEAD}s1,1,1,a\n{row}\ns3,3,3,c\n"))
    assert ids(events) == ["s1", "s3"]
    assert refused == [f"a.csv:3: {row.count(',') + 1} cells for 4 columns"]


def test_a_short_row_is_not_filled_up(write: Write) -> None:
    events, refused = read(write("sensor_id,value,note,text\ns1,1\n"), Nullable)
    assert (events, refused) == ([], ["a.csv:2: 2 cells for 4 columns"])


def test_an_empty_cell_takes_the_default(write: Write) -> None:
    events, refused = read(write("sensor_id,ts,value,note,high\ns1,,,,\ns2,7,2.5,n,3\n,1,1,a,1\n"), Noted)
    assert events == [Noted("s1"), Noted("s2", 7.0, 2.5, "n", 3), Noted("", 1.0, 1.0, "a", 1)]
    assert refused == []


def test_an_empty_cell_without_a_default_is_null_or_empty_text_or_refused(write: Write) -> None:
    events, refused = read(write("sensor_id,value,note,text\ns1,,,\n"), Nullable)
    assert (events, refused) == ([Nullable("s1", None, "", "")], [])
    events, refused = read(write("sensor_id,ts,value\ns1,1,\ns2,,2\n"))
    assert (events, [problem[:9] for problem in refused]) == ([], ["a.csv:2: ", "a.csv:3: "])


@pytest.mark.parametrize("length", [200_000, FEED_LINE_CHARS_MAX // 2])
def test_long_cells(write: Write, length: int) -> None:
    events, refused = read(write(f"{HEAD}s1,1,1,{'x' * length}\ns2,2,2,b\n"), Noted)
    assert refused == []
    assert [len(event.note) for event in events] == [length, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["a.csv", "a.ndjson"])
def test_a_line_without_an_end_is_no_line(write: Write, name: str) -> None:
    good = "s1,1,1,a" if name == "a.csv" else '{"sensor_id":"s1","ts":1,"value":1}'
    events, refused = read(write((HEAD if name == "a.csv" else "\n") + f"{good}\n{'x' * FEED_LINE_CHARS_MAX}", name))
    assert ids(events) == ["s1"]
    assert refused[0].startswith(f"END {name}:3: a line of more than 16,777,216")


# ---------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffsensor_id,ts,value\ns1,1,1\n",
        "\r\n\r\nsensor_id,ts,value\r\ns1,1,1\r\n\r\n",
        "sensor_id,ts,value\rs1,1,1\r",
        "sensor_id;ts;value\ns1;1;1\n",
        '"sensor_id";"ts";"value"\n"s1";"1";"1"\n',
        "sensor_id\tts\tvalue\ns1\t1\t1",
        "sensor_id|ts|value|a,b\ns1|1|1|x,y\n",
        "sensor_id, ts , value\ns1,1,1\n",
        "sensor_id,ts,,value,\ns1,1,x,1,y\n",
        "sensor_id,a,ts,a,value\ns1,x,1,y,1\n",
        '"two\nlines",sensor_id,ts,value\nx,s1,1,1\n',
    ],
)
def test_headers_as_people_have_them(write: Write, text: str) -> None:
    for name in ("a.csv", "a.tsv"):
        assert read(write(text, name)) == ([Reading("s1", 1.0, 1.0)], [])


def test_a_column_that_is_read_stands_there_once(write: Write) -> None:
    events, refused = read(write("sensor_id,ts,value,value\ns1,1,1,2\n"))
    assert events == []
    assert refused[0].startswith("END a.csv: several columns are called value; which one is meant?")


@pytest.mark.parametrize("text", ["", "\n\n", "s1,1,1\n", "sensor_id;ts,value\ns1;1,1\n", '"sensor_id,ts,value\ns1,1,1\n'])
def test_no_header(write: Write, text: str) -> None:
    events, refused = read(write(text))
    assert events == []
    assert refused[0].startswith("END a.csv: no column ")


def test_a_header_without_any_field_is_none(write: Write) -> None:
    class Defaults(Event, topic="defaults"):
        value: float = 0.0

    events, refused = read(write("a,b\n1,2\n"), Defaults)
    assert (events, refused) == ([], ["END a.csv: no column of any field for Defaults; its columns are a, b"])


def test_names_are_those_of_the_json(write: Write) -> None:
    assert read(write("sensor,at,aValue\ns1,1,2\n"), Renamed) == ([Renamed("s1", 1.0, 2.0)], [])


# ---------------------------------------------------------------------- bytes


def test_another_encoding_is_told_with_its_line(write: Write) -> None:
    """And only where it is read."""
    path = write(b"sensor_id,ts,value,note\ns1,1,1,caf\xe9\ns\xe92,2,2,b\ns3,3,3,c\n")
    events, refused = read(path)
    assert ids(events) == ["s1", "s3"]
    assert refused == ["a.csv:3: sensor_id is not UTF-8 (byte 0xe9); convert the file to UTF-8 first"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(write: Write, encoding: str) -> None:
    _, refused = read(write("sensor_id,ts,value\ns1,1,1\n".encode(encoding)))
    assert "UTF-16" in refused[0]


def test_nul_bytes_are_what_they_are(write: Write) -> None:
    events, refused = read(write("sensor_id,ts,value\ns\x001,1,1\ns2,2,2\x00\ns3,3,3\n"))
    assert (ids(events), [problem[:9] for problem in refused]) == (["s\x001", "s3"], ["a.csv:3: "])


@pytest.mark.parametrize(
    "text",
    [
        b'\xef\xbb\xbf{"sensor_id":"s1","ts":1,"value":1}\r\n\r\n  \r\n{"sensor_id":"s2","ts":2,"value":2}',
        b'{"sensor_id":"s1","ts":1,"value":1,"x":"\\u2028"}\n{"sensor_id":"s2","x":"\xe2\x80\xa8","ts":2,"value":2}\n',
    ],
)
def test_ndjson_as_people_have_it(write: Write, text: bytes) -> None:
    events, refused = read(write(text, "a.ndjson"))
    assert (ids(events), refused) == (["s1", "s2"], [])


@pytest.mark.parametrize(
    "line",
    [b'{"sensor_id":"\xe9","ts":1,"value":1}', b'{"x":"\xe9","sensor_id":"s","ts":1,"value":1}', b"\x00", b"[",
     b'{"a":1}{"a":1}', b'{"sensor_id":"s","ts":1,"value":1}\x00', '{"sensor_id":"s","ts":1,"value":1}'.encode("utf-16-le"), b"{",
     b'"', b"1", b"null"],
)  # fmt: skip
def test_a_line_that_is_no_such_object_is_refused_alone(write: Write, line: bytes) -> None:
    good = msgspec.json.encode(Reading("s", 1.0, 1.0))
    events, refused = read(write(good + b"\n" + line + b"\n" + good + b"\n", "a.jsonl"))
    assert len(events) == 2
    assert [problem[:11] for problem in refused] == ["a.jsonl:2: "]
