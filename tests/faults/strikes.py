"""The faults, each carried out at a moment that is proven, not hoped for.

A strike waits until its moment has come (bounded), and returns what it saw at that moment. Whatever a strike takes away
comes back later, while other strikes go on.
"""

from __future__ import annotations

import heapq
import json
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from confluent_kafka import IsolationLevel, KafkaException

from tests.faults.cluster import TimedOutError, wait_for
from tests.faults.evidence import Story, is_stopped, story
from tests.faults.net_strikes import RULES, break_network
from tests.faults.storm import SECONDS_MAX, SERVED_MIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streamer.dev_broker import DevBroker
    from tests.faults.cluster import Cluster
    from tests.faults.log import Position
    from tests.faults.outcome import Outcome
    from tests.faults.processes import Child, Crew
    from tests.faults.proxy import Proxy
    from tests.faults.schedule import Fault, Kind, NetworkKind

START_S = 90.0
DRAIN_S = 20.0
HIT_WITHIN_S = 30.0
RESTORING_WITHIN_S = 90.0
PAUSED_MAX_S = 40.0
AWAKE_S = 30.0
STORM_S = 10.0
STUCK_S = 0.25


class NotProvenError(Exception):
    """The moment for a fault did not come, or nothing shows that the fault hit."""


@dataclass(frozen=True, slots=True)
class Caught:
    """A worker that stands still with its transaction open.

    Attributes:
        slot: the worker's.
        held: partitions of the outputs that its transaction holds, with the offset readers are stuck at.
        seen: the same in words, with the lag.
    """

    slot: int
    held: dict[Position, int]
    seen: str


