"""decode: records become columns. One that cannot be used becomes a dead letter with a reason; its neighbours go on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamer.codecs.codec import Codec, Refusal
from streamer.limits import KEY_BYTES_MAX
from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.records import Records
from streamer.stages.decode.numbers import NUMBERS, float64s, nullables
from streamer.topology.event import column_dtypes, nullable_fields
from streamer.topology.event_key import key_text

_UNIT_US = {"s": 1e6, "ms": 1e3, "us": 1.0}
# Event times beyond this (year 4,000) do not fit the arithmetic in microseconds with room to spare.
_TIME_US_MAX = 6.4e16


@dataclass(slots=True, kw_only=True)
class Decode:
    """Turns polled records into a `Batch` of columns.

    Attributes:
        codec: makes events of records.
        columns: fields that leave the decoder.
        kept: those of them that go into state, where numbers are float64.
        max_ahead_us: how far an event may lie after its log time.
        keyed: whether the record key must equal the key field, or be one at all where it is no field's.
        key: the key field, where it is not the one of the event class.
        new_key: a field whose text leaves the decoder as a column of bytes: the key that records are to have.
    """

    codec: Codec
    columns: tuple[str, ...]
    max_ahead_us: int
    keyed: bool
    kept: frozenset[str] = frozenset()
    key: str | None = None
    new_key: str | None = None

    def __call__(self, records: Records) -> Batch:
        """Decode, check and gather columns; every record is a row or a dead letter of the batch."""
        events, refused = self.codec.read(records)
        if self.keyed and self.codec.own_key:
            refused = _nameless(records.keys) | refused
        elif self.keyed:
            refused.update(self._mismatched(records.keys, events, self.key or self.codec.event.__event__.key or ""))
        elif not _short([key for key in records.keys if key is not None]):
            long = {row: _too_long(key) for row, key in enumerate(records.keys) if key is not None and len(key) > KEY_BYTES_MAX}
            refused = long | refused
        texts = _key_texts(events, self.new_key, refused) if self.new_key else []
        rows = np.arange(len(records))
        if refused:
            rows = np.array([row for row in range(len(records)) if row not in refused], np.int64)
        batch = Batch.of(records, rows)
        batch.dead = [_dead(records, row, *refusal) for row, refusal in sorted(refused.items())]
        if refused:
            events = [events[row] for row in rows.tolist()]
        if self.new_key:
            batch.columns[self.new_key] = _objects(texts)[rows]
        self._fill(batch, events)
        return batch

    def _mismatched(self, keys: list[bytes | None], events: list[Any], name: str) -> dict[int, Refusal]:
        """Rows whose record key is not the field `name` of the event."""
        field = attrgetter(name)
        try:
            joined = "\0".join(map(field, events)).encode()
            if b"\0".join(keys) == joined and joined.count(b"\0") == len(keys) - 1 and _short(keys):  # type: ignore[arg-type]
                return {}
        except (TypeError, AttributeError, UnicodeEncodeError):
            pass  # a null key, a refused event or a key that is no text: look at each
        refused = {}
        for row, (key, event) in enumerate(zip(keys, events, strict=True)):
            if event is not None and (refusal := _key_refusal(key, field(event), name)):
                refused[row] = refusal
        return refused

    def _fill(self, batch: Batch, events: list[Any]) -> None:
        """Gather the columns, then refuse rows by number: one vectorised check per rule."""
        dtypes, nullable = column_dtypes(self.codec.event), nullable_fields(self.codec.event)
        bad, beyond = np.zeros(len(batch), np.bool_), list[tuple[NDArray[np.bool_], str]]()
        for name in self.columns:
            values = list(map(attrgetter(name), events))
            if name not in dtypes:
                batch.columns[name] = _objects(values)
                continue
            gather = nullables if name in nullable else NUMBERS[dtypes[name].kind]
            numbers = gather(name, values, kept=name in self.kept)
            batch.columns[name] = numbers.column
            if numbers.beyond.any():
                beyond.append((numbers.beyond & ~bad, numbers.detail))
                bad |= numbers.beyond
        times = self._times_us(batch, events)
        ahead = self._ahead(batch, times)
        negative, unread = times < 0, np.isnan(times)
        refused = bad | ahead | negative | unread
        batch.times_us = np.where(refused, 0, times).astype(np.int64)
        if not refused.any():
            return
        limit = f"{self.max_ahead_us / 1e6:g} s"
        before = "the event time lies before 1970; is its unit right?"
        if self.codec.event.__event__.time is None:
            before = "the record has no timestamp, and the class names no field with the event time"
        for rule, reason, detail in (
            *((rows, "number_out_of_range", detail) for rows, detail in beyond),
            (ahead & ~bad, "time_too_far_ahead", f"the event time lies more than max_ahead = {limit} after the log time"),
            (negative & ~bad, "time_negative", before),
            (unread & ~bad, "wrong_type", "the event time is not ISO-8601, such as 2026-01-31T12:00:00Z"),
        ):
            batch.dead += batch.letters(rule, "decode", reason, detail)
        batch.keep(np.flatnonzero(~refused))

    def _ahead(self, batch: Batch, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Rows too far after their log time: the timestamp where the broker set it, else our poll."""
        logged, most = batch.timestamps_ms * 1000, float(self.max_ahead_us)
        ahead = times > np.minimum(np.minimum(logged, batch.polled_us) + most, _TIME_US_MAX)
        if ahead.any():
            # Who set a timestamp is told record by record, as it may change within a topic; few rows are as late as that.
            doubtful = np.flatnonzero(ahead)
            base = np.where(batch.broker_stamped(doubtful), logged[doubtful], batch.polled_us)
            ahead[doubtful] = times[doubtful] > np.minimum(base + most, _TIME_US_MAX)
        return ahead

    def _times_us(self, batch: Batch, events: list[Any]) -> NDArray[np.float64]:
        spec = self.codec.event.__event__
        if spec.time is None:
            return batch.origin.timestamps_ms.astype(np.float64) * 1e3
        values = list(map(attrgetter(spec.time), events))
        if spec.time_unit == "iso":
            return np.array([_iso_us(value) for value in values], np.float64)
        with np.errstate(over="ignore"):  # a time like 1e308 becomes infinite and is refused
            return np.round(float64s(values) * _UNIT_US[spec.time_unit])


