"""Bugs that the matching of labels could have, put in on purpose, and scenarios that must see each of them."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from streamer.operators.match.stage import MatchStage, RowEncoder
from streamer.operators.match.store import MatchStore, Outcome, _WaitingRows
from streamer.operators.progress import ProgressHistory
from streamer.rows.batch import Batch
from streamer.state.keyed_store import Dump
from tests.kit.bases import small_snapshots
from tests.kit.inside import InsideTest
from tests.kit.labelled import DAY_S, FLOW, MATCHED, UNMATCHED, Label, put, scored
from tests.kit.match_oracle import LATE_S, Flow, Row, check, run

Patch = pytest.MonkeyPatch


def any_order() -> None:
    """Which label a prediction has does not depend on who is read first."""
    random = Random(7)
    for late_s in (0, LATE_S) * 60:
        apart: dict[str, list[Row]] = {}
        for topic in ("p", "l"):
            rows = [(random.randrange(30), random.randrange(late_s + 1)) for _ in range(random.randrange(14))]
            rows.sort(key=sum)
            apart[topic] = [Row(topic, random.choice("kq"), time, random.randrange(2)) for time, _ in rows]
        turns = [topic for topic, found in apart.items() for _ in found]
        random.shuffle(turns)
        rest = {topic: iter(found) for topic, found in apart.items()}
        rows_ = [next(rest[topic]) for topic in turns]
        check(run(rows_, [random.randrange(50) for _ in range(20)], late_s), rows_)


def crashes(guarantee: str = "exactly-once") -> None:
    """Workers die again and again; each prediction has one result: its label, or that it has none."""
    for seed in range(6):
        random, start_at, labelled = Random(seed), list[float](), set[int]()
        with InsideTest(FLOW, partitions=1, settings={"waiting_max": 100, "guarantee": guarantee}) as test:
            for step in range(60):
                kind = random.choice(["scored", "scored", "label", "turns", "crash", "run", "day"])
                if kind == "scored":
                    start_at.append(test.now)
                    scored(test, f"p{len(start_at) - 1}", test.now, len(start_at) - 1)
                elif kind == "label" and start_at:
                    place = random.randrange(len(start_at))
                    put(test, Label(f"p{place}", test.now, step % 2 == 0))
                    labelled |= {place} if test.now <= start_at[place] + 14 * DAY_S else set()
                elif kind == "turns":
                    for _ in range(random.randrange(4)):
                        test.worker.turn()
                elif kind == "crash":
                    test.crash()
                elif kind == "run":
                    test.run()
                elif kind == "day":
                    test.run()
                    test.clock.advance(random.randrange(4) * DAY_S)
                test.clock.advance(random.randrange(1, 9))
            test.run()
            test.clock.advance(15 * DAY_S)
            came = [row["id"] for row in test.read(MATCHED)]
            over = [row["id"] for row in test.read(UNMATCHED)]
            if guarantee == "at-least-once":  # results may repeat, and say the same
                came, over = list(set(came)), list(set(over))
            assert sorted(came) == sorted(f"payments/0/{n}" for n in labelled)
            assert sorted(over) == sorted(f"payments/0/{n}" for n in range(len(start_at)) if n not in labelled)


def on_the_way() -> None:
    """Labels are silent, their newest is on its way, and predictions go on: nobody is given up this very moment."""
    flow = Flow(late_s=0)
    quiet = (None, 50.0)
    flow.feed([Row("p", "k", 0)])
    flow.release(quiet)
    flow._now_s -= 9.9  # a moment later
    flow.feed([Row("p", "k", 11)])
    flow.release(quiet)
    flow.feed([Row("l", "k", 9)])
    flow.end()
    assert sorted(flow.results) == [(0, 0, 9_000_000), (1, None, None)]


SCENARIOS: dict[str, Callable[[], None]] = {"any order": any_order, "crashes": crashes, "on the way": on_the_way}


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_wrong(name: str) -> None:
    SCENARIOS[name]()


def test_at_least_once_repeats_and_loses_nothing() -> None:
    crashes("at-least-once")


def test_restores_begin_at_bases(monkeypatch: Patch) -> None:
    """Bases are written all the time, in many pieces, with free slots among those in use."""
    small_snapshots(monkeypatch)
    loaded = list[int]()
    load = MatchStore.load

    def noted(self: MatchStore, dump: Dump) -> None:
        load(self, dump)
        loaded.append(len(self))

    monkeypatch.setattr(MatchStore, "load", noted)
    crashes()
    assert max(loaded) > 1


# ---------------------------------------------------------------------- the bugs


def labels_are_not_kept(patch: Patch) -> None:
    """A label that nobody waits for is dropped."""
    patch.setattr(MatchStore, "_floor", property(lambda _: 1 << 62))


def the_newest_label_counts(patch: Patch) -> None:
    """Of several labels that were read before, the last one is taken."""
    of = _WaitingRows.of
    patch.setattr(_WaitingRows, "of", lambda self, place: of(self, place)[::-1])


def late_is_forgotten(patch: Patch) -> None:
    """The watermark is not held back for records out of order."""
    due, tick = MatchStore.due, MatchStore.tick
    patch.setattr(MatchStore, "due", lambda self, watermark: due(self, watermark + self.spec.out_of_order_us))
    patch.setattr(MatchStore, "tick", lambda self, watermark, most: tick(self, watermark + self.spec.out_of_order_us, most))


def the_end_is_not_inside(patch: Patch) -> None:
    """A label at the very end of the time is too late."""
    patch.setattr(MatchStore, "_fit", lambda self, time, label_time: time <= label_time < time + self.spec.within_us)


def the_second_field_is_ignored(patch: Patch) -> None:
    """Rows of one key belong together whatever else they say."""
    made = RowEncoder.__init__
    patch.setattr(RowEncoder, "__init__", lambda self, event, _on, *, whole: made(self, event, None, whole=whole))


def ticks_not_logged(patch: Patch) -> None:
    """Predictions leave without a label, and the changelog does not say so."""
    release = MatchStage.release

    def silent(self: MatchStage, *given: Any) -> Batch | None:
        batch = release(self, *given)
        if batch is not None:
            batch.deltas = {}
        return batch

    patch.setattr(MatchStage, "release", silent)


def a_restore_lets_nobody_leave(patch: Patch) -> None:
    """What left on a label waits again after a restore."""
    apply = MatchStore.apply

    def forgetful(self: MatchStore, delta: Any, out: list[Outcome] | None = None) -> None:
        if out is not None:
            apply(self, delta, out)
            return
        leave = _WaitingRows.remove
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(MatchStore, "_leave", lambda self, line, entry: line is self.labels and leave(line, entry))
            apply(self, delta)

    patch.setattr(MatchStore, "apply", forgetful)


def silence_is_believed_at_once(patch: Patch) -> None:
    """Silent labels are as far as the predictions are this very moment."""
    at = ProgressHistory.at
    patch.setattr(ProgressHistory, "at", lambda self, moment_s: at(self, moment_s + 1e9))


BUGS: dict[Callable[[Patch], None], str] = {
    labels_are_not_kept: "any order",
    the_newest_label_counts: "any order",
    late_is_forgotten: "any order",
    the_end_is_not_inside: "any order",
    the_second_field_is_ignored: "any order",
    ticks_not_logged: "crashes",
    a_restore_lets_nobody_leave: "crashes",
    silence_is_believed_at_once: "on the way",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_seen(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bug(monkeypatch)
    with pytest.raises(Exception, match=r"."):
        SCENARIOS[BUGS[bug]]()
