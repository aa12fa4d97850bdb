"""Labels and predictions against an oracle that knows nothing of slots and heaps: whoever is read first, however it is cut."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import Event
from streamer.operators.match.stage import MatchStage
from streamer.operators.match.store import MatchSpec, MatchStore
from streamer.rows.batch import Batch
from streamer.state.delta import Delta, merge
from streamer.state.names import Names

SECOND = 1_000_000
START_S = 1_000_000_000
WITHIN_S, LATE_S = 10, 5
FAR_US = 1 << 60


class P(Event, topic="p", key="k", time="t"):
    """A prediction that knows its offset."""

    k: str
    t: float
    n: int
    place: int


class L(Event, topic="l", key="k", time="t"):
    """A label that does."""

    k: str
    t: float
    n: int
    place: int


@dataclass(frozen=True, slots=True)
class Row:
    """One record: topic, key, event time in seconds after the start, and its second field."""

    topic: str
    key: str
    time: int
    on: int = 0


Result = tuple[int, int | None, int | None]


@dataclass(slots=True)
class Flow:
    """A stage, and what left it: offset of the prediction, offset and delay of its label."""

    late_s: int = LATE_S
    on: str | None = "n"
    results: list[Result] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    unused: int = 0
    stage: MatchStage = field(init=False)
    _now_s: float = 0.0
    _offsets: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        spec = MatchSpec(("p", "l"), WITHIN_S * SECOND, self.late_s * SECOND, self.on)
        self.stage = MatchStage(spec, (P, L), 1000, 1.0, "c", 1 << 20)
        self.stage.open(0)

    @property
    def store(self) -> MatchStore:
        return self.stage.stores[0]

    def feed(self, rows: Sequence[Row]) -> None:
        """A poll: one batch for each topic."""
        for topic in ("p", "l"):
            if some := [row for row in rows if row.topic == topic]:
                self._feed(topic, some)

    def _feed(self, topic: str, rows: Sequence[Row]) -> None:
        n, start = len(rows), self._offsets[topic]
        self._offsets[topic] += n
        values = [
            msgspec.json.encode({"k": row.key, "t": START_S + row.time, "n": row.on, "place": start + place})
            for place, row in enumerate(rows)
        ]
        batch = Batch(
            topic, {0: start + n}, [], 0, [row.key.encode() for row in rows], np.zeros(n, np.int32), np.arange(start, start + n),
            np.zeros(n, np.int64), np.array([(START_S + row.time) * SECOND for row in rows], np.int64), {}, list(values),
        )  # fmt: skip
        self.stage(batch)
        assert batch.dead == []
        self._note(batch)

    def release(self, silence_s: Sequence[float | None] = (None, None), now_us: int = 0) -> None:
        self._now_s += 10.0
        while (batch := self.stage.release(0, silence_s, now_us, self._now_s)) is not None:
            self._note(batch)

    def end(self) -> None:
        """Both inputs are silent, and our clock is far ahead."""
        self.release((9.0, 9.0), FAR_US)

    def _note(self, batch: Batch) -> None:
        pairs = batch.pairs
        assert pairs is not None
        self.deltas.append(batch.deltas[0])
        self.unused += pairs.unused
        rows = zip(batch.keys, pairs.bodies, pairs.labels, pairs.delays_us, strict=True)
        for key, body, label, delay in rows:
            prediction = msgspec.json.decode(body)
            assert prediction["key"] == key.decode()
            place = prediction["prediction"]["place"]
            assert place not in [known for known, *_ in self.results]
            theirs = None if label is None else int(msgspec.json.decode(label)["place"])
            self.results.append((place, theirs, None if label is None else delay))


# ---------------------------------------------------------------------- the oracle


def expected(rows: Sequence[Row], on: str | None = "n") -> set[Result]:
    """Each prediction with the first label, as the log has them, that is of its key and in its time."""
    labels = [row for row in rows if row.topic == "l"]
    found: set[Result] = set()
    for offset, row in enumerate([row for row in rows if row.topic == "p"]):
        fitting = [
            (place, label.time - row.time)
            for place, label in enumerate(labels)
            if label.key == row.key and (on is None or label.on == row.on) and row.time <= label.time <= row.time + WITHIN_S
        ]
        place, delay = fitting[0] if fitting else (None, None)
        found.add((offset, place, None if delay is None else delay * SECOND))
    return found


def check(flow: Flow, rows: Sequence[Row]) -> None:
    assert set(flow.results) == expected(rows, flow.on)
    labels, used = sum(row.topic == "l" for row in rows), {place for _, place, _ in flow.results if place is not None}
    assert len(flow.store.predictions.order) == 0
    assert sum(not one.used for one in flow.store._entries.values()) + flow.unused == labels - len(used)


# ---------------------------------------------------------------------- inputs


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    """Rows of both inputs, each out of order by at most LATE_S, read in some order; labels come twice now and then."""
    apart: dict[str, list[Row]] = {}
    for topic in ("p", "l"):
        facts = st.tuples(st.sampled_from("kq"), st.integers(0, 40), st.integers(0, LATE_S), st.integers(0, 1))
        found = draw(st.lists(facts, max_size=14))
        found.sort(key=lambda fact: fact[1] + fact[2])
        apart[topic] = [Row(topic, key, time, on) for key, time, _, on in found]
    turns = draw(st.permutations([topic for topic, rows in apart.items() for _ in rows]))
    rest = {topic: iter(rows) for topic, rows in apart.items()}
    return [next(rest[topic]) for topic in turns]


cuts_ = st.lists(st.integers(0, 60), max_size=8)


def run(rows: Sequence[Row], cuts: Sequence[int], late_s: int = LATE_S, on: str | None = "n") -> Flow:
    flow = Flow(late_s, on)
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    for start, end in pairwise(edges):
        flow.feed(rows[start:end])
        flow.release()
    flow.end()
    return flow


@settings(max_examples=300, deadline=None)
@given(rows=logs(), cuts=cuts_, on=st.sampled_from(["n", None]))
def test_each_prediction_has_the_label_it_should(rows: list[Row], cuts: list[int], on: str | None) -> None:
    check(run(rows, cuts, on=on), rows)


@settings(max_examples=150, deadline=None)
@given(rows=logs(), cuts=cuts_, silent=st.sampled_from("pl"))
def test_a_silent_input_is_not_waited_for(rows: list[Row], cuts: list[int], silent: str) -> None:
    """One input ends early and is known to; nothing of it comes later, so nothing changes."""
    early, rest = [row for row in rows if row.topic == silent], [row for row in rows if row.topic != silent]
    flow = Flow()
    silence = [9.0 if topic == silent else None for topic in "pl"]
    flow.feed(early)
    edges = [0, *sorted(cut % (len(rest) + 1) for cut in cuts), len(rest)]
    for start, end in pairwise(edges):
        flow.feed(rest[start:end])
        flow.release(silence)
    flow.end()
    check(flow, early + rest)


@settings(max_examples=60, deadline=None)
@given(rows=logs(), cuts=cuts_)
def test_who_is_over_leaves_before_the_end(rows: list[Row], cuts: list[int]) -> None:
    """Once both inputs are past all times, nobody waits, and no label is kept."""
    flow = Flow()
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    last = 1000
    for start, end in pairwise(edges):
        flow.feed(rows[start:end])
        flow.release()
    flow.feed([Row("p", "z", last), Row("l", "z", last + WITHIN_S)])
    flow.release()
    assert {place for place, *_ in flow.results} == set(range(sum(row.topic == "p" for row in rows) + 1))
    assert len(flow.store) == 1
    assert flow.store.names.count(None) == len(flow.store.names) - 1


@settings(max_examples=150, deadline=None)
@given(rows=logs(), cuts=cuts_, prefix=st.integers(0, 40), pieces=cuts_, rest=cuts_)
def test_every_prefix_of_the_log_restores_the_live_store(
    rows: list[Row], cuts: list[int], prefix: int, pieces: list[int], rest: list[int]
) -> None:
    flow = Flow()
    dumps, counts, seen = [flow.store.dump()], [0], [0]

    def note() -> None:
        dumps.append(flow.store.dump())
        counts.append(len(flow.deltas))
        seen.append(len(flow.results))

    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    for start, end in pairwise(edges):
        flow.feed(rows[start:end])
        note()
        flow.release()
        note()
    flow.end()
    note()
    place = prefix % len(dumps)
    whole = merge(flow.deltas[: counts[place]], len(flow.stage.spec.fields))
    store = MatchStore(flow.stage.spec)
    apply_in_pieces(store, whole, pieces)
    assert store.dump() == dumps[place]
    # What was dumped and loaded goes on like what lived: the same rows leave for the same operations.
    loaded = MatchStore(flow.stage.spec)
    loaded.load(dumps[place])
    assert loaded.dump() == dumps[place]
    apply_in_pieces(loaded, merge(flow.deltas[counts[place] :], len(flow.stage.spec.fields)), rest)
    assert loaded.dump() == dumps[-1]


def apply_in_pieces(store: MatchStore, whole: Delta, pieces: Sequence[int]) -> None:
    edges = [0, *sorted(piece % (len(whole.slots) + 1) for piece in pieces), len(whole.slots)]
    keys = iter(whole.new_keys)
    for start, end in pairwise(edges):
        slots = whole.slots[start:end]
        new = [next(keys) for slot in slots.tolist() if slot <= -2]
        store.apply(Delta(Names.of(new), slots, whole.times[start:end], np.ascontiguousarray(whole.values[:, start:end])))
