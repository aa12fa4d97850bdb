"""What should have come out: validity, windows and scores recomputed from the input log, slowly and plainly.

Nothing here shares code with the service: records are parsed by the standard library, windows are lists, sums
are `math.fsum`, and the score is one call of ONNX Runtime per few thousand rows on the same model file.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from tests.faults.names import FEATURES, WINDOW_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.faults.log import Record

FLOAT32_MAX = 3.4028234663852886e38
DEPTH_MAX = 500
CLEARLY_NOW_S = 600.0
CLEARLY_AHEAD_S = 86_400.0
SCORE_ROWS = 4_096

Origin = tuple[int | str, ...]  # partition and offset, or partition, key and start of a closed window


@dataclass(frozen=True, slots=True)
class Reading:
    """A good input record, parsed."""

    sensor: str
    time_us: int
    value: float


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad input record with every reason a reader may rightly give: parsers find different faults first."""

    reasons: frozenset[str]


@dataclass(frozen=True, slots=True)
class Expected:
    """The one prediction a good input record must lead to."""

    reading: Reading
    features: tuple[float, ...]
    magnitude: float
    score: float = math.nan
    record: Record | None = None

    @property
    def key(self) -> bytes | None:
        """Of the prediction's record: that of the sensor, or of the input where a flow takes any."""
        return self.reading.sensor.encode() if self.record is None else self.record.key


class AmbiguousInputError(Exception):
    """The generator wrote a record on which this oracle has no right to an opinion; the run says nothing."""


def _bad(*reasons: str) -> Bad:
    return Bad(frozenset(reasons))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _depth(text: str) -> int:
    """Nesting of brackets outside strings."""
    deepest = depth = 0
    inside = escaped = False
    for char in text:
        if inside:
            escaped, inside = (char == "\\" and not escaped), not (char == '"' and not escaped)
        elif char == '"':
            inside = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def judge(record: Record, *, keyed: bool = True) -> Reading | Bad:
    """Decide from the bytes alone whether a record is good; `keyed`: its key must be that of its sensor.

    Raises:
        AmbiguousInputError: the record lies where honest readers may differ.
    """
    raw = record.value
    missing = {"null_key"} if record.key is None and keyed else set()
    if raw is None:
        return _bad("null_value", *missing)
    if not raw.strip(b" \t\r\n"):
        return _bad("empty_value", "invalid_json", *missing)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _bad("invalid_utf8", "invalid_json", "oversize", *missing)
    if text.count("[") + text.count("{") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        return _bad("too_deep", "invalid_json", "wrong_type", *missing)
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return _bad("invalid_json", "invalid_utf8", "wrong_type", "number_out_of_range", *missing)
    verdict = _judge_fields(document)
    if isinstance(verdict, Bad):
        return Bad(verdict.reasons | missing)
    return _judge_key_and_time(record, verdict, keyed=keyed)


def _judge_fields(document: object) -> Reading | Bad:
    if not isinstance(document, dict):
        return _bad("wrong_type", "invalid_json")
    if not {"sensor_id", "ts", "value"} <= document.keys():
        return _bad("missing_field")
    sensor, ts, value = document["sensor_id"], document["ts"], document["value"]
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in (ts, value))
    if not isinstance(sensor, str) or not numbers:
        return _bad("wrong_type")
    if any("\ud800" <= char <= "\udfff" for char in sensor):
        raise AmbiguousInputError(f"lone surrogate in sensor_id {sensor!r}")
    if not all(math.isfinite(n) and abs(n) <= FLOAT32_MAX for n in (ts, value)):
        return _bad("number_out_of_range", "invalid_json")
    return Reading(sensor, round(ts * 1e6), float(value))


