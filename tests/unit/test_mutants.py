"""The checks are checked: each bug seeded here must be noticed by what the other tests use to judge a run."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from streamer import limits
from streamer.changelog.progress import Progress
from streamer.changelog.restore import Restore, Restored
from streamer.codecs.json import JsonCodec
from streamer.errors import StreamerError
from streamer.kafka.refusals import DeliveryReport
from streamer.operators.infer.stage import Infer
from streamer.operators.rolling.stage import WindowStage
from streamer.operators.rolling.store import RollingStore
from streamer.rows.batch import Batch
from streamer.rows.outgoing import Outgoing
from streamer.rows.records import Records
from streamer.stages.commit.committing import Job
from streamer.stages.commit.doubt import Doubt
from streamer.stages.commit.exactly_once import InTransaction
from streamer.stages.commit.transaction import Transaction
from streamer.stages.consume.consume import Consume
from streamer.stages.produce import produce as produce_stage
from streamer.stages.produce.produce import Produce
from streamer.state.keys import Keys, SlotPlan
from tests.kit import flows
from tests.kit.bugs import (
    a_tick_lost_at_a_revoke,
    half_accepted_batches_sent_again,
    no_rewind_after_abort,
    outputs_outside_the_transaction,
)
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.late import LateScript, LateTest
from tests.kit.second import Second
from tests.kit.silence import silent_partitions_go
from tests.kit.steps import Step, play, windows_are_right

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")
Patch = pytest.MonkeyPatch


# ---------------------------------------------------------------------- the scenarios


def some(first: int, rows: int = 9) -> list[Step]:
    """Good rows of keys in both partitions with a bad one among them; no value comes twice, so that no mix-up cancels out."""
    good: list[Step] = [("good", "abd"[n % 3], first + n) for n in range(rows)]
    return [*good[:4], ("bad", "a", b"{"), *good[4:]]


def failing_commits() -> Iterator[list[Step]]:
    """Rows before, during and after a transaction that fails at each of its calls."""
    for call in ("produce_changelog", "offsets", "commit"):
        for kind in ("abortable", "fatal"):
            before, after = [*some(0), ("turn", 8, None)], [*some(200), ("turn", 3, None)]
            yield [*before, ("fault", call, kind), *some(100, 5), ("turn", 4, None), *after]


def crashes() -> Iterator[list[Step]]:
    """A crash after each number of turns, and once more when the next worker has gone on."""
    again: Step = ("restart", None, None)
    for turns in range(1, 9):
        yield [*some(0), ("turn", turns, None), *some(100, 5), again, *some(200), ("turn", turns, None), again]


def full_queues() -> Iterator[list[Step]]:
    """A producer that takes half of a batch."""
    yield [*some(0), ("fault", "produce_batch", "full"), ("turn", 5, None), *some(100)]


def judge(test: FaultTest) -> None:
    verdict = flows.judge(test.log)
    assert verdict.exactly_once, verdict
    assert windows_are_right(test)
    assert test.log.open == {}


def run_scripts(scripts: Iterator[list[Step]]) -> None:
    for steps in scripts:
        with FaultTest(flows.topology(), models=flows.score, partitions=2) as test:
            play(test, steps)
            test.settle(fail=True)
            judge(test)


def run_rebalance() -> None:
    """A partition moves while its rows are in the hands of the client."""
    with FaultTest(flows.topology(), models=flows.score, partitions=2) as test:
        test.turns(3)
        play(test, some(0))
        test.group_consumer.fetches_first = True
        test.move("on_revoke", [1])
        with Second(test) as second:
            second.consumer.moves.append(("on_assign", [1]))
            second.run_both()
        verdict = flows.judge(test.log)
        assert verdict.exactly_once, verdict


def run_in_flight() -> None:
    """Rows are with the model while a commit of older ones ends, well or badly; then the worker dies or goes on."""
    for kind in ("", "abortable"):
        for dies in (True, False):
            with FaultTest(flows.topology(), models=flows.score, partitions=2) as test:
                play(test, [*some(0), ("turn", 8, None), *some(100), ("turn", 1, None)])
                test.scores_held = True
                if kind:
                    test.script.fail_next("commit", kind)
                play(test, [*some(200), ("turn", 7, None)])
                assert test.worker.pipeline.infer.rows > 0
                test.scores_held = False
                if dies:
                    test.crash()
                test.settle()
                judge(test)


def run_late_copies() -> None:
    """Each request of a transaction is sent twice, and the copy arrives at each step of the next one."""
    for delayed in ("offsets", "commit"):
        for arrives in ("produce_batch", "produce_changelog", "offsets", "commit"):
            with LateTest(flows.topology(), models=flows.score, partitions=2, script=LateScript()) as test:
                test.delay(delayed, arrives)
                play(test, [*some(0), ("turn", 8, None), *some(100), ("turn", 8, None), ("restart", None, None), *some(200)])
                test.settle()
                judge(test)


def run_silence() -> None:
    """Partitions go while a transaction holds the word that they are silent, and nothing else."""
    for turns in range(1, 8):
        silent_partitions_go(turns)


def run_pressure() -> None:
    """A model that stands still until the input is paused."""
    with FaultTest(flows.topology(), models=flows.score, partitions=2) as test:
        for n in range(limits.ROWS_UNSCORED_MAX + 100):
            test.send_bytes(flows.SOURCE, b"a", flows.value_of("a", test.now, float(n % 9)))
        test.scores_held = True
        test.turns(150)
        assert test.worker._consume.paused
        assert test.worker.pipeline.infer.rows <= limits.ROWS_UNSCORED_MAX
        test.release()
        test.settle()


def run_joints() -> None:
    """Two records in one value and none in the next."""
    whole = flows.value_of("a", 1_700_000_000.0, 1.0)
    run_scripts(iter([[("good", "a", 1), ("bad", "a", whole + whole), ("bad", "a", b""), ("good", "a", 2)]]))


SCENARIOS: dict[str, Callable[[], None]] = {
    "failing commits": lambda: run_scripts(failing_commits()),
    "crashes": lambda: run_scripts(crashes()),
    "full queues": lambda: run_scripts(full_queues()),
    "in flight": run_in_flight,
    "rebalance": run_rebalance,
    "late copies": run_late_copies,
    "pressure": run_pressure,
    "silence": run_silence,
    "joints": run_joints,
}


# ---------------------------------------------------------------------- the bugs


def state_not_rolled_back(patch: Patch) -> None:
    """A rollback leaves the windows as the aborted rows made them."""
    make = WindowStage.open

    def keep(self: WindowStage, partition: int) -> RollingStore | None:
        if partition in self.stores and self.spec is not None:
            return RollingStore(self.spec, self.keys_max)
        return make(self, partition)

    patch.setattr(WindowStage, "open", keep)


def position_instead_of_owed(patch: Patch) -> None:
    """A commit covers whatever was polled."""
    offsets, place = Transaction.offsets, Consume.group_metadata
    live: list[Consume] = []

    def note(self: Consume) -> Any:
        live[:] = [self]
        return place(self)

    def polled(self: Transaction) -> dict[tuple[str, int], int]:
        found = offsets(self)
        return {p: max(offset, live[0]._position.get(p, 0)) for p, offset in found.items()} if live else found

    patch.setattr(Consume, "group_metadata", note)
    patch.setattr(Transaction, "offsets", polled)


def offsets_outside_the_transaction(patch: Patch) -> None:
    """Offsets are committed before the transaction is."""

    def commit(self: InTransaction, job: Job, _passable: threading.Event) -> dict[int, int]:
        producer: Any = self.requests.client
        blocks = self.writer.write(job, producer, self.refusals)
        producer._log.commit(job.member, list(job.offsets))
        producer.send_offsets_to_transaction([], job.member, 1.0)
        self.requests.call("commit", producer.commit_transaction)
        return blocks

    patch.setattr(InTransaction, "__call__", commit)


def restore_cut_short(patch: Patch) -> None:
    """A restore takes the first half of the changelog for the whole."""
    read = Restore._read

    def half(self: Restore, progress: Progress, message: Any, offset: int) -> None:
        if offset < progress.end // 2:
            read(self, progress, message, offset)

    def unchecked(self: Restore, partition: int, progress: Progress) -> Restored:
        progress.finish(self._room)
        self.cancel([partition])
        return Restored(partition=partition, next=progress.committed, seq=progress.mark.seq or 0, rows=progress.rows)

    patch.setattr(Restore, "_read", half)
    patch.setattr(Restore, "_finish", unchecked)


def stale_rows_kept(patch: Patch) -> None:
    """Rows fetched before a rewind, or for a partition that is gone, are worked on."""

    def keep(self: Consume, records: Records) -> Records:
        return records

    patch.setattr(Consume, "_fresh", keep)


def rows_in_flight_survive_a_rollback(patch: Patch) -> None:
    """Batches of the attempt that failed are delivered beside those of the next one."""
    patch.setattr(Infer, "drop", lambda self: None)
    patch.setattr(Produce, "drop", lambda self: None)


def keys_mixed(patch: Patch) -> None:
    """All keys of a partition share one window."""
    plan_slots = Keys.plan_slots

    def one(self: Keys, keys: list[bytes], times: Any) -> SlotPlan:
        return plan_slots(self, keys[:1] * len(keys), times)

    patch.setattr(Keys, "plan_slots", one)


def half_accepted_batches_taken_for_whole(patch: Patch) -> None:
    """What the full queue refused is forgotten."""
    send = produce_stage._send_rows

    def forget(producer: Producer, outgoing: Outgoing, report: DeliveryReport | None) -> bool:
        send(producer, outgoing, report)
        outgoing.rows.clear()
        return True

    patch.setattr(produce_stage, "_send_rows", forget)


def dead_letters_forgotten(patch: Patch) -> None:
    """A bad record leaves no trace."""
    patch.setattr(Produce, "_send_letters", lambda *_: True)


def never_resumed(patch: Patch) -> None:
    """A pause is for ever."""
    patch.setattr(Consume, "resume", lambda self: None)


def no_bound(patch: Patch) -> None:
    """A slow model makes memory grow."""
    submit = Infer.submit

    def uncounted(self: Infer, batch: Batch) -> None:
        submit(self, batch)
        self.rows = 0

    patch.setattr(Infer, "submit", uncounted)


def values_counted(patch: Patch) -> None:
    """Records are joined, parsed in one go and believed if their number is right."""
    parse = JsonCodec.read

    def joined(self: JsonCodec, records: Records) -> tuple[list[Any], dict[int, Any]]:
        try:
            events = msgspec.json.Decoder(self.event).decode_lines(b"\n".join(value or b"" for value in records.values))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return parse(self, records)
        return (events, {}) if len(events) == len(records) else parse(self, records)

    patch.setattr(JsonCodec, "read", joined)


def a_resend_is_no_doubt(patch: Patch) -> None:
    """However long a request took, the producer goes on."""
    patch.setattr(Doubt, "took", lambda *_: None)


BUGS: dict[Callable[[Patch], None], str] = {
    no_rewind_after_abort: "failing commits",
    state_not_rolled_back: "failing commits",
    position_instead_of_owed: "in flight",
    outputs_outside_the_transaction: "failing commits",
    offsets_outside_the_transaction: "failing commits",
    rows_in_flight_survive_a_rollback: "in flight",
    dead_letters_forgotten: "failing commits",
    keys_mixed: "failing commits",
    restore_cut_short: "crashes",
    stale_rows_kept: "rebalance",
    half_accepted_batches_sent_again: "full queues",
    half_accepted_batches_taken_for_whole: "full queues",
    never_resumed: "pressure",
    no_bound: "pressure",
    values_counted: "joints",
    a_resend_is_no_doubt: "late copies",
    a_tick_lost_at_a_revoke: "silence",
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_a_bug_every_scenario_passes(name: str) -> None:
    SCENARIOS[name]()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_caught(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    monkeypatch.setattr("streamer.testing.topology._TURNS_MAX", 400)
    bug(monkeypatch)
    with pytest.raises((AssertionError, StreamerError, LookupError)) as caught:
        SCENARIOS[BUGS[bug]]()
    assert str(caught.value)
