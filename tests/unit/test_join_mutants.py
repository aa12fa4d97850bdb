"""Bugs that joins could have, put in on purpose, and scenarios that must see each of them."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.operators.join.stage import JoinStage
from streamer.operators.join.store import JoinStore
from streamer.operators.progress import ProgressHistory
from streamer.rows.batch import Batch
from streamer.stages.commit.commit import Commit
from streamer.stages.commit.transaction import Advance
from streamer.state.keys import Keys
from streamer.testing import constant
from streamer.topology.joins import as_of, interval
from tests.kit.inside import InsideTest
from tests.kit.join_oracle import LATE_S, SECOND, START_S, B, Flow, Row, agree, expected, run
from tests.kit.joined import PAID, PAIR, SCORED, Login, Payment, put

Patch = pytest.MonkeyPatch


def some_log(random: Random, late_s: int) -> list[Row]:
    """Three inputs, each out of order by at most so much, in any order."""
    found: dict[str, list[Row]] = {}
    for topic in ("a", "b", "c"):
        rows = [(random.randrange(12), random.randrange(late_s + 1), random.choice("kq")) for _ in range(random.randrange(14))]
        rows.sort(key=lambda row: row[0] + row[1])
        found[topic] = [Row(topic, key, (START_S + time) * SECOND, float(random.randrange(90))) for time, _, key in rows]
    turns = [topic for topic, rows in found.items() for _ in rows]
    random.shuffle(turns)
    rest = {topic: iter(rows) for topic, rows in found.items()}
    return [next(rest[topic]) for topic in turns]


def any_order() -> None:
    """What rows see does not depend on who is read first."""
    random = Random(7)
    for late_s in (0, 0, LATE_S) * 30:
        rows, join = some_log(random, late_s), random.choice([interval(B, before="7s", after="3s"), as_of(B)])
        flow = run(rows, join, [random.randrange(50) for _ in range(20)], late_s)
        agree(flow.seen, expected(rows, flow))


def crashes(guarantee: str = "exactly-once") -> None:
    """Workers die again and again; each payment has one result, with all logins from 10 minutes before to 30 s after."""
    for seed in range(6):
        random, paid, logins = Random(seed), list[float](), list[float]()
        options: dict[str, object] = {"keys_max": 100, "guarantee": guarantee}
        with InsideTest(PAIR, models=constant(0.5), partitions=1, settings=options) as test:
            start = test.now
            for step in range(40):
                kind = random.choice(["paid", "login", "turns", "crash", "run"])
                if kind == "paid":
                    put(test, Payment("u", test.now, float(step)))
                    paid.append(test.now)
                elif kind == "login":
                    put(test, Login("u", test.now + 0.5, 1.0))
                    logins.append(test.now + 0.5)
                elif kind == "turns":
                    for _ in range(random.randrange(4)):
                        test.worker.turn()
                elif kind == "crash":
                    test.crash()
                else:
                    test.run()
                test.clock.advance(float(int(test.now - start) + random.randrange(1, 9)) + start - test.now)
            test.clock.advance(60)
            scored = test.read(SCORED)
            if guarantee == "at-least-once":  # results may repeat, and say the same
                scored = list({row["id"]: row for row in scored}.values())
            assert [row["id"] for row in scored] == [f"{PAID}/0/{n}" for n in range(len(paid))]
            wanted = [float(sum(t - 600 <= u <= t + 30 for u in logins)) for t in paid]
            assert [row["features"]["logins"] for row in scored] == wanted


def too_late() -> None:
    """A row that comes after its time leaves with what is there; what came too late for it is seen by later ones."""
    flow = Flow(interval(B, before="9s"), late_s=0)
    flow.feed([Row(topic, "k", (START_S + time) * SECOND, 1.0) for topic in "abc" for time in (5, 20)])
    flow.release()
    assert sorted(flow.seen) == [0]
    flow.feed([Row("b", "k", (START_S + 4) * SECOND, 2.0)])
    flow.feed([Row("a", "k", (START_S + 6) * SECOND, 1.0)])
    flow.release()
    assert {n: row["b.sum"] for n, row in flow.seen.items()} == {0: 1.0, 2: 3.0}


def on_the_way() -> None:
    """An input was silent for long; its record and those of the source come at once, and the source is read first."""
    flow = Flow(as_of(B), late_s=0)
    quiet = (None, 50.0, 50.0)
    flow.feed([Row("a", "k", START_S * SECOND, 1.0)])
    flow.release(quiet)
    flow._now_s -= 9.9  # a moment later
    flow.feed([Row("a", "k", (START_S + n) * SECOND, 1.0) for n in (5, 6, 7)])
    flow.release(quiet)
    flow.feed([Row("b", "k", (START_S + 4) * SECOND, 3.0)])
    flow.end()
    assert [flow.seen[n]["b.last"] for n in (1, 2, 3)] == [3.0] * 3


def full_of_waiting_keys() -> None:
    """A key with rows that wait keeps its slot."""
    with InsideTest(PAIR, models=constant(0.5), partitions=1, settings={"keys_max": 1}) as test:
        put(test, Payment("a", test.now, 5.0))
        put(test, Payment("b", test.now, 5.0))
        test.clock.advance(31)
        assert [row["key"] for row in test.read(SCORED)] == ["a"]


SCENARIOS: dict[str, Callable[[], None]] = {
    "any order": any_order, "crashes": crashes, "too late": too_late, "on the way": on_the_way, "full": full_of_waiting_keys,
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_wrong(name: str) -> None:
    SCENARIOS[name]()


def test_at_least_once_repeats_and_loses_nothing() -> None:
    crashes("at-least-once")


# ---------------------------------------------------------------------- the bugs


def not_later_but_as_late(patch: Patch) -> None:
    """Rows come out when the watermark has reached them, and not when it has passed them."""
    reached = JoinStage._reached
    patch.setattr(JoinStage, "_reached", lambda *given: reached(*given) + 1)


def late_is_forgotten(patch: Patch) -> None:
    """The watermark is not held back for records out of order."""
    tick = JoinStore.tick
    patch.setattr(JoinStore, "tick", lambda self, watermark: tick(self, watermark + self.spec.out_of_order_us))


def only_the_lead_committed(patch: Patch) -> None:
    """Offsets of the other inputs are left where they were."""
    numbered = Commit._numbered

    def lead(self: Commit, steps: Mapping[int, Advance]) -> list[Any]:
        return [tp for tp in numbered(self, steps) if tp.topic == PAID]

    patch.setattr(Commit, "_numbered", lead)


def ticks_not_logged(patch: Patch) -> None:
    """Rows come out, and the changelog does not say so."""
    batch_of = JoinStage._batch

    def silent(self: JoinStage, *given: Any) -> Batch:
        batch = batch_of(self, *given)
        batch.owed, batch.deltas = {}, {}
        return batch

    patch.setattr(JoinStage, "_batch", silent)


def silence_is_believed_at_once(patch: Patch) -> None:
    """A silent input is as far as the others are this very moment."""
    at = ProgressHistory.at
    patch.setattr(ProgressHistory, "at", lambda self, moment_s: at(self, moment_s + 1e9))


def waiting_keys_make_room(patch: Patch) -> None:
    """Who waits is not asked when a slot is needed."""
    plan_slots = Keys.plan_slots

    def careless(self: Keys, keys: list[bytes], times: NDArray[np.int64], _busy: Sequence[int] = ()) -> Any:
        return plan_slots(self, keys, times)

    patch.setattr(Keys, "plan_slots", careless)


BUGS: dict[Callable[[Patch], None], str] = {
    not_later_but_as_late: "any order",
    late_is_forgotten: "any order",
    only_the_lead_committed: "crashes",
    ticks_not_logged: "crashes",
    silence_is_believed_at_once: "on the way",
    waiting_keys_make_room: "full",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_seen(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bug(monkeypatch)
    with pytest.raises(Exception, match=r"."):
        SCENARIOS[BUGS[bug]]()
