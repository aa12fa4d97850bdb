"""The worker: one thread that reads, feeds a pipeline, sends and commits. `Worker.turn` is the only control flow there is."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

from confluent_kafka import KafkaException

from streamer import limits
from streamer.operators.operator import EngineError
from streamer.rows.records import Records
from streamer.stages.commit.transaction import Committed, TransactionError
from streamer.telemetry.logs import get_logger
from streamer.worker.parts import Parts

_log = get_logger(__name__)

# A turn takes milliseconds, a rebalance or a broker time-out up to half a minute.
_STUCK_AFTER_S = 120.0
_MEND_PAUSE_S = 0.5


class Worker:
    """Runs one plan. All happens on the thread that calls `turn`, but model runs, commits and applying what a restore read.

    Args:
        parts: what it consists of, see `parts_of`.
    """

    def __init__(self, parts: Parts) -> None:
        self.plan, self.clock, self.metrics = parts.plan, parts.clock, parts.metrics
        self.pipeline, self._laps = parts.pipeline, parts.pipeline.laps
        self._consume, self._at_rest, self._produce, self._commit = parts.consume, parts.at_rest, parts.produce, parts.commit
        self._room, self._bases, self._assignment, self._watch = parts.room, parts.bases, parts.assignment, parts.watch
        self._breaker, self._fences, self._book = parts.breaker, parts.fences, parts.book
        self._drain_timeout_s, self._stopping = parts.drain_timeout_s, threading.Event()
        self._failure: TransactionError | None = None
        self._full_since: float | None = None
        self._behind = False
        self._polled_at, self.last_turn = 0.0, parts.clock.monotonic()

    # ------------------------------------------------------------------ life
    def open(self) -> None:
        """Have the coordinator let our producer in, which fences whoever had its id; nothing is read yet.

        Raises:
            StreamerError: transactions are refused.
        """
        self._commit.open()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Turn until `stop` is called or `until` says so, then finish what was read and leave the group; `open` comes first.

        Raises:
            StreamerError: the service cannot go on; nothing is half done.
        """
        self._consume.subscribe(self)
        try:
            while not self._stopping.is_set() and not until():
                self.turn()
            self._drain()
        except Exception as error:
            # Leaving the group must not commit what a bug may have spoiled.
            self._failure = TransactionError("stopping", error, replace=True)
            raise
        finally:
            self.close()

    def start(self) -> None:
        """Open, and join the group without turning; for who turns by hand."""
        self.open()
        self._consume.subscribe(self)

    def stop(self) -> None:
        """Ask `run` to end; safe from a signal handler or another thread."""
        self._stopping.set()

    def close(self) -> None:
        """Leave the group at once; what is not committed is redone by who comes next."""
        with ExitStack() as last:  # one that fails leaves no thread of the others
            for part in (self._assignment, self.pipeline, self._commit, self._consume):
                last.callback(part.close)

    def live(self) -> str | None:
        """None while the loop turns; otherwise why this process should be restarted."""
        stuck = self.clock.monotonic() - self.last_turn
        if stuck >= _STUCK_AFTER_S:
            return f"the worker's loop has not turned for {stuck:.0f} s"
        return self.pipeline.stuck()

    def ready(self) -> str | None:
        """None when rows can flow; otherwise what is waited for."""
        if (trouble := self.live() or self._breaker.describe()) is not None:
            return trouble
        if (left := self._consume.left()) is not None:
            return left
        if not self._assignment.member:
            return "joining the group: it has not said yet which partitions are ours"
        if (failure := self._failure) is not None:
            return f"rolling back to the last commit: {failure}"
        return self._commit.describe() or self._assignment.describe()

    def abandon(self) -> None:
        """End the threads and leave everything else as a crash would; for tests."""
        self._commit.close()
        self.pipeline.close()

    # ------------------------------------------------------------------ the data's way
    def turn(self) -> None:
        """Move rows one step further.

        1. consume  ask how much room there is, then poll at most that many records
        2. decode   records become columns; bad ones become dead letters
        3. window   keyed state advances; windows become features
        4. infer    the batch goes to the pool; older batches come back
        5. flag     scores become decisions
        6. produce  results go to the producer, as far as it has room
        7. commit   outputs, state and offsets become visible together

        Steps 2 to 5, and how a result is written, are the pipeline's. What it holds may come out turns later than it went in.
        A transaction that failed is mended first, with a pause where brokers refuse it again and again; restores get a share.
        """
        self.last_turn = self.clock.monotonic()
        self._watch.look()
        try:
            if (self._failure and not self._breaker.left_s and not self._mended()) or self._rests():
                return
            if self._assignment.restoring:
                self._assignment.step(0.01 if self.idle else 0.0)
            for records in self._polled():
                self.pipeline.feed(records, self._polled_at)
            if self._failure is None:
                self._advance()
                self._deliver(self._room.patience(behind=self._behind))
                self._settle_commit(0.0)
        except TransactionError as failure:
            self._fail(failure)
            if failure.cause == "input":
                self._watch.hurry()
        self._gauges()

    def _gauges(self) -> None:
        self._book.gauges(self._consume, self.pipeline.window, self.pipeline.rows, self._produce.rows + self._commit.rows)

    def _polled(self) -> list[Records]:
        """Stage 1: as many records as there is room for, one entry per input."""
        rows = self._room.rows()
        if rows <= 0:
            self._stalled()
            return []
        if self._consume.paused and self._room.half_free:
            self._consume.resume()
            _log.info("resumed")
        self._full_since = None
        self._laps.start()
        awaited = self.held_back or self._assignment.awaited
        timeout = 0.0 if self._assignment.busy else self._room.idle_for(behind=self._behind, awaited=awaited)
        records = self._consume.poll(rows, timeout, self._room.gather_s(behind=self._behind))
        self._behind = sum(map(len, records)) == rows
        self._polled_at = self._book.polled(records, waited=timeout > 0)
        return records if self._failure is None else []  # a rebalance may have come with them

    def _advance(self) -> None:
        """Stages 3 and 4 for what no poll brought about: rows whose time has come, and the ends of partitions at rest."""
        self.pipeline.advance(self._room.rows)
        for topic, partition, offset in self._at_rest.ends():
            self.pipeline.skip(topic, partition, offset)

    def _deliver(self, wait_s: float) -> None:
        """Stages 4 to 6: what is done is handed to the producer."""
        try:
            for outgoing in self.pipeline.done(wait_s):
                self._produce.add(outgoing)
        except EngineError as ill:
            raise TransactionError("engine", ill, replace=False, refused=True) from ill
        if not self._commit.admits():
            return
        while len(self._produce):
            self._laps.start()
            self._commit.begin()
            sent = self._produce.send(self._commit.producer)
            self._laps.lap("produce")
            if sent is None:
                self._laps.blocked("produce", self._commit.serve, 0.01)
                return
            self._commit.add(sent)
        self._commit.serve()

    def _settle_commit(self, wait_s: float) -> None:
        """Stage 7: take note of a commit that ended, start one that is due."""
        if (done := self._commit.reap(wait_s)) is not None:
            self._note(done)
        if self._commit.due_in(behind=self._behind) == 0.0:
            self._watch.look()  # nothing is committed once a topic is known to be another one
            self._commit.start(self._consume.group_metadata(), self.pipeline.window.stores, quiet=self._room.produced)

    def _note(self, done: Committed) -> None:
        wait = self._stopping.is_set() or bool(done.trims)
        certain = self._commit.settle(done, wait=wait)
        if self._bases is not None and certain:
            self._bases.trim(done.trims)
        self._breaker.committed(done, self._assignment.partitions)
        self._book.committed(done)

    # ------------------------------------------------------------------ room and patience
    @property
    def idle(self) -> bool:
        """Whether nothing is anywhere between poll and commit, ticks without rows included."""
        return self._room.produced and not self._commit.pending

    @property
    def held_back(self) -> bool:
        """Whether rows wait only until it is certain that nothing comes before them."""
        return self.pipeline.due

    def let_commit(self, timeout_s: float) -> None:
        """Wait for a commit under way, if there is one."""
        self._commit.wait(timeout_s)

    def _stalled(self) -> None:
        """No room: wait for the stage that is full; when it lasts, pause, and keep polling so that the group keeps us."""
        now = self.clock.monotonic()
        self._full_since = self._full_since or now
        if not self._consume.paused and now - self._full_since > limits.STALL_BEFORE_PAUSE_S:
            self._consume.pause()
            self.metrics.add("streamer_pauses_total")
            _log.info("paused", unscored=self.pipeline.rows, uncommitted=self._commit.rows)
        self._consume.poll(0, 0.0, 0.0)
        if self._failure is not None:
            return  # a rebalance came with it: what is open is void
        if self._room.unscored_full:
            self._laps.blocked("infer", self._deliver, 0.01)
        else:
            self._laps.blocked("commit", self._settle_commit, 0.01)

    # ------------------------------------------------------------------ rebalances (called from inside poll)
    def assigned(self, partitions: list[int]) -> None:
        """Partitions are ours: their windows are restored before a row is read."""
        _log.info("partitions_assigned", topic=self._consume.lead, partitions=partitions)
        self.metrics.add("streamer_rebalances_total", 1, "assigned")
        self._assignment.joined = True
        self._assignment.begin(partitions)

    def revoked(self, partitions: list[int]) -> None:
        """Partitions go: finish and commit what was read, within a budget; the rest is redone by the next owner."""
        started = self.clock.monotonic()
        self.metrics.add("streamer_rebalances_total", 1, "revoked")
        if self._failure is None:
            try:
                if not self._settled(started + limits.REVOKE_BUDGET_S):
                    self._fail(TransactionError("revoked", "rows were still in flight", replace=False))
            except TransactionError as failure:
                self._fail(failure)
        self._assignment.end(partitions)
        self._breaker.ill.forget()
        stalled, clean = self.clock.monotonic() - started, self._failure is None
        self.metrics.add("streamer_rebalance_stall_seconds_total", stalled)
        what = {"topic": self._consume.lead, "partitions": partitions}
        _log.info("partitions_revoked", stalled_ms=round(stalled * 1e3), clean=clean, **what)

    def lost(self, partitions: list[int]) -> None:
        """Partitions are gone already: whatever they had open must not be committed."""
        _log.warning("partitions_lost", topic=self._consume.lead, partitions=partitions)
        self.metrics.add("streamer_rebalances_total", 1, "lost")
        self._fail(TransactionError("lost", "the group gave our partitions to somebody else", replace=False))
        self._assignment.lost(partitions)
        self._breaker.ill.forget()

    def _settled(self, deadline: float) -> bool:
        """Finish and commit everything in flight; whether that worked before `deadline`."""
        while not self.idle:
            if self.clock.monotonic() > deadline:
                return False
            self._deliver(0.005)
            if (done := self._commit.reap(0.005)) is not None:
                self._note(done)
            if self._room.produced and self._commit.due_in(behind=False) is not None:
                self._watch.look()
                self._commit.start(self._consume.group_metadata())
        return True

    # ------------------------------------------------------------------ after a failure
    def _rests(self) -> bool:
        """Whether a pause follows a refusal: then the group is answered, and nothing else is done."""
        if pause_s := self._breaker.left_s:
            self._consume.poll(0, min(pause_s, limits.BACKOFF_POLL_S), 0.0)
            self._gauges()
        return pause_s > 0

    def _fail(self, failure: TransactionError) -> None:
        """Roll back in the next turn. A failure that waits for that stays the cause, and what it asks for is done."""
        if self._failure is None:
            self._failure = failure
        else:
            self._failure.replace = self._failure.replace or failure.replace

    def _mended(self) -> bool:
        """Roll back to the last commit: abort, forget rows in flight, restore windows, read from the committed offsets."""
        failure = self._failure
        assert failure is not None, "mended without a failure"
        failure = self._failure = self._commit.reason(failure, self._consume.group_metadata)
        partitions, read = sorted(self._assignment.partitions), self._consume.read
        self._consume.hold(partitions)
        redone = self.pipeline.rows + self._produce.rows + self._commit.rows
        self.pipeline.drop()
        self._produce.drop()
        first = not failure.again  # of an outage, which may take hours: the same is not said again
        if first and (redone or not len(self._fences)):
            what = {"topic": self._consume.lead, "partitions": partitions, "rows": redone}
            _log.warning("rolling_back", cause=failure.cause, error=str(failure), **what)
        if failure.cause == "fenced" and first:
            self._fences.note()
        try:
            self._commit.give_up(replace=failure.replace)
            self._breaker.failed(failure, read)
            self._assignment.begin(partitions)
        except (KafkaException, TransactionError) as error:
            # The broker is away: stay in the group as well as we can, and try again.
            self._failure = TransactionError(failure.cause, error, replace=True, again=True)
            if str(self._failure) != str(failure):
                _log.warning("rollback_waits", error=str(error))
            self._consume.poll(0, 0.0, 0.0)
            self._stopping.wait(_MEND_PAUSE_S)
            return False
        self._failure = None
        self.metrics.add("streamer_recoveries_total", 1, failure.cause)
        self.metrics.add("streamer_rows_redone_total", redone)
        return True

    # ------------------------------------------------------------------ the end
    def _drain(self) -> None:
        """Finish what was read, within the drain budget."""
        if self._failure is not None:
            return
        deadline = self.clock.monotonic() + self._drain_timeout_s
        self._consume.hold(sorted(self._assignment.partitions))
        try:
            clean = self._settled(deadline)
        except TransactionError as failure:
            clean, self._failure = False, failure
        _log.info("drained", clean=clean)
