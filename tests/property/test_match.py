"""Labels and predictions against an oracle that knows nothing of slots and heaps: whoever is read first, however it is cut."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.operators.match.store import MatchStore
from streamer.state.bytes_column import BytesColumn
from streamer.state.delta import Delta, merge
from tests.kit.match_oracle import LATE_S, WITHIN_S, Flow, Row, check, run

# ---------------------------------------------------------------------- the oracle


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
    store = MatchStore(spec=flow.stage.spec)
    apply_in_pieces(store, whole, pieces)
    assert store.dump() == dumps[place]
    # What was dumped and loaded goes on like what lived: the same rows leave for the same operations.
    loaded = MatchStore(spec=flow.stage.spec)
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
        store.apply(Delta(BytesColumn.of(new), slots, whole.times[start:end], np.ascontiguousarray(whole.values[:, start:end])))