def _judge_key_and_time(record: Record, reading: Reading, *, keyed: bool) -> Reading | Bad:
    faults = set()
    if keyed and record.key is None:
        faults.add("null_key")
    elif keyed and record.key is not None and record.key != reading.sensor.encode():
        faults |= {"key_mismatch", "null_key"} if not record.key else {"key_mismatch"}
    ahead_s = reading.time_us / 1e6 - record.timestamp_ms / 1e3
    if reading.time_us < 0:
        faults.add("time_negative")
    elif ahead_s > CLEARLY_AHEAD_S:
        faults.add("time_too_far_ahead")
    elif abs(ahead_s) > CLEARLY_NOW_S:
        raise AmbiguousInputError(f"{record.where}: event time {ahead_s:+.0f} s from its log time")
    return Bad(frozenset(faults)) if faults else reading


def window_features(window: Sequence[Reading]) -> tuple[float, ...]:
    """The features of one window, oldest reading first, in the order of `FEATURES`."""
    values = [r.value for r in window]
    n = len(values)
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / n)
    delta = values[-1] - values[0]
    span_us = window[-1].time_us - window[0].time_us
    rate = delta / (span_us / 1e6) if span_us > 0 else 0.0  # in log order time may go back
    return (float(n), mean, std, min(values), max(values), values[-1], delta, rate)


class Scorer:
    """The model file, run by ONNX Runtime itself."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        facts: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.threshold = float(facts["streamer.threshold"])
        self._output, self._column = facts["streamer.output"], int(facts["streamer.column"])
        if tuple(json.loads(facts["streamer.features"])) != FEATURES:
            raise ValueError(f"{path} was not made by tests/faults/make_model.py: it names other features")

    def score(self, rows: Sequence[tuple[float, ...]]) -> list[float]:
        """One score per row of features."""
        scores: list[float] = []
        for start in range(0, len(rows), SCORE_ROWS):
            block = np.asarray(rows[start : start + SCORE_ROWS], np.float32)
            (out,) = self._session.run([self._output], {self._session.get_inputs()[0].name: block})
            scores.extend(out[:, self._column].astype(float).tolist())
        return scores


@dataclass(slots=True)
class Truth:
    """What the input log demands: one prediction or one dead letter for each of its records, and the windows at the end.

    A flow with a second input has dead letters of that too. `ranks` is the order of outputs of a key, where it is not that of
    the offsets; `wrong` is what was found wrong on the way. `late` are the records that
    came when their windows had closed, `missed` the watermarks that they met.
    """

    predictions: dict[Origin, Expected]
    dead_letters: dict[Origin, tuple[Record, Bad]]
    windows: dict[tuple[int, str], list[Reading]]
    threshold: float
    second_letters: dict[Origin, tuple[Record, Bad]] = field(default_factory=dict)
    ranks: dict[Origin, int] = field(default_factory=dict)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    late: dict[Origin, tuple[Record, Bad]] = field(default_factory=dict)
    missed: dict[Origin, int] = field(default_factory=dict)


def seen_of(window: Sequence[Reading]) -> tuple[tuple[float, ...], float]:
    """Features of a window, and the size of its largest value, by which rounding is judged."""
    return window_features(window), max(abs(reading.value) for reading in window)


def expect(
    inputs: Iterable[Record],
    scorer: Scorer,
    judged: Callable[[Record], Reading | Bad] = judge,
    seen: Callable[[Sequence[Reading]], tuple[tuple[float, ...], float]] = seen_of,
) -> Truth:
    """Recompute the run from its input, given in log order per partition; `judged` reads a record, `seen` a window."""
    windows: dict[tuple[int, str], deque[Reading]] = defaultdict(lambda: deque(maxlen=WINDOW_COUNT))
    good: dict[Origin, Expected] = {}
    bad: dict[Origin, tuple[Record, Bad]] = {}
    for record in inputs:
        verdict = judged(record)
        if isinstance(verdict, Bad):
            bad[record.partition, record.offset] = (record, verdict)
            continue
        window = windows[record.partition, verdict.sensor]
        window.append(verdict)
        good[record.partition, record.offset] = Expected(verdict, *seen(window))
    scores = scorer.score([e.features for e in good.values()])
    scored = {
        origin: Expected(e.reading, e.features, e.magnitude, score)
        for (origin, e), score in zip(good.items(), scores, strict=True)
    }
    return Truth(scored, bad, {where: list(window) for where, window in windows.items()}, scorer.threshold)