class Strikes:
    """Strikes workers, broker, group and network of one run, and brings back what it took away."""

    def __init__(
        self, outcome: Outcome, cluster: Cluster, crew: Crew, broker: DevBroker | None, proxy: Proxy | None = None
    ) -> None:
        self._outcome, self._cluster, self._crew, self._broker, self._proxy = outcome, cluster, crew, broker, proxy
        self._dice = random.Random(f"strikes {outcome.plan.seed}")
        self._comebacks: list[tuple[float, int]] = []
        self._shaken: set[int] = set()
        self._orphans: dict[Position, int] = {}

    def strike(self, fault: Fault) -> None:
        """Carry out one fault and note what proves it."""
        kinds: dict[Kind, Callable[[Fault], str]] = {
            "add": self._add,
            "remove": self._remove,
            "kill": self._kill,
            "kill-twice": self._kill_twice,
            "kill-restoring": self._kill_restoring,
            "pause-session": self._pause_past_session,
            "pause-transaction": self._pause_past_transaction,
            "broker-stop": self._restart_broker,
            "broker-kill": self._restart_broker,
            "storm": self._storm,
            **dict.fromkeys(RULES, self._network),
        }
        self.pass_time(fault.after_s * self._outcome.plan.hits)
        try:
            proof = kinds[fault.kind](fault)
        except NotProvenError as error:
            self._outcome.unproven.append(f"{fault.kind}: {error}")
        else:
            self._outcome.proofs.append(f"{fault.kind}: {proof}")
        self._outcome.faults[fault.kind] += 1

    # ------------------------------------------------------------------ time, comebacks, deaths
    def pass_time(self, seconds: float) -> None:
        """Let time go by; what is due comes back."""
        until = time.monotonic() + seconds
        while True:
            self.look_around()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def bring_all_back(self) -> None:
        """Wait until nobody is away any more, and the group is whole."""
        while self._comebacks:
            self.pass_time(self._comebacks[0][0] - time.monotonic())
        wait_for("every worker joining", self._whole, START_S)

    def look_around(self) -> None:
        """Bring back who is due; a worker that ended by itself is a failure, unless it was shaken as a zombie."""
        while self._comebacks and self._comebacks[0][0] <= time.monotonic():
            self._crew.start_worker(heapq.heappop(self._comebacks)[1])
        away = self._away()
        for slot, child in list(self._crew.workers.items()):
            if child.running or slot in away:
                continue
            if slot not in self._shaken:
                what = f"worker {slot} ended by itself with status {child.process.returncode}"
                self._outcome.failures.append(f"{what}\n{child.tail()}")
            self._shaken.discard(slot)
            self._crew.start_worker(slot)

    def expect_clean_exit(self, slot: int) -> None:
        """SIGTERM must lead to status 0 within the drain budget."""
        child = self._crew.workers[slot]
        status = child.stop(DRAIN_S)
        if status != 0:
            what = f"worker {slot}: exit status {status} after SIGTERM, expected 0 within {DRAIN_S:.0f} s"
            self._outcome.failures.append(f"{what}\n{child.tail()}")

    def _story(self, log: Path) -> Story:
        return story(log, self._cluster.names.lead)

    def _whole(self) -> bool:
        self.look_around()
        return self._cluster.members() == len(self._crew.workers)

    def _away(self) -> set[int]:
        return {slot for _, slot in self._comebacks}

    def _up(self) -> list[int]:
        away = self._away()
        return sorted(slot for slot, child in self._crew.workers.items() if slot not in away and child.running)

    def _wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> float:
        """Wait for a moment; if it does not come the fault is not proven."""

        def holds() -> bool:
            self.look_around()
            return condition()

        try:
            return wait_for(what, holds, timeout_s, 0.1)
        except TimedOutError as error:
            raise NotProvenError(str(error)) from error

    def _end(self, slot: int, back_after_s: float) -> None:
        self._crew.workers[slot].kill()
        heapq.heappush(self._comebacks, (time.monotonic() + back_after_s, slot))

    # ------------------------------------------------------------------ between produce and commit
    def _catch_open(self, only: int | None = None) -> Caught:
        """Stop a worker while the group lags and that worker's transaction is open, and leave it standing.

        It is stopped first: what stays open while it stands still is its own transaction (or one that an earlier victim
        left behind, which is known). If there is none it goes on, and the next moment is tried.
        """
        deadline = time.monotonic() + HIT_WITHIN_S
        while time.monotonic() < deadline:
            candidates = [slot for slot in self._up() if only in {None, slot}]
            if candidates:
                slot = self._dice.choice(candidates)
                child = self._crew.workers[slot]
                child.send(signal.SIGSTOP)
                held, lag = self._held_still()
                if held and lag > 0 and child.running and is_stopped(child.process.pid):
                    return Caught(slot, held, f"lag {lag}, {len(held)} output partitions held by its open transaction")
                child.send(signal.SIGCONT)
            self.pass_time(self._dice.uniform(0.02, 0.1))
        raise NotProvenError(f"no open transaction of a worker under lag within {HIT_WITHIN_S:.0f} s")

    def _held_still(self) -> tuple[dict[Position, int], int]:
        """Output partitions on which one and the same transaction stays open, and the group's lag."""
        try:
            first = self._cluster.open_transactions()
            if not first:
                return {}, 0
            lag = self._cluster.lag()
            time.sleep(STUCK_S)
            second = self._cluster.open_transactions()
        except (KafkaException, TimeoutError):
            return {}, 0
        stuck = {where: offset for where, offset in first.items() if second.get(where) == offset}
        return {where: offset for where, offset in stuck.items() if self._orphans.get(where) != offset}, lag

    def _kill_caught(self, caught: Caught, back_after_s: float) -> None:
        self._orphans |= caught.held
        self._end(caught.slot, back_after_s)

    # ------------------------------------------------------------------ the faults
    def _kill(self, fault: Fault) -> str:
        """SIGKILL under load, between produce and commit."""
        caught = self._catch_open()
        self._kill_caught(caught, fault.back_after_s)
        return f"SIGKILL of worker {caught.slot}: {caught.seen}"

    def _kill_twice(self, fault: Fault) -> str:
        """The same worker is killed again as soon as it has begun to work again."""
        first = self._catch_open()
        self._kill_caught(first, 0.0)
        self.look_around()
        log = self._crew.workers[first.slot].log
        waited = self._wait("its second life reading a partition", lambda: self._story(log).started > 0, START_S)
        second = self._catch_open(first.slot)
        self._kill_caught(second, fault.back_after_s)
        return f"SIGKILL of worker {first.slot}: {first.seen}; again {waited:.1f} s later: {second.seen}"

    def _kill_restoring(self, fault: Fault) -> str:
        """SIGKILL a worker, start it again, and SIGKILL it while it restores its windows."""
        slot = self._dice.choice(self._up())
        deadline = time.monotonic() + RESTORING_WITHIN_S
        while time.monotonic() < deadline:
            self._crew.workers[slot].kill()
            child = self._crew.start_worker(slot)
            if restoring := self._stop_restoring(child, deadline):
                lag = self._cluster.lag()
                self._end(slot, fault.back_after_s)
                return f"SIGKILL of worker {slot}: stopped while restoring partitions {restoring}, lag {lag}"
            child.send(signal.SIGCONT)
        raise NotProvenError(f"worker {slot} was not met restoring within {RESTORING_WITHIN_S:.0f} s")

    def _stop_restoring(self, child: Child, deadline: float) -> list[int]:
        """Stop a worker once it has partitions that it does not read yet; which ones, when it stands still."""
        while not self._story(child.log).restoring:
            if time.monotonic() > deadline or not child.running:
                return []
            self.look_around()
            time.sleep(0.002)
        time.sleep(self._dice.uniform(0.0, 0.03))
        child.send(signal.SIGSTOP)
        self._wait("the worker standing still", lambda: is_stopped(child.process.pid), 5.0)
        return sorted(self._story(child.log).restoring)

    def _pause_past_session(self, _: Fault) -> str:
        """SIGSTOP until the group has given the worker's partitions away, then SIGCONT."""
        self.bring_all_back()
        others = len(self._crew.workers) - 1
        return self._pause(lambda _held: self._cluster.members() == others, f"the group going on with {others} members")

    def _pause_past_transaction(self, _: Fault) -> str:
        """SIGSTOP until the broker has ended the worker's transaction, then SIGCONT."""
        self.bring_all_back()

        def ended(held: dict[Position, int]) -> bool:
            stable = self._cluster.ends(self._cluster.names.outputs, IsolationLevel.READ_COMMITTED)
            return all(stable[where] > offset for where, offset in held.items())

        return self._pause(ended, "the broker ending its transaction")

    def _pause(self, over: Callable[[dict[Position, int]], bool], what: str) -> str:
        caught = self._catch_open()
        child = self._crew.workers[caught.slot]
        self._shaken.add(caught.slot)
        try:
            slept = self._wait(what, lambda: over(caught.held), PAUSED_MAX_S)
            still = is_stopped(child.process.pid)
            before = len(self._story(child.log).undone)
        finally:
            child.send(signal.SIGCONT)
        if not still:
            raise NotProvenError(f"worker {caught.slot} did not stand still all the time")
        self._wait("the zombie finding out", lambda: not child.running or len(self._story(child.log).undone) > before, AWAKE_S)
        undone = self._story(child.log).undone[before:]
        return f"SIGSTOP of worker {caught.slot}: {caught.seen}; {what} took {slept:.1f} s (state T); awake it met {undone}"

    def _restart_broker(self, fault: Fault) -> str:
        """SIGKILL or stop the broker in order under load, and start it on its data; no worker may end because of it."""
        if self._broker is None:
            raise NotProvenError("the broker is not ours to restart: run without --bootstrap")
        seen = ""

        def busy() -> bool:
            nonlocal seen
            lag, opened = self._cluster.lag(), len(self._cluster.open_transactions())
            seen = f"lag {lag}, {opened} output partitions in open transactions"
            return lag > 0 and opened > 0

        self._wait("lag and an open transaction", busy, HIT_WITHIN_S)
        start, pid = time.monotonic(), self._broker.pid
        with self._cluster.away():
            self._broker.kill() if fault.kind == "broker-kill" else self._broker.stop()
            self._broker.start()
        self._wait("the broker answering", lambda: self._cluster.lag() >= 0, START_S)
        return f"process {pid}: {seen}; {self._broker.pid} answers after {time.monotonic() - start:.1f} s"

    def _storm(self, _: Fault) -> str:
        """Guests join and leave the group about once a second."""
        self.bring_all_back()
        workers = {slot: child.log for slot, child in self._crew.workers.items()}
        before = {slot: len(self._story(log).given) for slot, log in workers.items()}
        plan = self._outcome.plan
        flags = ("--seconds", str(STORM_S), "--seed", str(plan.seed), "--protocol", plan.protocol)
        guests = self._crew.start_module("storm", *flags)
        self._wait("the end of the storm", lambda: not guests.running, SECONDS_MAX + 30.0)
        if guests.process.returncode != 0:
            raise NotProvenError(f"the storm failed:\n{guests.tail()}")
        seen = json.loads(guests.log.read_text().splitlines()[-1])
        moved = sum(len(self._story(log).given) - before[slot] for slot, log in workers.items())
        what = f"{seen['guests']} guests, {seen['served']} were given partitions, workers gave some up {moved} times"
        if seen["served"] < SERVED_MIN or not moved:
            raise NotProvenError(what)
        return what

    def _network(self, fault: Fault) -> str:
        """Break the network of all workers under load."""
        if self._proxy is None:
            raise NotProvenError("the broker is not ours to reach through a proxy: run without --bootstrap")
        self.bring_all_back()
        kind, hits = cast("NetworkKind", fault.kind), self._outcome.plan.hits
        return break_network(kind, hits, self._proxy, self._dice, self._cluster.names.group, self._wait)

    def _add(self, _: Fault) -> str:
        """One more worker."""
        slot = max(self._crew.workers) + 1
        log = self._crew.start_worker(slot).log
        waited = self._wait("the new worker reading a partition", lambda: self._story(log).started > 0, START_S)
        return f"worker {slot} read its first of partitions {sorted(self._story(log).owned)} after {waited:.1f} s"

    def _remove(self, _: Fault) -> str:
        """SIGTERM a worker once all have joined; one that is still importing could not exit in order."""
        self.bring_all_back()
        slot = self._dice.choice(self._up())
        owned = sorted(self._story(self._crew.workers[slot].log).owned)
        self.expect_clean_exit(slot)
        del self._crew.workers[slot]
        return f"SIGTERM of worker {slot}, which had partitions {owned}"
