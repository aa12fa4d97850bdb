"""Joins against an oracle that knows nothing of queues and rings: whoever is read first, and however the input is cut."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import as_of
from streamer.operators.join.store import JoinStore
from streamer.state.bytes_column import BytesColumn
from streamer.state.delta import Delta, merge
from streamer.topology.joins import Join
from tests.kit.join_oracle import (
    EVENTS,
    LATE_S,
    SECOND,
    SPOTTY,
    START_S,
    B,
    Flow,
    Row,
    agree,
    expected,
    joins,
    run,
)

# ---------------------------------------------------------------------- the oracle


# ---------------------------------------------------------------------- inputs


@st.composite
def logs(draw: st.DrawFn, late_s: int = LATE_S) -> list[Row]:
    """Rows of three inputs, each out of order by at most `late_s`, read in some order."""
    merged: list[Row] = []
    for topic in ("a", "b", "c"):
        facts = st.tuples(st.sampled_from("kq"), st.integers(0, 40), st.integers(0, late_s), st.integers(-50, 50))
        found = draw(st.lists(facts, max_size=14))
        found.sort(key=lambda fact: fact[1] + fact[2])
        merged += [Row(topic, key, (START_S + time) * SECOND, float(number)) for key, time, _, number in found]
    places = draw(st.permutations(range(len(merged))))
    slots = sorted(range(len(merged)), key=lambda n: places[n])
    topics = [merged[n].topic for n in slots]
    queues = {topic: iter([row for row in merged if row.topic == topic]) for topic in "abc"}
    return [next(queues[topic]) for topic in topics]


cuts_ = st.lists(st.integers(0, 60), max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """The same with some rows of the second input deleted."""
    rows = draw(logs())
    gone = draw(st.sets(st.integers(0, max(0, len(rows) - 1))))
    return [replace(row, number=math.nan) if n in gone and row.topic == "b" else row for n, row in enumerate(rows)]


tables_ = st.sampled_from([as_of(B), as_of(B, max_age="5s"), as_of(B, max_samples=8)])


@settings(max_examples=150, deadline=None)
@given(tables(), tables_, cuts_)
def test_a_deleted_row_is_seen_by_nobody_and_survives_a_replay_and_a_dump(rows: list[Row], join: Join, cuts: list[int]) -> None:
    flow = run(rows, join, cuts)
    agree(flow.seen, expected(rows, flow))
    survives_a_replay_and_a_dump(flow)


@st.composite
def spotty(draw: st.DrawFn) -> list[Row]:
    """Some rows of a table deleted, and some of all inputs without their number."""
    rows = draw(tables())
    missing = draw(st.sets(st.integers(0, max(0, len(rows) - 1))))
    return [replace(row, missing=n in missing) for n, row in enumerate(rows)]


@settings(max_examples=250, deadline=None)
@given(spotty(), joins, cuts_)
def test_a_row_without_a_number_is_seen_and_passed_over(rows: list[Row], join: Join, cuts: list[int]) -> None:
    if not join.table:
        rows = [replace(row, number=1.0) if math.isnan(row.number) else row for row in rows]
    flow = run(rows, join, cuts, events=SPOTTY)
    agree(flow.seen, expected(rows, flow))
    survives_a_replay_and_a_dump(flow)


def test_only_a_field_that_may_be_null_marks_the_state_of_a_join() -> None:
    plain, marked = (Flow(as_of(B), events=events).stage.spec.fingerprint for events in (EVENTS, SPOTTY))
    assert plain == "join/5000000/x: a/8/0/-9999999/x; b/1/0/2305843009213693952/y,z; c/8/-4000000/-23999999/y"
    assert marked == "join/5000000/x?: a/8/0/-9999999/x?; b/1/0/2305843009213693952/-,y?,z; c/8/-4000000/-23999999/y?"


def survives_a_replay_and_a_dump(flow: Flow) -> None:
    """Check that the store comes back from what it wrote, delta by delta, and from its dump."""
    replayed, loaded = new_store(flow), new_store(flow)
    for delta in flow.deltas:
        replayed.apply(delta)
    loaded.load(flow.store.dump())
    assert replayed.dump() == loaded.dump() == flow.store.dump()


def new_store(flow: Flow) -> JoinStore:
    return JoinStore(flow.stage.spec, 100)


@settings(max_examples=250, deadline=None)
@given(rows=logs(), join=joins, cuts=cuts_)
def test_rows_see_what_they_should(rows: list[Row], join: Join, cuts: list[int]) -> None:
    flow = run(rows, join, cuts)
    agree(flow.seen, expected(rows, flow))
    own = [(row.time, row.key) for row in rows if row.topic == "a"]
    assert flow.order == sorted(range(len(own)), key=lambda offset: own[offset])


@settings(max_examples=100, deadline=None)
@given(rows=logs(), join=joins, cuts=cuts_, silent=st.sampled_from("abc"), at=st.integers(0, 60))
def test_a_silent_input_is_not_waited_for(rows: list[Row], join: Join, cuts: list[int], silent: str, at: int) -> None:
    """One input ends early and is known to; nothing of it comes later, so nothing changes."""
    early = [row for row in rows if row.topic == silent]
    rows = early + [row for row in rows if row.topic != silent]
    flow = Flow(join)
    silence = [9.0 if topic == silent else None for topic in "abc"]
    flow.feed(early)
    rest = rows[len(early) :]
    edges = [0, *sorted(cut % (len(rest) + 1) for cut in cuts), len(rest)]
    for start, end in pairwise(edges):
        flow.feed(rest[start:end])
        flow.release(silence)
    flow.end()
    agree(flow.seen, expected(rows, flow))


@settings(max_examples=100, deadline=None)
@given(rows=logs(), join=joins, cuts=cuts_, prefix=st.integers(0, 40), pieces=cuts_)
def test_every_prefix_of_the_log_restores_the_live_store(
    rows: list[Row], join: Join, cuts: list[int], prefix: int, pieces: list[int]
) -> None:
    flow = Flow(join)
    dumps = [flow.store.dump()]
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    counts = [0]
    for start, end in pairwise(edges):
        flow.feed(rows[start:end])
        dumps.append(flow.store.dump())
        counts.append(len(flow.deltas))
        flow.release()
        dumps.append(flow.store.dump())
        counts.append(len(flow.deltas))
    flow.end()
    dumps.append(flow.store.dump())
    counts.append(len(flow.deltas))
    place = prefix % len(dumps)
    whole = merge(flow.deltas[: counts[place]], len(flow.stage.spec.fields))
    store = JoinStore(flow.stage.spec, 100)
    edges = [0, *sorted(piece % (len(whole.slots) + 1) for piece in pieces), len(whole.slots)]
    keys = iter(whole.new_keys)
    for start, end in pairwise(edges):
        slots = whole.slots[start:end]
        new = [next(keys) for slot in slots.tolist() if slot <= -2]
        store.apply(Delta(BytesColumn.of(new), slots, whole.times[start:end], np.ascontiguousarray(whole.values[:, start:end])))
    assert store.dump() == dumps[place]
    loaded = JoinStore(flow.stage.spec, 100)
    loaded.load(dumps[place])
    assert loaded.dump() == dumps[place]
