"""One run: what is set up, what load is offered, how it settles, and the verdict."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

from confluent_kafka import IsolationLevel, KafkaException

from tests.faults import schedule
from tests.faults.cluster import TimedOutError, wait_for
from tests.faults.evidence import nothing_waits
from tests.faults.make_model import write_model
from tests.faults.names import JOIN_IDLE_S, closing_idle_s
from tests.faults.outcome import Outcome
from tests.faults.strikes import DRAIN_S, START_S, Strikes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streamer.dev_broker import DevBroker
    from tests.faults.cluster import Cluster
    from tests.faults.log import Position
    from tests.faults.outcome import Plan
    from tests.faults.processes import Child, Crew
    from tests.faults.proxy import Proxy

SESSION_MS = 6_000
TRANSACTION_S = 10.0
LOAD_S_MAX = 900.0
SETTLE_S = 90.0
QUIET_S = 3.0
VERDICT_S = 300.0


class Run:
    """One run in flight."""

    def __init__(
        self, plan: Plan, cluster: Cluster, crew: Crew, broker: DevBroker | None = None, proxy: Proxy | None = None
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._crew = crew
        self.outcome = Outcome(plan)
        self.strikes = Strikes(self.outcome, cluster, crew, broker, proxy)
        self._ends: dict[Position, int] = {}

    def go(self) -> Outcome:
        """Set up, offer the load, inject the faults, settle, stop, judge."""
        start = time.monotonic()
        try:
            for phase in (self.begin, self._inject, self.end):
                if not self.carried_out(phase):
                    break
        finally:
            self._crew.bury()
            self.outcome.seconds = time.monotonic() - start
        return self.outcome

    def carried_out(self, phase: Callable[[], None]) -> bool:
        """Whether a phase came to its end; otherwise the outcome says what was waited for, and where the workers were."""
        try:
            phase()
        except (TimedOutError, KafkaException) as error:
            stacks = (f"worker {slot}:\n{child.abort()}" for slot, child in self._crew.workers.items())
            self.outcome.failures.append("\n".join((f"{error}: {self._cluster.state()}", *stacks)))
            return False
        return True

    def begin(self) -> None:
        """Topics, reader, workers, load."""
        write_model(self._crew.folder / "models")
        self._create_topics()
        self._watcher = self._watch()
        self._start_workers()
        self._generator = self._generate()

    def end(self) -> None:
        """The load ends; everything heals, stops and is judged."""
        self._finish(self._generator)
        self._settle()
        self._stop_workers()
        if self._watcher.stop(DRAIN_S) != 0:
            self.outcome.failures.append(f"the concurrent reader failed:\n{self._watcher.tail()}")
        self._judge()

    def _create_topics(self) -> None:
        self._cluster.create_topics()

    @property
    def _watched(self) -> Path:
        return self._crew.folder / "watched.jsonl"

    def _watch(self) -> Child:
        return self._crew.start_module("checker", "watch", "--watched", str(self._watched))

    def _start_workers(self) -> None:
        for slot in range(self._plan.workers):
            self._crew.start_worker(slot)
        wait_for("the group becoming stable", self._all_joined, START_S)

    def _all_joined(self) -> bool:
        for slot, child in self._crew.workers.items():
            if not child.running:
                raise TimedOutError(f"worker {slot} ended by itself with {child.process.returncode}; starting up")
        return self._cluster.members() == len(self._crew.workers)

    def _generate(self) -> Child:
        plan = self._plan
        seconds = plan.seconds + LOAD_S_MAX
        flags = {"events": int(plan.rate * seconds), "seconds": seconds, "seed": plan.seed}
        flags |= {"bad-share": plan.bad_share, "keys": plan.keys}
        return self._crew.start_module("generator", *(w for k, v in flags.items() for w in (f"--{k}", str(v))))

    def _inject(self) -> None:
        """Walk through the schedule; the load goes on at least as long."""
        start = time.monotonic()
        for fault in schedule.draw(self._plan.seed, self._plan.faults):
            self.strikes.strike(fault)
        self.strikes.bring_all_back()
        self.strikes.pass_time(start + self._plan.seconds - time.monotonic())

    def expect_load(self) -> None:
        """Events are offered still."""
        if not self._generator.running:
            raise TimedOutError(f"the load ended before its time:\n{self._generator.tail()}")

    def _finish(self, generator: Child) -> None:
        if not generator.running:
            self.outcome.failures.append(f"the load ended before the faults did:\n{generator.tail()}")
        generator.send(signal.SIGTERM)
        wait_for("the generator's end", lambda: not generator.running, 60.0)
        if generator.process.returncode != 0:
            self.outcome.failures.append(f"the generator failed:\n{generator.tail()}")

    def _settle(self) -> None:
        """Everything heals: all workers are back, the lag goes to zero and no transaction stays open."""

        def settled() -> bool:
            self.strikes.look_around()
            return self._cluster.settled() and self._cluster.members() == len(self._crew.workers)

        waited = wait_for("lag and open transactions reaching zero", settled, SESSION_MS / 1000.0 + TRANSACTION_S + SETTLE_S)
        if self._plan.flow == "closing":
            self.strikes.pass_time(closing_idle_s())
            waited += closing_idle_s() + wait_for("the last windows closing", self._quiet, SETTLE_S, QUIET_S)
        if self._plan.flow == "joined":
            # What waits for another input leaves once all are silent; only workers know when nothing waits any more.
            waited += wait_for("no row waiting in a join", lambda: nothing_waits(self._crew), JOIN_IDLE_S + SETTLE_S)
            waited += wait_for("the last commits", settled, SETTLE_S)
        self.outcome.proofs.append(f"settled {waited:.1f} s after the last input")

    def _quiet(self) -> bool:
        """Whether nothing was written since this was asked last."""
        before, self._ends = self._ends, self._cluster.ends(self._cluster.names.outputs, IsolationLevel.READ_UNCOMMITTED)
        return before == self._ends and self._cluster.settled()

    def _stop_workers(self) -> None:
        for slot in sorted(self._crew.workers):
            self.strikes.expect_clean_exit(slot)

    def _final_state(self) -> Path:
        out = self._crew.folder / "state.jsonl"
        state = self._crew.start_module("final_state", "--models", str(self._crew.folder / "models"), "--out", str(out))
        wait_for("the final state", lambda: not state.running, 90.0)
        if state.process.returncode != 0:
            self.outcome.failures.append(f"the final state cannot be restored:\n{state.tail()}")
        return out

    def _judge(self) -> None:
        flags = ["--model", str(self._crew.model), "--watched", str(self._watched)]
        if self._plan.flow in {"rolling", "rekeyed"}:
            flags += ["--state", str(self._final_state())]
        checker = self._crew.start_module("checker", "verify", *flags)
        wait_for("the checker's verdict", lambda: not checker.running, VERDICT_S + self._plan.seconds)
        text = checker.log.read_text()
        if checker.process.returncode not in {0, 1} or "{" not in text:
            self.outcome.failures.append(f"the checker gave no verdict:\n{checker.tail()}")
            return
        self.outcome.verdict = json.loads(text[text.index("{") :])
        cuts = self.outcome.faults["kill"] + self.outcome.faults["kill-twice"]
        if cuts and self.outcome.verdict["aborted"] == 0:
            self.outcome.unproven.append("no aborted result in the log: the kills cut no transaction")
