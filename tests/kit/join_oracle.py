"""Rows of several inputs through the stage, and what each should see by an oracle that knows nothing of queues and rings."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from streamer import Event, Window, as_of, interval, lagged, rolling
from streamer.features.trace import TracingWindow
from streamer.operators.join.plan import Joins, tracers_of
from streamer.operators.join.stage import JoinStage
from streamer.operators.join.store import JoinStore
from streamer.rows.batch import Batch
from streamer.rows.tally import Tally
from streamer.state.delta import Delta
from streamer.topology.event import column_dtypes, nullable_fields
from streamer.topology.joins import FAR, UNREAD, Join
from streamer.topology.steps import Joined, Source, Windowed

SECOND = 1_000_000
LATE_S = 5
START_S = 1_000_000_000


class A(Event, topic="a", key="k", time="t"):
    k: str
    t: float
    x: float


class B(Event, topic="b", key="k", time="t"):
    k: str
    t: float
    y: float
    z: float


class C(Event, topic="c", key="k", time="t"):
    k: str
    t: float
    y: float


class SpottyA(Event, topic="a", key="k", time="t"):
    k: str
    t: float
    x: float | None


class SpottyB(Event, topic="b", key="k", time="t"):
    k: str
    t: float
    y: float | None
    z: float


class SpottyC(Event, topic="c", key="k", time="t"):
    k: str
    t: float
    y: float | None


EVENTS: tuple[type[Event], ...] = (A, B, C)
SPOTTY: tuple[type[Event], ...] = (SpottyA, SpottyB, SpottyC)
"""The same events where a number may be null; `z` is always there."""


def looks(w: Window, second: type[Event], third: type[Event]) -> dict[str, Any]:
    own, b, c = w, w.of(second), w.of(third)
    return {
        "n": own.count, "sum": own.sum("x"), "first": own.first("x"), "delta": own.delta("x"), "x": own.event("x"),
        "values": own.count("x"), "rate": own.rate("x"),
        "b.n": b.count, "b.sum": b.sum("y"), "b.last": b.last("y"), "b.first": b.first("z"), "b.max": b.max("z"),
        "b.median": b.quantile("y", 0.5), "b.matrix": b["y"], "b.values": b.count("y"),
        **{f"c{name}.{kind}": getattr(c.over(name), kind)("y") for name in SPANS for kind in ("sum", "last", "std", "delta")},
        **{f"c{name}.n": c.over(name).count for name in SPANS},
        **{f"c{name}.values": c.over(name).count("y") for name in SPANS},
    }  # fmt: skip


SPANS = ("3s", "20s")
DELAY_S = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One record: topic, key, event time in microseconds, number; NaN where a row of a table is deleted.

    Where the number is `missing`, it stands in fields alone that are never null.
    """

    topic: str
    key: str
    time: int
    number: float
    missing: bool = False


