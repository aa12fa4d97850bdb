"""Encoding of what leaves: predictions by the compiled writer, anomalies and dead letters one by one (they are few)."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from streamer.limits import DEAD_LETTER_BYTES_MAX, DEAD_LETTER_HEADERS_BYTES_MAX, HEADER_ROOM_BYTES, KEY_BYTES_MAX
from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.served import Served
from streamer.stages.produce.layout import Layout, laid, prediction_layout, writable
from streamer.stages.produce.record_kernel import FLOAT, SIGNED, UNSIGNED, Columns, Texts, room, write_records

_DRIVERS = 3


@dataclass(slots=True)
class Encoder:
    """Writes the predictions and anomalies of one flow.

    Attributes:
        topic: input topic, part of every id.
        step: what scored the rows.
        with_features: whether predictions carry the features.
        names: features of one number, in the order of the model.
    """

    topic: str
    step: str
    with_features: bool
    names: tuple[str, ...]
    _layouts: dict[tuple[int, bool, tuple[int, ...]], Layout] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.with_features = self.with_features and bool(self.names)

    def predictions(self, batch: Batch, now_us: int) -> list[bytes]:
        """One JSON record a row, `schemas/prediction.v1.json`."""
        if len(batch) == 0:
            return []
        layout = self._layout(batch)
        columns = self._columns(batch, layout, now_us)
        out = np.empty(room(layout.program, len(batch), len(columns.texts.data), len(columns.choices)), np.uint8)
        end = write_records(out, layout.program, columns)
        return out[: end - 1].tobytes().split(b"\n")

    def record_bytes_max(self, batch: Batch) -> int:
        """Bytes that key and value of none of its predictions exceed; it looks at no row."""
        choices, _ = _choices(batch.served[self.step].table)
        return room(self._layout(batch).program, 1, KEY_BYTES_MAX, len(choices)) + KEY_BYTES_MAX

    def _layout(self, batch: Batch) -> Layout:
        """What records of a batch look like: whole numbers among the features are known by what the function gave."""
        names, wholes = self.names if self.with_features else (), batch.whole_features
        kinds = tuple([_kind(wholes.get(name)) for name in names])
        shape = batch.scores.shape[1], len(batch.payload.spans) > 0, kinds
        if shape not in self._layouts:
            features = list(zip(names, kinds, strict=True))
            self._layouts[shape] = prediction_layout(self.topic, scores=shape[0], closing=shape[1], features=features)
        return self._layouts[shape]

    def _columns(self, batch: Batch, layout: Layout, now_us: int) -> Columns:
        """The columns of a batch, each in its place."""
        origin, spans, served = batch.origin, batch.payload.spans, batch.served[self.step]
        found: dict[str, NDArray[Any]] = {
            "partition": origin.partitions, "offset": origin.offsets, "time": batch.times_us, "count": batch.counts,
            "latency": max(now_us, batch.polled_us) - batch.logged_us,
            "start": spans.start_us, "end": spans.end_us, "final": spans.final,
            "flag": batch.flags, "served": served.index, "score": served.score(batch.scores),
        }  # fmt: skip
        if batch.scores.shape[1] > 1:
            found |= {f"scores/{n}": column for n, column in enumerate(batch.scores.T)}
        for name in self.names if self.with_features else ():
            found[f"features/{name}"] = batch.whole_features.get(name, batch.features[name])
        rows = len(batch)
        ints, bools = np.empty((len(layout.ints), rows), np.int64), np.empty((len(layout.bools), rows), np.bool_)
        floats = np.empty((rows, len(layout.floats)), np.float32)
        for place, name in enumerate(layout.ints):
            ints[place] = found[name].view(np.int64) if found[name].dtype == np.uint64 else found[name]
        for place, name in enumerate(layout.bools):
            bools[place] = found[name]
        for place, name in enumerate(layout.floats):
            floats[:, place] = found[name]
        return Columns(ints, floats, bools, _keys(batch.keys), *_choices(served.table))

    def anomaly(self, batch: Batch, row: int, prediction: bytes) -> bytes:
        """The prediction of a flagged row with the features that drove it, `schemas/anomaly.v1.json`."""
        wholes = batch.whole_features
        values = {name: int(wholes[name][row]) if name in wholes else float(batch.features[name][row]) for name in self.names}
        more: dict[str, Any] = {} if self.with_features else {"features": values}
        more["drivers"] = _drivers(values, batch.served[self.step].of(row).usual)
        return prediction[:-1] + b"," + orjson.dumps(more)[1:]


def _drivers(values: Mapping[str, float], usual: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """The features furthest from usual, in units of their spread at training; none when the model does not say."""
    deviations = [
        (name, value, (value - usual[name][0]) / (usual[name][1] or 1.0)) for name, value in values.items() if name in usual
    ]
    deviations.sort(key=lambda entry: math.inf if math.isnan(entry[2]) else -abs(entry[2]))
    return [{"feature": n, "value": v, "deviation": round(d, 3)} for n, v, d in deviations[:_DRIVERS]]


def _kind(whole: "NDArray[np.integer[Any]] | None") -> int:
    """How a feature is written: whole numbers as the function gave them, others as the model got them."""
    return FLOAT if whole is None else UNSIGNED if whole.dtype == np.uint64 else SIGNED


@lru_cache(maxsize=16)
def _choices(table: tuple[Served, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """What is said of each model in the records that it scored."""
    return laid([f'"model":{json.dumps(served.model)},"version":{served.version}' for served in table])


def _keys(keys: list[bytes | None]) -> Texts:
    """Record keys; bytes that are no UTF-8 are replaced."""
    cuts = np.zeros((1, len(keys) + 1), np.int64)
    try:
        joined = b"".join(keys)  # type: ignore[arg-type]  # a null among them is met below, as a TypeError
        if not joined.isascii():
            for key in keys:
                key.decode()  # type: ignore[union-attr]  # none of them is null, or they had not been joined
        np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)), out=cuts[0, 1:])  # type: ignore[arg-type]  # as above
    except (TypeError, UnicodeDecodeError):
        texts = [b"" if key is None else key.decode("utf-8", "replace").encode() for key in keys]
        ends, joined = list(accumulate(map(len, texts))), b"".join(texts)
        cuts[0, 1:] = [-1 - end if key is None else end for end, key in zip(ends, keys, strict=True)]
    return Texts(writable(joined), cuts)


Headers = list[tuple[str, str | bytes | None]]
# Room for the two headers that name length and digest of a value that is cut, and for the words about a key that is.
_CUT_BYTES = 256


def dead_letter(letter: DeadLetter, most: int) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of a dead letter: the original bytes, or as much of them as may be kept and as the topic takes.

    Of a value that is cut the headers have length and digest. The original headers stand behind ours.

    Args:
        letter: what to write.
        most: bytes that the topic takes of a record.
    """
    key, value, detail = letter.key, letter.value, letter.detail
    key_size, value_size = len(key or b""), len(value or b"")
    headers = _headers(letter, detail)
    room = most - _size(headers)
    kept_of_both = min(key_size, DEAD_LETTER_BYTES_MAX) + min(value_size, DEAD_LETTER_BYTES_MAX)
    originals = _originals(letter.headers, min(room - kept_of_both - 2 * _CUT_BYTES, DEAD_LETTER_HEADERS_BYTES_MAX))
    room -= _size(originals)
    if key_size + value_size <= room and max(key_size, value_size) <= DEAD_LETTER_BYTES_MAX:
        return key, value, headers + originals
    room -= _CUT_BYTES
    if room < 0:
        detail = detail.encode()[: max(0, len(detail.encode()) + room)].decode(errors="ignore")
    if key is not None and key_size > (kept := max(0, min(room, DEAD_LETTER_BYTES_MAX))):
        key, detail = key[:kept], f"{detail}; the first {kept:,} of its {key_size:,} bytes of key are kept"
    headers = _headers(letter, detail)
    if value is not None and value_size > (kept := max(0, min(room - len(key or b""), DEAD_LETTER_BYTES_MAX))):
        headers.append(("streamer.error.truncated", str(value_size)))
        headers.append(("streamer.error.digest", "sha256:" + hashlib.sha256(value).hexdigest()))
        value = value[:kept]
    return key, value, headers + originals


