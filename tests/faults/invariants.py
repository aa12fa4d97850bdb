"""The invariants of one run, each a comparison of what came out with what the input demands.

Every function takes plain lists of records, so that it can be tested on logs written by hand.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.names import FEATURES, MODEL, MODEL_VERSION, Names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tests.faults.log import Position, Record
    from tests.faults.oracle import Bad, Expected, Origin, Truth

RELATIVE = 1e-6
SLACK = 1e-12  # of the largest value in the window: below this a float64 sum is noise
CUT_BYTES = 65_536
EXACT = frozenset({"n"})  # the others are float32 on the wire
SHOWN = 20


@dataclass(slots=True)
class Violations:
    """What was found wrong: every kind counted, the first few kept with their details."""

    counts: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    def add(self, kind: str, detail: str) -> None:
        self.counts[kind] += 1
        if len(self.first) < SHOWN or self.counts[kind] == 1:
            self.first.append(f"{kind}: {detail[:600]}")

    def __bool__(self) -> bool:
        return bool(self.counts)


@dataclass(frozen=True, slots=True)
class Output:
    """A prediction or anomaly with the input record it names."""

    record: Record
    origin: Origin
    body: Mapping[str, Any]


def close(found: object, expected: float, slack: float = 0.0) -> bool:
    """Equal within RELATIVE, or within `slack` where cancellation leaves nothing to be relative to."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return math.isclose(found, expected, rel_tol=RELATIVE, abs_tol=slack)


def parse_outputs(records: Iterable[Record], names: Names, bad: Violations) -> list[Output]:
    """Outputs in the order given; those whose id cannot be read are violations."""
    outputs = []
    for record in records:
        try:
            body = json.loads(record.value or b"")
            topic, *origin = body["id"].rsplit("/", 3 if names.flow == "closing" else 2)
            outputs.append(Output(record, tuple(int(part) if part.isdecimal() else part for part in origin), body))
        except (ValueError, KeyError, TypeError, AttributeError):
            bad.add("unreadable_output", f"{record.where}: {record.value!r}")
            continue
        if topic != names.input:
            bad.add("invented", f"{record.where} names the topic {topic!r}")
    return outputs


def check_predictions(truth: Truth, outputs: Sequence[Output], bad: Violations) -> None:
    """Every good input exactly one prediction, nothing invented, each equal to its recomputation."""
    seen: dict[Origin, str] = {}
    for output in outputs:
        where, origin = output.record.where, output.origin
        if origin in seen:
            bad.add("duplicate_prediction", f"{origin} at {where} and {seen[origin]}")
            continue
        seen[origin] = where
        expected = truth.predictions.get(origin)
        if expected is None:
            kind = "predicted_bad_input" if origin in truth.dead_letters else "invented"
            bad.add(kind, f"{where} claims input {origin}: {output.record.value!r}")
            continue
        check_prediction(expected, output, truth.threshold, bad)
    for origin in truth.predictions.keys() - seen.keys():
        bad.add("lost_prediction", f"input {origin} has no prediction")


def check_prediction(expected: Expected, output: Output, threshold: float, bad: Violations) -> None:
    """One prediction against its offline recomputation."""
    body, where, reading = output.body, output.record.where, expected.reading
    exact = {
        "key": None if expected.key is None else expected.key.decode("utf-8", "replace"),
        "model": MODEL,
        "version": MODEL_VERSION,
        "window_n": expected.features[0],
    }
    for name, value in exact.items():
        if body.get(name) != value:
            bad.add("wrong_" + name, f"{where} {output.origin}: {body.get(name)!r}, expected {value!r}")
    if output.record.key != expected.key:
        bad.add("wrong_record_key", f"{where}: {output.record.key!r}, expected {expected.key!r}")
    time_s = body.get("time")
    if not isinstance(time_s, int | float) or abs(time_s - reading.time_us / 1e6) > 1e-6:
        bad.add("wrong_time", f"{where}: {time_s!r}, expected {reading.time_us / 1e6!r}")
    if len(output.origin) == 3:
        _check_window(expected, output, bad)
    latency = body.get("latency_ms")
    if not isinstance(latency, int | float) or not math.isfinite(latency):
        bad.add("wrong_latency", f"{where}: latency_ms is {latency!r}")
    _check_features(expected, output, bad)
    if not close(body.get("score"), expected.score):
        bad.add("wrong_score", f"{where} {output.origin}: {body.get('score')!r}, expected {expected.score!r}")
    near = abs(expected.score - threshold) <= RELATIVE * threshold
    if not near and body.get("flag") is not (expected.score > threshold):
        bad.add("wrong_flag", f"{where}: flag {body.get('flag')!r}, score {expected.score}, threshold {threshold}")