@dataclass(frozen=True, slots=True)
class DecodeEach:
    """Decodes records of several inputs, each by its own rules.

    Attributes:
        inputs: topic -> decoder.
        look: sees the records too.
    """

    inputs: Mapping[str, Callable[[Records], Batch]]
    look: Callable[[Records], None]

    def __call__(self, records: Records) -> Batch:
        """Decode records of one of them."""
        self.look(records)
        return self.inputs[records.topic](records)


def _short(keys: list[bytes]) -> bool:
    return max(map(len, keys), default=0) <= KEY_BYTES_MAX


def _key_refusal(key: bytes | None, field: Any, name: str) -> Refusal | None:
    way_out = f"produce with the record key set to {name}, or put .rekey({name!r}) behind .source()"
    if key is None:
        return "null_key", f"the record has no key, the window needs {name}; {way_out}"
    if field is None:
        return "null_key", f"the field {name} is null, and the window needs one; null has no text that a record key could be"
    if key != key_text(field):
        return "key_mismatch", f"the record key differs from the field {name}; {way_out}"
    if len(key) > KEY_BYTES_MAX:
        return _too_long(key)
    return None


def _nameless(keys: list[bytes | None]) -> dict[int, Refusal]:
    """Rows whose record key cannot be the key of a window."""
    named = cast("list[bytes]", keys)  # a null among them cannot be joined, which is met below
    try:
        b"\n".join(named).decode()
        if _short(named):
            return {}
    except (TypeError, UnicodeDecodeError):
        pass  # a null key or one that is no text: look at each
    return {row: refusal for row, key in enumerate(keys) if (refusal := _no_name(key))}


def _no_name(key: bytes | None) -> Refusal | None:
    if key is None:
        return "null_key", "the record has no key, and windows are kept per key; produce with one"
    if len(key) > KEY_BYTES_MAX:
        return _too_long(key)
    try:
        key.decode()
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start}"
        return "invalid_utf8", f"the record key is not UTF-8 ({why}), and results of windows are named by it"
    return None


def _key_texts(events: list[Any], name: str, refused: dict[int, Refusal]) -> list[bytes]:
    """A field of each event as the bytes of a record key; adds the rows that have none to the refusals."""
    field = attrgetter(name)
    try:
        texts = list(map(str.encode, map(field, events)))
        if _short(texts):
            return texts
    except (TypeError, AttributeError, UnicodeEncodeError):
        pass  # a refused event, a null or a number: look at each
    found = [b"" if event is None else key_text(field(event)) for event in events]
    for row, text in enumerate(found):
        if text is None:
            refused[row] = ("null_key", f"the field {name} is null, and records are to be keyed by it")
        elif len(text) > KEY_BYTES_MAX:
            refused[row] = _too_long(text)
    return [text or b"" for text in found]


def _too_long(key: bytes) -> Refusal:
    return "key_too_long", f"the key has {len(key):,} bytes, the limit is {KEY_BYTES_MAX}"


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """A column of whatever they are; lists and the like stay values, and become no further dimension."""
    return np.fromiter(values, object, len(values))


def _iso_us(value: str | datetime) -> float:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError:
        return float("nan")
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _dead(records: Records, row: int, reason: str, detail: str) -> DeadLetter:
    origin = records.origin
    return DeadLetter(
        topic=origin.topic, partition=int(origin.partitions[row]), offset=int(origin.offsets[row]),
        key=origin.keys[row], value=records.values[row], stage="decode", reason=reason, detail=detail,
        timestamp_ms=int(origin.timestamps_ms[row]),
        headers=records.headers(row),
    )  # fmt: skip
