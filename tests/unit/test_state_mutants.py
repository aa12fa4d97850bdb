"""Bugs of one line that state and re-keying could have: each is put in, and a run that passes without it must notice."""

import inspect
import json
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from streamer import Event, Model, StreamerError, Topology, rolling, tumbling
from streamer.changelog import blocks as changelog
from streamer.changelog.restore import Restore
from streamer.operators.rekey.receive import RekeyedWindows
from streamer.operators.rekey.send import Forward, PartitionTimes
from tests.kit import rekeyed
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.inside import InsideTest
from tests.kit.rekeyed import payment
from tests.kit.writer import Writer, restore

__all__ = ["short_waits"]
Patch = pytest.MonkeyPatch
START_S = 1_700_000_000


# ---------------------------------------------------------------------- the scenarios


def zombie_in_the_chain() -> None:
    """A worker that lost its partition wrote a block with the next number, of other rows; then its owner goes on."""
    writer = Writer()
    writer.commit([[("a", 1, 1.0)]])
    zombie = Writer(writer.log)
    zombie.seq, zombie.next = writer.seq, writer.next
    writer.commit([[("b", 2, 2.0), ("c", 2, 2.0)]])
    zombie.commit([[("b", 2, 2.0)]])
    zombie.commit([[("c", 2, 2.0)]])
    writer.commit([[("d", 3, 3.0)]])
    store, done = restore(writer.log, 0, 0, strict=False)
    assert (done.next, done.seq) == ([writer.next], writer.seq)
    assert store.dump() == writer.store.dump()


def pay(test: InsideTest, at_s: float, terminal: str = "t0", partition: int = 0) -> None:
    test.log.append(rekeyed.SOURCE, b"c", payment(terminal, 1.0, START_S + at_s), partition)


def time_goes_on_within_a_batch() -> None:
    """Rows of a key between moves of the watermark, all in one poll of the second flow."""
    with InsideTest(rekeyed.topology("160s", max_drift="10h"), models=rekeyed.score, partitions=1) as test:
        for at_s in (0, 400, 800, 1_200):
            pay(test, at_s)
            pay(test, at_s + 1)
        test.workers[1]._consume.hold([0])
        test.run()
        found = [(row["key"], row["window_n"]) for row in test.read(rekeyed.PREDICTIONS)]
        assert found == [("t0", 1), ("t0", 2)] * 4


class Hit(Event, topic="hits"):
    """Its time is that of its record."""

    shop: str


def log_times_travel() -> None:
    """Where an event has no time of its own, that of its record at the source counts, behind another key too."""
    by_shop = (
        Topology("hits").source(Hit, dead_letters="bad").rekey("shop").window(rolling("10s"))
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions="out")
    )  # fmt: skip
    with InsideTest(by_shop, models=lambda columns: columns["n"][:, None], partitions=1) as test:
        for _ in range(3):
            test.send_bytes("hits", None, json.dumps({"shop": "s"}).encode())
            test.run()
            test.clock.advance(6)
        rows = test.read("out")
        assert [row["window_n"] for row in rows] == [1, 2, 2]
        assert [START_S <= row["time"] <= test.now and 0 <= row["latency_ms"] < 1_000 for row in rows] == [True] * 3


def long_commits_restore() -> None:
    """A commit that is cut into many messages holds what is known of the source as one that is not."""
    with Patch.context() as patch:
        patch.setattr(changelog, "CHANGELOG_BYTES_MAX", 60)
        with InsideTest(rekeyed.topology("160s", max_drift="10h"), models=rekeyed.score, partitions=2) as test:
            for n in range(12):
                pay(test, n, f"t{n % 4}", n % 2)
            test.run()
            lines = known(test)
            test.crash()
            pay(test, 20)
            test.run()
            test.crash()
            pay(test, 21)
            test.run()
            for partition, table in known(test).items():
                assert (table[:, 0] >= lines[partition][:, 0]).all(), "it went back in time"
                assert (table[1] == lines[partition][1]).all()


