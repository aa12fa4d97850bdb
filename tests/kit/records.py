"""Records as a poll would give them, and one example of everything that is wrong with a record."""

from collections.abc import Sequence

import numpy as np
from confluent_kafka import Message

from streamer import Event
from streamer.codecs.json import JsonCodec
from streamer.rows.batch import Batch
from streamer.rows.records import LOG_APPEND_TIME, Records
from streamer.stages.decode.decode import Decode
from tests.kit.flows import Reading

NOW_S = 1_700_000_000
NOW_US = NOW_S * 1_000_000
HOUR_US = 3_600_000_000
RECORD_BYTES_MAX = 300_000
CREATE_TIME = 1
Raw = tuple[bytes | None, bytes | None]


def records(raw: Sequence[Raw], *, log_append: bool = True, timestamp_ms: int = NOW_S * 1000, polled_us: int = NOW_US) -> Records:
    """Key and value of each; two partitions in turn."""
    n = len(raw)
    places = np.arange(n)
    messages = [Message(timestamp=(LOG_APPEND_TIME if log_append else CREATE_TIME, timestamp_ms)) for _ in raw]
    return Records(
        topic="readings", partitions=(places % 2).astype(np.int32), offsets=100 + places // 2,
        timestamps_ms=np.full(n, timestamp_ms, np.int64), messages=list(messages),
        keys=[key for key, _ in raw], values=[value for _, value in raw], polled_us=polled_us,
    )  # fmt: skip


def decoder(event: type[Event] = Reading, columns: tuple[str, ...] = ("load", "value"), *, keyed: bool = True) -> Decode:
    """A decode stage with an hour ahead allowed."""
    return Decode(codec=JsonCodec(event, RECORD_BYTES_MAX), columns=columns, max_ahead_us=HOUR_US, keyed=keyed)


def outcomes(batch: Batch) -> dict[tuple[int, int], object]:
    """What became of each record: its columns, or the reason why not."""
    found: dict[tuple[int, int], object] = {}
    for row in range(len(batch)):
        place = int(batch.partitions[row]), int(batch.offsets[row])
        assert place not in found
        columns = tuple((name, column[row]) for name, column in sorted(batch.columns.items()))
        found[place] = (batch.keys[row], batch.values[row], int(batch.times_us[row]), columns)
    for letter in batch.dead:
        place = letter.partition, letter.offset
        assert place not in found
        found[place] = (letter.key, letter.value, letter.stage, letter.reason, letter.detail)
    return found


def good(sensor: str = "s", ts: str = str(NOW_S), value: str = "1.5", more: str = "") -> bytes:
    """A record that passes."""
    return f'{{"sensor":"{sensor}","ts":{ts},"value":{value}{more}}}'.encode()