def _check_window(expected: Expected, output: Output, bad: Violations) -> None:
    """What the result of a closed window says of the window."""
    start_us = output.origin[2]
    assert isinstance(start_us, int)
    wanted = {"window_start": start_us / 1e6, "window_end": expected.reading.time_us / 1e6}
    for name, value in wanted.items():
        found = output.body.get(name)
        if not isinstance(found, int | float) or abs(found - value) > 1e-6:
            bad.add("wrong_" + name, f"{output.record.where}: {found!r}, expected {value!r}")
    if output.body.get("final") is not True:
        bad.add("wrong_final", f"{output.record.where}: {output.body.get('final')!r}")


def check_watermarks(missed: Mapping[Origin, int], letters: Iterable[Record], bad: Violations) -> None:
    """A late record names the watermark that it met."""
    for letter in letters:
        partition, offset = (int(letter.header(f"streamer.error.{n}") or b"-1") for n in ("partition", "offset"))
        found, expected = letter.header("streamer.late.watermark_us"), missed.get((partition, offset))
        if expected is not None and found != str(expected).encode():
            bad.add("wrong_watermark", f"{letter.where}: {found!r}, expected {expected}")


def _check_features(expected: Expected, output: Output, bad: Violations) -> None:
    found = output.body.get("features")
    if not isinstance(found, dict) or set(found) != set(FEATURES):
        bad.add("wrong_features", f"{output.record.where}: features {found!r}")
        return
    for name, value in zip(FEATURES, expected.features, strict=True):
        same = found[name] == value if name in EXACT else close(found[name], value, SLACK * expected.magnitude)
        if not same:
            where = f"{output.record.where} {output.origin} {expected.reading.sensor!r}"
            bad.add("wrong_features", f"{where}: {name} {found[name]!r}, expected {value!r}")


def check_dead_letters(
    expected: Mapping[Origin, tuple[Record, Bad]],
    good: Collection[Origin],
    letters: Sequence[Record],
    topic: str,
    bad: Violations,
) -> None:
    """Every bad input of a topic exactly one dead letter, bytes untouched, right origin, a rightful reason."""
    seen: dict[Origin, str] = {}
    for letter in letters:
        where = letter.where
        try:
            partition, offset = (int(letter.header(f"streamer.error.{n}") or b"") for n in ("partition", "offset"))
        except ValueError:
            bad.add("unreadable_dead_letter", f"{where}: headers {letter.headers!r}")
            continue
        origin: Origin = (partition, offset)
        if origin in seen:
            bad.add("duplicate_dead_letter", f"{origin} at {where} and {seen[origin]}")
            continue
        seen[origin] = where
        if letter.header("streamer.error.topic") != topic.encode():
            bad.add("wrong_origin", f"{where}: topic {letter.header('streamer.error.topic')!r}")
        if origin not in expected:
            kind = "rejected_good_input" if origin in good else "invented_dead_letter"
            bad.add(kind, f"{where} claims input {origin}: {letter.headers!r} {letter.value!r}")
            continue
        source, verdict = expected[origin]
        _check_bytes(source, letter, bad)
        reason = (letter.header("streamer.error.reason") or b"").decode()
        if reason not in verdict.reasons:
            detail = f"{where}: {reason!r}, expected one of {sorted(verdict.reasons)} for {source.value!r}"
            bad.add("wrong_reason", detail)
        if not letter.header("streamer.error.stage") or not letter.header("streamer.error.detail"):
            bad.add("unexplained_dead_letter", f"{where}: headers {letter.headers!r}")
    for origin in expected.keys() - seen.keys():
        bad.add("lost_dead_letter", f"bad input {origin} of {topic} has none: {expected[origin][0].value!r}")


def _check_bytes(source: Record, letter: Record, bad: Violations) -> None:
    if letter.key != source.key:
        bad.add("changed_bytes", f"{letter.where}: key {letter.key!r}, was {source.key!r}")
    whole = source.value
    if whole is None or len(whole) <= CUT_BYTES:
        if letter.value != whole:
            bad.add("changed_bytes", f"{letter.where}: value {letter.value!r}, was {whole!r}")
        return
    digest = (letter.header("streamer.error.digest") or b"").removeprefix(b"sha256:")
    length = letter.header("streamer.error.truncated")
    right_digest = digest == hashlib.sha256(whole).hexdigest().encode()
    if letter.value != whole[:CUT_BYTES] or length != str(len(whole)).encode() or not right_digest:
        bad.add("changed_bytes", f"{letter.where}: cut wrongly: length {length!r}, digest {digest!r}")


