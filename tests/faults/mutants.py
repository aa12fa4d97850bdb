"""The service with one seeded bug, to prove that the checker would notice: `python -m tests.faults.mutants BUG run ...`.

BUG is a key of `BUGS`, or `none`. The environment may also script a fault at an exact commit of this process:
MUTANT_FAULT=abort@3 fails the third commit, crash@3 kills the process right after it, crash-in-flight@3 does so
while later rows are polled and not finished, crash-tick@3 after one that moves a watermark by itself, crash-leaving@3
after one with rows that leave a join, pause@3 stops the process before it, as a zombie that others believe dead;
several are joined by a plus sign, in the order in which they happen.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer, TopicPartition

from streamer.changelog.restore import Restore, Restored
from streamer.first_instant import leave_when_told
from streamer.kafka.clients import KafkaClients
from streamer.operators.rolling.stage import WindowStage
from streamer.operators.rolling.store import RollingStore
from streamer.stages.commit.commit import Commit
from streamer.stages.commit.committing import Job
from streamer.stages.commit.doubt import Doubt
from streamer.stages.commit.transaction import Transaction, TransactionError
from streamer.stages.consume.consume import Consume
from streamer.stages.produce.produce import Produce
from streamer.state.delta import TICK
from tests.faults.mutants_joined import follower_offsets_not_committed, tick_not_logged, waiting_rows_lost

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from streamer.rows.batch import Batch

FAULT_VARIABLE = "MUTANT_FAULT"
HIT = "scripted fault hit"
IN_FLIGHT_S = 1.0
STOPS_WITHIN_S = 0.5


class Live:
    """The stages of this process, noted as they are made; a process has one worker."""

    consume: Consume
    commit: Commit
    plain: Producer
    before_joining: Any


def _note_the_stages() -> None:
    make_consume, make_commit, make_producer = Consume.__init__, Commit.__init__, KafkaClients.producer

    def consume(self: Consume, *args: Any, **settings: Any) -> None:
        make_consume(self, *args, **settings)
        Live.consume = self
        Live.before_joining = self._consumer.consumer_group_metadata()

    def commit(self: Commit, *args: Any, **settings: Any) -> None:
        make_commit(self, *args, **settings)
        Live.commit = self

    def producer(self: KafkaClients, config: dict[str, Any]) -> Producer:
        plain = {key: value for key, value in config.items() if not key.startswith("transaction")}
        Live.plain = Producer(plain)
        return make_producer(self, config)

    Consume.__init__ = consume  # type: ignore[method-assign]
    Commit.__init__ = commit  # type: ignore[method-assign] # noted as it is made
    KafkaClients.producer = producer  # type: ignore[method-assign]


def no_rewind_after_abort() -> None:
    """After a rollback reading goes on where the consumer stands, not at the committed offset."""
    seek, seen = Consume.seek, set[int]()

    def keep_going(self: Consume, partition: int, offsets: Mapping[str, int]) -> None:
        here = self._consumer.position([TopicPartition(self.lead, partition)])[0].offset
        again = partition in seen and here > offsets[self.lead]
        seen.add(partition)
        seek(self, partition, {self.lead: here} if again else offsets)

    Consume.seek = keep_going  # type: ignore[method-assign]


def position_committed() -> None:
    """Commits cover what was polled instead of what was finished."""
    run = Job.run

    def cover_the_polled(self: Job, passable: threading.Event) -> dict[int, int]:
        # Said when the commit is carried out: the worker has gone on polling since it was started.
        position = Live.consume._position
        for batch in self.batches:
            batch.owed = {p: max(offset, position.get((batch.topic, p), 0)) for p, offset in batch.owed.items()}
        # In the job itself, which nothing of ours changes: the worker goes on from what it says.
        object.__setattr__(self, "steps", Live.commit._steps(_transaction(self)))
        object.__setattr__(self, "offsets", tuple(Live.commit._numbered(self.steps)))
        return run(self, passable)

    Job.run = cover_the_polled  # type: ignore[method-assign] # the bug, put in its place


def outputs_outside_the_transaction() -> None:
    """Outputs go through a producer of their own; only offsets and state are transactional."""
    send = Produce.send

    def send_plainly(self: Produce, producer: Producer) -> Batch | None:
        assert producer is not Live.plain
        sent = send(self, Live.plain)
        Live.plain.flush(10.0)
        return sent

    Produce.send = send_plainly  # type: ignore[method-assign]


def state_not_rolled_back() -> None:
    """A rollback leaves the windows as the aborted rows made them."""
    make = WindowStage.open

    def keep(self: Any, partition: int) -> RollingStore | None:
        if partition in self.stores and self.spec is not None:
            return RollingStore(self.spec, self.keys_max)  # restored, and looked at by nobody
        return make(self, partition)

    WindowStage.open = keep  # type: ignore[method-assign]


def restore_cut_short() -> None:
    """A restore applies the first half of the changelog and takes it for the whole."""
    read = Restore._read

    def half(self: Restore, progress: Any, message: Any, offset: int) -> None:
        if offset < progress.end // 2:
            read(self, progress, message, offset)

    def unchecked(self: Restore, partition: int, progress: Any) -> Restored:
        progress.finish(self._room)
        self.cancel([partition])
        return Restored(partition=partition, next=progress.committed, seq=progress.mark.seq or 0, rows=progress.rows)

    Restore._read, Restore._finish = half, unchecked  # type: ignore[method-assign]


def stale_group_metadata() -> None:
    """Commits carry the group metadata of start-up, so that the group cannot fence a zombie."""

    def stale(self: Consume) -> Any:
        assert self is Live.consume
        return Live.before_joining

    Consume.group_metadata = stale  # type: ignore[method-assign]


def resend_is_no_doubt() -> None:
    """A transaction of which a second copy may be on its way is taken for one that is over."""

    def trust(self: Doubt, reason: str, what: str) -> None:
        pass

    Doubt._note = trust  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        no_rewind_after_abort,
        position_committed,
        outputs_outside_the_transaction,
        state_not_rolled_back,
        restore_cut_short,
        stale_group_metadata,
        resend_is_no_doubt,
        tick_not_logged,
        follower_offsets_not_committed,
        waiting_rows_lost,
    )
}


def _transaction(job: Job) -> Transaction:
    """What a commit was made of."""
    return Transaction(0.0, batches=list(job.batches))


def _rows_in_flight(job: Job) -> bool:
    """Wait for rows that were polled after those of this commit, which the worker goes on doing meanwhile."""
    owed = _transaction(job).offsets()
    deadline = time.monotonic() + IN_FLIGHT_S
    while time.monotonic() < deadline:
        if any(Live.consume._position.get(p, 0) > offset for p, offset in owed.items()):
            return True
        time.sleep(0.002)
    return False


def _script(faults: list[tuple[str, int]]) -> None:
    """Carry out each fault at the first commit from its number on at which it can bite."""
    run = Job.run
    number = 0

    def hit() -> None:
        sys.stderr.write(f"{HIT}: {faults.pop(0)[0]} at commit {number}\n")
        sys.stderr.flush()

    def faulty(self: Job, passable: threading.Event) -> dict[int, int]:
        nonlocal number
        number += 1
        ticks = any((delta.slots == TICK).any() for batch in self.batches for delta in batch.deltas.values())
        fault, at = faults[0] if faults and (ticks or self.rows) else ("", 0)
        bites = {"crash-tick": ticks, "crash-leaving": any(map(len, self.batches))}.get(fault, True)
        due = fault if number >= at and bites else ""
        if due in {"abort", "pause"}:
            Live.commit.producer.flush(5.0)
            hit()
        in_flight = due == "crash-in-flight" and _rows_in_flight(self)
        if due == "abort":
            raise TransactionError("scripted", "the mutant fails this commit", replace=False)
        if due == "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(STOPS_WITHIN_S)  # another thread may take the signal, and this one must not go on before it does
        blocks = run(self, passable)
        if due in {"crash", "crash-tick", "crash-leaving"} or in_flight:
            hit()
            os.kill(os.getpid(), signal.SIGKILL)
        return blocks

    Job.run = faulty  # type: ignore[method-assign]  # that is the bug


def _parse(script: str) -> list[tuple[str, int]]:
    steps = [step.partition("@") for step in script.split("+") if step]
    return [(fault, int(at)) for fault, _, at in steps]


def main() -> None:
    leave_when_told()
    bug = sys.argv.pop(1)
    _note_the_stages()
    if bug != "none":
        BUGS[bug]()
    _script(_parse(os.environ.get(FAULT_VARIABLE, "")))
    from streamer.cli import app  # noqa: PLC0415 - only now: the bug must be in place first

    app()


if __name__ == "__main__":
    main()
