"""Encoding of what leaves: predictions by the compiled writer, anomalies and dead letters one by one (they are few)."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from streamer.limits import DEAD_LETTER_BYTES_MAX, DEAD_LETTER_HEADERS_BYTES_MAX, HEADER_ROOM_BYTES, KEY_BYTES_MAX
from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.served import Served
from streamer.stages.produce.json_kernel import FLOAT, SIGNED, UNSIGNED, Features, Rows, Texts, Windows, room, write_predictions

_DRIVERS = 3
_NO_KINDS, _NO_WHOLES = np.empty(0, np.uint8), np.empty((0, 0), np.int64)


@dataclass(slots=True)
class Encoder:
    """Writes the predictions and anomalies of one flow.

    Attributes:
        topic: input topic, part of every id.
        served: what scored the rows.
        with_features: whether predictions carry the features.
        windowed: whether there is a window to count.
        names: features of one number, in the order of the model.
    """

    topic: str
    served: Served
    with_features: bool
    names: tuple[str, ...]
    _texts: Texts = field(init=False)

    def __post_init__(self) -> None:
        self.with_features = self.with_features and bool(self.names)
        topic = json.dumps(self.topic)[:-1]
        texts = [
            f'{{"id":{topic}/', '","key":', ',"time":', ',"score":', ',"scores":', ',"flag":',
            f',"model":{json.dumps(self.served.model)},"version":{self.served.version},"window_n":', ',"latency_ms":',
            ',"window_start":', ',"window_end":', ',"final":',
        ]  # fmt: skip
        if self.with_features:
            texts += [(',"features":{' if n == 0 else ",") + json.dumps(name) + ":" for n, name in enumerate(self.names)]
        texts.append("}}" if self.with_features else "}")
        data = [text.encode() for text in texts]
        self._texts = Texts(_writable(b"".join(data)), np.cumsum([len(text) for text in data]))

    def predictions(self, batch: Batch, now_us: int) -> list[bytes]:
        """One JSON record a row, `schemas/prediction.v1.json`."""
        rows = len(batch)
        if rows == 0:
            return []
        key_bytes, key_ends = _keys(batch.keys)
        features = self._features(batch)
        scores, origin, spans = np.ascontiguousarray(batch.scores), batch.origin, batch.payload.spans
        numbers = scores.shape[1] + features.floats.shape[1] + 1
        out = np.empty(room(rows, len(self._texts.constants), len(key_bytes), numbers), np.uint8)
        lines = Rows(
            origin.partitions, origin.offsets, key_bytes, key_ends, batch.times_us, scores, batch.flags, batch.counts,
            max(now_us, batch.polled_us) - batch.logged_us, features,
        )  # fmt: skip
        windows = Windows(spans.start_us, spans.end_us, spans.final)
        end = write_predictions(out, self._texts, lines, self.served.score_column % scores.shape[1], windows)
        return out[: end - 1].tobytes().split(b"\n")

    def record_bytes_max(self, batch: Batch) -> int:
        """Bytes that key and value of none of its predictions exceed; a sum over the batch that looks at no row."""
        numbers = batch.scores.shape[1] + (len(self.names) if self.with_features else 0) + 1
        return room(1, len(self._texts.constants), KEY_BYTES_MAX, numbers) + KEY_BYTES_MAX

    def anomaly(self, batch: Batch, row: int, prediction: bytes) -> bytes:
        """The prediction of a flagged row with the features that drove it, `schemas/anomaly.v1.json`."""
        wholes = batch.whole_features
        values = {name: int(wholes[name][row]) if name in wholes else float(batch.features[name][row]) for name in self.names}
        more: dict[str, Any] = {} if self.with_features else {"features": values}
        more["drivers"] = self._drivers(values)
        return prediction[:-1] + b"," + orjson.dumps(more)[1:]

    def _features(self, batch: Batch) -> Features:
        """What is published of the features: whole numbers as the function gave them, others as the model got them."""
        names = self.names if self.with_features else ()
        if not names:
            return Features(np.empty((len(batch), 0), np.float32), _NO_KINDS, _NO_WHOLES)
        floats, kinds = np.stack([batch.features[name] for name in names], axis=1), np.full(len(names), FLOAT, np.uint8)
        given = [(place, batch.whole_features[name]) for place, name in enumerate(names) if name in batch.whole_features]
        wholes = np.zeros((len(names), len(batch)), np.int64) if given else _NO_WHOLES
        for place, column in given:
            kinds[place], wholes[place] = UNSIGNED if column.dtype == np.uint64 else SIGNED, column.view(np.int64)
        return Features(floats, kinds, wholes)

    def _drivers(self, values: Mapping[str, float]) -> list[dict[str, Any]]:
        """The features furthest from usual, in units of their spread at training; none when the model does not say."""
        usual = self.served.usual
        deviations = [
            (name, value, (value - usual[name][0]) / (usual[name][1] or 1.0)) for name, value in values.items() if name in usual
        ]
        deviations.sort(key=lambda entry: math.inf if math.isnan(entry[2]) else -abs(entry[2]))
        return [{"feature": n, "value": v, "deviation": round(d, 3)} for n, v, d in deviations[:_DRIVERS]]


def _keys(keys: list[bytes | None]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Key bytes end to end and their ends, as `write_predictions` takes them; bytes that are no UTF-8 are replaced."""
    try:
        joined = b"".join(keys)  # type: ignore[arg-type]
        if not joined.isascii():
            for key in keys:
                key.decode()  # type: ignore[union-attr]
        return _writable(joined), np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)))  # type: ignore[arg-type]
    except (TypeError, UnicodeDecodeError):
        texts = [b"" if key is None else key.decode("utf-8", "replace").encode() for key in keys]
        ends = list(accumulate(map(len, texts)))
        marked = [-1 - end if key is None else end for end, key in zip(ends, keys, strict=True)]
        return _writable(b"".join(texts)), np.array(marked, np.int64)


def _writable(data: bytes) -> NDArray[np.uint8]:
    """Bytes as the compiled kernels take them."""
    return np.frombuffer(bytearray(data), np.uint8)


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