DEEP = 100_000
GOOD: list[Raw] = [
    (b"s", good()),
    (b"s", b' \t\r\n{"ts":1, "sensor" : "s","value":-0.0,"load":2}\r\n '),
    (b"s", good(more=',"unknown":{"a":[1,"{}",null]}')),
    (b"s", good(more=',"ünknown":"é𝄞"')),
    (b"s", good(more=',"value":7.25')),  # the last of two equal names counts
    (b"a\nb", good("a\\nb")),
    (b"a\x00b", good("a\\u0000b")),
    ("é𝄞".encode(), good("é𝄞")),
    ("𝄞".encode(), good("\\ud834\\udd1e")),
    (b"", good("")),
    (b"s", good(value="3.4028234663852886e38")),
    (b"s", good(value="1e-400")),
    (b"s", good(value="123456789012345678901234567890")),
    (b"s" * 512, good("s" * 512)),
    (b"s", good(ts=f"{NOW_S + 3600}")),
    (b"s", good(ts="0")),
]
BAD: dict[str, list[Raw]] = {
    "invalid_json": [
        (b"s", b"temperature is 21"),
        (b"s", good()[:-1]),
        (b"s", good() + good()),
        (b"s", good() + b"\n" + good()),
        (b"s", good() + b"," + good()),
        (b"s", good() + b"\x00"),
        (b"s", b"\xef\xbb\xbf" + good()),
        (b"s", good(value="NaN")),
        (b"s", good(value="Infinity")),
        (b"s", good(value="-Infinity")),
        (b"s", good(value="01")),
        (b"s", good(value="1.")),
        (b"s", good(value="+1")),
        (b"s", good(more=",")),
        (b"s", good("a\nb")),
        (b"s", good("\\ud800")),
        (b"s", good("\\x41")),
        (b"s", b'{"sensor":"s",'),
        (b"s", good().decode().encode("utf-16-le")),
    ],
    "invalid_utf8": [
        (b"\xff", good("X").replace(b"X", b"\xff")),
        (b"s", good("X").replace(b"X", b"\xed\xa0\x80")),
        (b"s", good("X").replace(b"X", b"\xc0\xaf")),
        (b"s", good(more=',"unknown":"X"').replace(b"X", b"\xff")),
        (b"s", good(more=',"unknown":{"a":["X"]}').replace(b"X", b"\xed\xa0\x80")),
        (b"s", good(more=',"X":1').replace(b"X", b"\xc3")),
        (b"s", good(more=',"X":1').replace(b"X", b"\xa9")),
        (b"s", good(more=',"unknown":"X"').replace(b"X", b"\xff" + b"x" * (RECORD_BYTES_MAX // 2))),
    ],
    "wrong_type": [
        (b"s", b"null"),
        (b"s", good()[1:]),
        (b"s", b'"ts":1,"value":2}'),
        (b"s", b"[" + good() + b"]"),
        (b"s", b'"text"'),
        (b"s", b"17"),
        (b"s", good(value='"1.5"')),
        (b"s", good(value="true")),
        (b"s", good(value="null")),
        (b"s", good(value="[1]")),
        (b"s", good(ts='"1"')),
        (b"7", b'{"sensor":7,"ts":1,"value":1}'),
        (b"s", b"[" * DEEP),
    ],
    "missing_field": [(b"s", b"{}"), (b"s", b'{"sensor":"s","ts":1}'), (b"s", b'{"sensor":"s","value":1}')],
    "number_out_of_range": [
        (b"s", good(value="1e400")),
        (b"s", good(value="3.5e38")),
        (b"s", good(value="-1e39")),
        (b"s", good(value="9" * 400)),
        (b"s", good(value="1" + "0" * 39)),
        (b"s", good(more=',"load":1e300')),
    ],
    "too_deep": [
        (b"s", good(more=',"x":' + "[" * DEEP + "]" * DEEP)),
        (b"s", good(more=',"x":' + '{"a":' * (DEEP // 5) + "1" + "}" * (DEEP // 5))),
    ],
    "empty_value": [(b"s", b""), (b"s", b" "), (b"s", b"\n"), (b"s", b"\r\n\t "), (None, b"")],
    "null_value": [(b"s", None), (None, None)],
    "oversize": [(b"s", good() + b" " * RECORD_BYTES_MAX), (b"s", b"{" * (RECORD_BYTES_MAX + 1))],
    "null_key": [(None, good())],
    "key_mismatch": [(b"S", good()), (b"s ", good()), (b"", good()), (b"\xff", good()), (b"s\x00", good()), (b"\x00s", good())],
    "key_too_long": [(b"s" * 513, good("s" * 513))],
    "time_too_far_ahead": [
        (b"s", good(ts=f"{NOW_S + 3600}.000001")),
        (b"s", good(ts=f"{NOW_S}000")),
        (b"s", good(ts="1e308")),
        (b"s", good(ts="9" * 300)),
    ],
    "time_negative": [(b"s", good(ts="-1")), (b"s", good(ts="-0.000001")), (b"s", good(ts="-1e308"))],
}