def known(test: InsideTest) -> dict[int, Any]:
    """What each partition knows of those of the source."""
    return {partition: store.upstreams.table.copy() for partition, store in test.worker.pipeline.window.stores.items()}


def silence_of_a_lost_transaction() -> None:
    """The word that a partition is silent is in a transaction that fails."""
    topology = (
        Topology("flow").source(rekeyed.Payment, dead_letters=rekeyed.DEAD_LETTERS).rekey("terminal")
        .window(tumbling("60s", idle_timeout="30s")).features(lambda w: {"n": w.count, "total": w.sum("amount")})
        .infer(Model("stand-in")).publish(predictions=rekeyed.PREDICTIONS, late_events="late")
    )  # fmt: skip
    for kind in ("abortable", "fatal"):
        with FaultTest(topology, models=rekeyed.score, partitions=2) as test:
            pay(test, 0)
            test.settle()
            test.clock.advance(31)
            test.script.fail_next("commit", kind)
            turns(test, 40)
            test.clock.advance(31)
            turns(test, 40)
            closed = [json.loads(record.value or b"") for record in test.log.committed_records(rekeyed.PREDICTIONS)]
            assert [row["window_n"] for row in closed] == [1]


def turns(test: InsideTest, number: int) -> None:
    """Turn both flows so often."""
    for _ in range(number):
        for worker in test.workers:
            worker.turn()
        test.clock.advance(0.01)


# ---------------------------------------------------------------------- the bugs


def bug(patch: Patch, owner: Any, name: str, line: str, wrong: str) -> None:
    """Put a bug into a function: its source with some words replaced."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(line) == 1, f"{name} has no {line!r} any more: seed the bug where it went"
    names: dict[str, Any] = {}
    exec(compile(source.replace(line, wrong), f"<{name}>", "exec"), function.__globals__, names)
    patch.setattr(owner, name, names[name])


def a_block_of_other_offsets_follows(patch: Patch) -> None:
    bug(patch, Restore, "_follows", " and progress.next in ([], first)", "")


def only_the_last_tick_of_a_batch(patch: Patch) -> None:
    bug(patch, RekeyedWindows, "_ticks", "moved = np.flatnonzero(reached[1:] > reached[:-1])",
        "moved = np.flatnonzero(reached[1:] > reached[:-1])[-1:]")  # fmt: skip


def no_log_time_in_the_header(patch: Patch) -> None:
    bug(patch, Forward, "records", "= batch.timestamps_ms, told.watermarks", "= 0, told.watermarks")


def upstreams_lost_in_long_blocks(patch: Patch) -> None:
    bug(patch, changelog, "encode", "delta.upstreams if part == 0 else", "delta.upstreams if len(cuts) == 2 else")


def silence_is_told_once_whatever_became_of_it(patch: Patch) -> None:
    bug(patch, PartitionTimes, "open", "self.silent.discard(partition)", "pass")


BUGS: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (a_block_of_other_offsets_follows, zombie_in_the_chain),
    (only_the_last_tick_of_a_batch, time_goes_on_within_a_batch),
    (no_log_time_in_the_header, log_times_travel),
    (upstreams_lost_in_long_blocks, long_commits_restore),
    (silence_is_told_once_whatever_became_of_it, silence_of_a_lost_transaction),
]
SCENARIOS = [scenario for _, scenario in BUGS]


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_without_a_bug_everything_is_right(scenario: Callable[[], None]) -> None:
    scenario()


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(("seeded", "scenario"), BUGS, ids=lambda each: each.__name__)
def test_each_bug_is_caught(seeded: Callable[[Patch], None], scenario: Callable[[], None], monkeypatch: Patch) -> None:
    seeded(monkeypatch)
    with pytest.raises((AssertionError, StreamerError, LookupError)):
        scenario()