def _originals(headers: Sequence[tuple[str, bytes | None]], room: int) -> Headers:
    """Headers of the original record, the first ones that there is room for; another dead letter's of ours get a new name."""
    kept: Headers = []
    for number, (name, value) in enumerate(headers):
        renamed = f"original.{name}" if name.startswith("streamer.") else name
        room -= _size([(renamed, value)])
        if room < 0:
            return [*kept, ("streamer.error.headers_dropped", str(len(headers) - number))]
        kept.append((renamed, value))
    return kept


def _headers(letter: DeadLetter, detail: str) -> Headers:
    stamp = [] if letter.timestamp_ms is None else [("streamer.error.timestamp", str(letter.timestamp_ms))]
    return [
        ("streamer.error.stage", letter.stage),
        ("streamer.error.reason", letter.reason),
        ("streamer.error.detail", detail),
        ("streamer.error.topic", letter.topic),
        ("streamer.error.partition", str(letter.partition)),
        ("streamer.error.offset", str(letter.offset)),
        *stamp,
        *letter.more,
    ]


def _size(headers: Headers) -> int:
    """Bytes that a broker counts of them."""
    texts = (text if isinstance(text, bytes) else (text or "").encode() for header in headers for text in header)
    return sum(map(len, texts)) + HEADER_ROOM_BYTES * len(headers)