@dataclass(slots=True)
class Flow:
    """A join stage that remembers what the feature function saw, by offset."""

    second: Join
    late_s: int = LATE_S
    window: Any = None
    events: tuple[type[Event], ...] = EVENTS
    seen: dict[int, dict[str, Any]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    stage: JoinStage = field(init=False)
    _now_s: float = 0.0
    _last: dict[str, Any] = field(default_factory=dict)
    _offsets: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        first, second, last = self.events
        third = lagged(last, *SPANS, delay=f"{DELAY_S}s", max_samples=8)
        joined = [
            Joined(
                join=join, topic=join.event.__event__.topic, format="json", dead_letters="dead",
                out_of_order_us=self.late_s * SECOND, idle_timeout_s=1.0, where="",
            )
            for join in (replace(self.second, event=second), third)
        ]  # fmt: skip
        tracers = tracers_of(joined)
        windowed = Windowed(window=self.window or rolling("10s", max_samples=8), where="")
        nullable = nullable_fields(first)
        tracing = TracingWindow(column_dtypes(first), ("x", "t"), windowed.window, tracers, nullable=nullable)
        looks(tracing, second, last)
        source = Source(event=first, topic="a", format="json", dead_letters="dead", where="")
        joins = Joins.of(source, windowed, tracing.needs, joined, tracers)
        self.stage = JoinStage(
            spec=joins.spec,
            needs=tracing.needs,
            features=self.look,
            keys_max=100,
            event=first,
            events=(second, last),
            idle_timeout_s=joins.idle_timeout_s,
        )
        self.stage.open(0)

    def look(self, w: Window) -> dict[str, Any]:
        self._last = {name: np.array(column) for name, column in looks(w, *self.events[1:]).items()}
        return {"n": w.count}

    def feed(self, rows: Sequence[Row]) -> None:
        """A poll: one batch for each topic."""
        for topic in ("a", "b", "c"):
            if some := [row for row in rows if row.topic == topic]:
                self._feed(topic, some)

    def _feed(self, topic: str, rows: Sequence[Row]) -> None:
        n, start = len(rows), self._offsets[topic]
        self._offsets[topic] += n
        numbers = np.array([row.number for row in rows])
        given = np.array([math.nan if row.missing else row.number for row in rows])
        columns = {"x": given} if topic == "a" else {"y": given, "z": -numbers, UNREAD: 0.0 * numbers}
        batch = Batch(
            topic=topic, owed={0: start + n}, polled_us=0, tally=Tally(inputs=n),
            keys=[row.key.encode() for row in rows], partitions=np.zeros(n, np.int32), offsets=np.arange(start, start + n),
            timestamps_ms=np.zeros(n, np.int64), times_us=np.array([row.time for row in rows], np.int64), columns=dict(columns),
            values=[b""] * n,
        )  # fmt: skip
        self.stage(batch)
        assert batch.dead == []
        assert (batch.tally.gone, len(batch)) == (n, 0)
        assert batch.balanced
        self.deltas.append(batch.deltas[0])

    def release(self, silence_s: Sequence[float | None] = (None, None, None), now_us: int = 0) -> None:
        self._now_s += 10.0
        while (batch := self.stage.release(0, silence_s, now_us, self._now_s)) is not None:
            self.deltas.append(batch.deltas[0])
            for place, offset in enumerate(batch.offsets.tolist()):
                assert offset not in self.seen
                self.order.append(offset)
                self.seen[offset] = {name: column[place] for name, column in self._last.items()}

    def end(self) -> None:
        """All inputs are silent, and our clock is far ahead."""
        self.release((9.0, 9.0, 9.0), FAR // 2)

    @property
    def store(self) -> JoinStore:
        return self.stage.stores[0]


def visible(rows: Sequence[Row], topic: str, key: str, until: int, samples: int) -> list[Row]:
    """What a store of unlimited knowledge keeps: the newest so many until a time, ties in log order."""
    found = [row for row in rows if row.topic == topic and row.key == key and row.time <= until]
    return sorted(found, key=lambda row: row.time)[-samples:]


def expected(rows: Sequence[Row], flow: Flow) -> dict[int, dict[str, Any]]:
    source = [row for row in rows if row.topic == "a"]
    out = {}
    for offset, row in enumerate(source):
        earlier = [other for n, other in enumerate(source) if (other.time, n) <= (row.time, offset) and other.key == row.key]
        kept = sorted(earlier, key=lambda other: other.time)[-8:]
        own = summary([other for other in kept if other.time > row.time - 10 * SECOND])
        out[offset] = {name: own[name] for name in ("n", "values", "sum", "first", "delta", "rate")}
        out[offset] |= {"x": math.nan if row.missing else row.number}
        (sight,) = flow.second.sights
        near = visible(rows, "b", row.key, row.time + sight.end_us, flow.second.samples)
        near = [other for other in near if other.time >= row.time + sight.begin_us][-(sight.newest_only or 10**6) :]
        near = [other for other in near if not math.isnan(other.number)]
        out[offset] |= {f"b.{name}": value for name, value in summary(near).items()}
        opposite = [-other.number for other in near]
        out[offset] |= {"b.first": opposite[0] if near else math.nan, "b.max": max(opposite, default=math.nan)}
        known = visible(rows, "c", row.key, row.time - DELAY_S * SECOND, 8)
        for name in SPANS:
            begin = row.time - (DELAY_S + int(name[:-1])) * SECOND
            within = [other for other in known if other.time > begin]
            out[offset] |= {f"c{name}.{kind}": value for kind, value in summary(within).items()}
    return out


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """What is seen of some rows: of the numbers there are, and NaN of none; only the sum of no rows is 0."""
    given = [row for row in rows if not row.missing]
    numbers, nothing = [row.number for row in given], math.nan
    seconds = (given[-1].time - given[0].time) / SECOND if given else 0
    return {
        "n": len(rows),
        "values": len(numbers),
        "sum": math.fsum(numbers) if numbers or not rows else nothing,
        "first": numbers[0] if numbers else nothing,
        "rate": nothing if not numbers else (numbers[-1] - numbers[0]) / seconds if seconds > 0 else 0.0,
        "last": numbers[-1] if numbers else nothing,
        "delta": numbers[-1] - numbers[0] if numbers else nothing,
        "std": float(np.std(numbers)) if numbers else nothing,
        "median": float(np.median(numbers)) if numbers else nothing,
        "matrix": numbers,
    }


def agree(seen: dict[int, dict[str, Any]], wanted: dict[int, dict[str, Any]]) -> None:
    assert seen.keys() == wanted.keys()
    for offset, row in seen.items():
        for name, value in row.items():
            want = wanted[offset][name]
            if name == "b.matrix":
                assert [x for x in value.tolist() if not math.isnan(x)] == pytest.approx(want), (offset, name)
            else:
                assert value == pytest.approx(want, nan_ok=True), (offset, name)


joins = st.sampled_from(
    [
        interval(B, before="7s", after="3s"),
        interval(B, before="7s", max_samples=3),
        interval(B, after="6s", max_samples=4),
        as_of(B),
        as_of(B, max_age="5s"),
        lagged(B, "6s", delay="2s"),
    ]
)


def run(
    rows: Sequence[Row], join: Join, cuts: Sequence[int], late_s: int = LATE_S, events: tuple[type[Event], ...] = EVENTS
) -> Flow:
    flow = Flow(join, late_s, events=events)
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    for start, end in pairwise(edges):
        flow.feed(rows[start:end])
        flow.release()
    flow.end()
    return flow