def check_order(outputs: Sequence[Output], ranks: Mapping[Origin, int], bad: Violations) -> None:
    """Per key, outputs stand in one partition in the order of their ranks where given, and of their inputs."""
    rank = {output.origin: (ranks.get(output.origin, 0), output.origin) for output in outputs}
    last: dict[object, Output] = {}
    for output in outputs:
        key = output.record.key
        if key is None:
            continue  # any partition may have it, and nothing ties one to another
        before = last.get(key)
        if before is not None and before.record.partition != output.record.partition:
            bad.add("split_key", f"{key!r} at {before.record.where} and {output.record.where}")
        elif before is not None and rank[output.origin] <= rank[before.origin]:
            bad.add("reordered", f"{output.record.where} {output.origin} after {before.origin}, key {key!r}")
        last[key] = output


def check_anomalies(predictions: Sequence[Output], anomalies: Sequence[Output], bad: Violations) -> None:
    """The anomalies are the flagged predictions, each once, each saying the same as its prediction."""
    flagged = {p.origin: p for p in predictions if p.body.get("flag") is True}
    counts = Counter(a.origin for a in anomalies)
    for anomaly in anomalies:
        where, origin = anomaly.record.where, anomaly.origin
        prediction = flagged.get(origin)
        if counts[origin] > 1:
            bad.add("duplicate_anomaly", f"{origin} at {where}")
        if prediction is None:
            bad.add("invented_anomaly", f"{where}: {origin} has no flagged prediction")
            continue
        if anomaly.record.key != prediction.record.key:
            bad.add("changed_anomaly", f"{where}: key {anomaly.record.key!r}")
        for name, value in prediction.body.items():
            if anomaly.body.get(name) != value:
                bad.add("changed_anomaly", f"{where}: {name} {anomaly.body.get(name)!r}, predicted {value!r}")
        if not anomaly.body.get("drivers"):
            bad.add("changed_anomaly", f"{where}: no drivers")
    for origin in flagged.keys() - counts.keys():
        bad.add("lost_anomaly", f"flagged input {origin} has no anomaly")


def check_state(truth: Truth, rows: Iterable[Mapping[str, Any]], bad: Violations) -> None:
    """What the changelog comes to at the end: every key's window, bit for bit, in its partition, and no other."""
    seen = set()
    for row in rows:
        where = (row["partition"], row["key"])
        window = truth.windows.get(where)
        if where in seen or window is None:
            bad.add("invented_state", f"{where}: {row!r}")
            continue
        seen.add(where)
        expected = ([reading.time_us for reading in window], [reading.value for reading in window])
        if repr((row["times"], row["values"])) != repr(expected):  # a missing value is NaN, which is not even equal to itself
            bad.add("wrong_state", f"{where}: {row['times']} {row['values']}, expected {expected}")
    for where in truth.windows.keys() - seen:
        bad.add("lost_state", f"{where} has no window at the end")


def check_offsets(
    inputs: Iterable[Record], ends: Mapping[Position, int], committed: Mapping[Position, int], bad: Violations
) -> None:
    """The group's committed offsets cover the inputs to their ends and not beyond."""
    after_last: dict[Position, int] = defaultdict(int)
    for record in inputs:
        where = (record.topic, record.partition)
        after_last[where] = max(after_last[where], record.offset + 1)
    for where, end in ends.items():
        found = committed.get(where, 0)
        if found < after_last[where]:
            bad.add("offset_behind", f"{where}: committed {found}, input ends at {end}")
        elif found > end:
            bad.add("offset_beyond", f"{where}: committed {found}, input ends at {end}")


def check_prefix(watched: Iterable[tuple[Position, int, str]], final: Iterable[Record], bad: Violations) -> None:
    """What a reader saw while faults happened is, record by record, the beginning of the final log."""
    logs: dict[Position, list[tuple[int, str]]] = defaultdict(list)
    for record in final:
        logs[record.topic, record.partition].append((record.offset, fingerprint(record)))
    at: Counter[Position] = Counter()
    for position, offset, digest in watched:
        log = logs[position]
        index = at[position]
        at[position] += 1
        if index >= len(log) or log[index] != (offset, digest):
            now = log[index] if index < len(log) else "nothing"
            bad.add("vanished", f"{position}: a reader saw offset {offset}, the final log has {now} there")


def fingerprint(record: Record) -> str:
    """A digest of key, value and headers."""
    return hashlib.sha256(repr((record.key, record.value, record.headers)).encode()).hexdigest()[:16]
