"""One run of the demo: feed, worker and reader each on their thread, the view on this one, until everything has its outcome."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from streamer.clock import SystemClock
from streamer.demo.recording import Recording
from streamer.feeding.pace import Pace
from streamer.feeding.send import Feeder, Sendable
from streamer.kafka.clients import KafkaClients
from streamer.kafka.config import producer_config
from streamer.kafka.reader import read_committed
from streamer.live.numbers import Watch
from streamer.live.view import Frame
from streamer.planning.plan import Plan
from streamer.settings.settings import Settings
from streamer.telemetry.logs import get_logger
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker

_log = get_logger(__name__)

READY_WITHIN_S = 30.0
# The embedded log keeps 5 MiB a partition: never let more wait there than it can hold (some 100 bytes each).
_AHEAD_MAX = 20_000
_ANOMALIES_KEPT = 10_000
_ANOMALIES_SHOWN = 50
_PICTURE_EVERY_S = 0.25
_JOIN_S = 15.0
_END_WAIT_S = 5.0
_STILL_S = 3.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of the events.

    Attributes:
        fed: events the broker has.
        predicted, dead: of these, by their committed outcome.
        flagged: predictions among them that were flagged.
        anomalies: the newest of those, as read back from their topic.
        rolled_back: events without a committed outcome, since the worker gave up what it had written of them; on a broker that
            cannot take that back, else 0.
        known: key -> when known anomalies were, first and last second; empty if the recording was played more than once.
        problem: why the demo did not end well, or None.
    """

    fed: int = 0
    predicted: int = 0
    dead: int = 0
    flagged: int = 0
    rolled_back: int = 0
    anomalies: list[dict[str, Any]] = field(default_factory=list)
    known: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    problem: str | None = None


class Demo:
    """Runs a topology on a recording.

    Args:
        plan: the topology, bound.
        settings: bootstrap and the rest; topics exist.
        recording: what to feed.
        rate: events per second.
        within_s: from the first event to the last outcome; None plays the recording again and again until `stop`.
        takes_back: whether the broker hides what a transaction wrote that was rolled back.
        title, notice: for the picture.
    """

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        recording: Recording,
        *,
        rate: float,
        within_s: float | None,
        takes_back: bool,
        title: str,
        notice: str,
    ) -> None:
        self._plan, self._settings, self._recording = plan, settings, recording
        self._rate, self._within_s, self._takes_back = rate, within_s, takes_back
        self._title, self._notice = title, notice
        self._clock = SystemClock()
        self._stopping = threading.Event()
        self._failures: deque[Exception] = deque(maxlen=3)
        self._anomalies: deque[dict[str, Any]] = deque(maxlen=_ANOMALIES_KEPT)
        self._read_anomalies = 0
        self._reading = True
        self._done_before, self._still_since = 0, 0.0
        self._known: dict[str, list[tuple[float, float]]] = {}
        self.worker = Worker(parts_of(plan, settings))
        self.worker.open()
        topic = plan.topics.source
        producer = KafkaClients().producer(producer_config(settings, linger_ms=1))
        self._feeder = Feeder(producer, topic, self._clock, hold=self._too_far_ahead, stopped=self._stopping.is_set)
        self._watch = Watch(self.worker.metrics)
        self._started = self._clock.monotonic()

    @property
    def _loops(self) -> bool:
        return self._within_s is None

    def stop(self) -> None:
        """End early, in order; safe from a signal handler."""
        self._stopping.set()

    def run(self, show: Callable[[Frame], None]) -> Outcome:
        """Show a picture now and then until every event has its outcome; returns what became of them."""
        threads = {
            name: threading.Thread(target=self._guarded, args=(work,), name=f"streamer-demo-{name}", daemon=True)
            for name, work in (("worker", self.worker.run), ("reader", self._read), ("feeder", self._feed))
        }
        threads["worker"].start()
        threads["reader"].start()
        problem = self._until(lambda: self.worker.ready() is None, READY_WITHIN_S, "the worker was not ready", show)
        if problem is None:
            threads["feeder"].start()
            over = lambda: not threads["feeder"].is_alive() and self._all_done()  # noqa: E731
            problem = self._until(over, self._within_s, "not every event had its outcome", show)
        self._end(threads, show)
        return self._outcome(problem)

    def _end(self, threads: dict[str, threading.Thread], show: Callable[[Frame], None]) -> None:
        """Stop in the order of the data: what was fed is scored, what was flagged is read."""
        self._stopping.set()
        if threads["feeder"].is_alive():
            threads["feeder"].join(_JOIN_S)
        self._until(self._all_done, _END_WAIT_S, "", show, stoppable=False)
        self.worker.stop()
        threads["worker"].join(_JOIN_S)
        self._until(self._all_read, _END_WAIT_S, "", lambda _: None, stoppable=False)
        self._reading = False
        threads["reader"].join(_JOIN_S)

    # ------------------------------------------------------------------ the threads

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the demo tells it and ends
            _log.exception("demo_failed")
            self._failures.append(error)

    def _feed(self) -> None:
        self._feeder.feed(self._passes(), Pace(rate=self._rate))

    def _passes(self) -> Iterator[Sendable]:
        while True:
            now_us = self._clock.wall_us()
            self._known = {
                key: [((now_us + first) / 1e6, (now_us + last) / 1e6) for first, last in spans]
                for key, spans in self._recording.known.items()
            }
            yield from self._recording.play(now_us)
            if not self._loops:
                return

    def _read(self) -> None:
        topic = self._plan.topics.anomalies
        assert topic is not None, "the demo's topology publishes anomalies"
        for messages in read_committed(self._settings, topic, latest=False, stopped=lambda: not self._reading):
            self._anomalies.extend(orjson.loads(message.value() or b"null") for message in messages)
            self._read_anomalies += len(messages)

    # ------------------------------------------------------------------ the picture

    def _until(
        self,
        done: Callable[[], bool],
        within_s: float | None,
        what: str,
        show: Callable[[Frame], None],
        *,
        stoppable: bool = True,
    ) -> str | None:
        """Show pictures until something is done; a sentence when it was not."""
        deadline = None if within_s is None else self._clock.monotonic() + within_s
        while not done():
            if self._failures:
                return f"{type(self._failures[0]).__name__}: {self._failures[0]}"
            if deadline is not None and self._clock.monotonic() > deadline:
                return f"{what} within {within_s:g} s"
            if stoppable and self._stopping.is_set():
                return None
            show(self._frame())
            self._stopping.wait(_PICTURE_EVERY_S)
        show(self._frame())
        return None

    def _frame(self) -> Frame:
        now = self._clock.monotonic()
        newest = list(islice(reversed(self._anomalies), _ANOMALIES_SHOWN))
        return Frame.of(
            self._watch, now, title=self._title, notice=self._notice, seconds=now - self._started, fed=self._feeder.delivered,
            total=None if self._loops else self._recording.total, anomalies=newest,
        )  # fmt: skip

    def _too_far_ahead(self) -> bool:
        return self._feeder.sent - self._done() - self._uncounted_max() > _AHEAD_MAX

    def _done(self) -> int:
        return int(self.worker.metrics.value("streamer_records_total"))

    def _all_done(self) -> bool:
        done, now = self._done(), self._clock.monotonic()
        if done != self._done_before:
            self._done_before, self._still_since = done, now
        still = now - self._still_since > _STILL_S and self.worker.ready() is None
        return done >= self._feeder.delivered or (still and self._feeder.delivered - done <= self._uncounted_max())

    def _uncounted_max(self) -> int:
        """Rows of transactions that were rolled back: a broker that cannot take them back may hold the outcome of each.

        The windows go on behind those whose changes it holds, so they are not read again, and count as no outcome.
        """
        return 0 if self._takes_back else int(self.worker.metrics.value("streamer_rows_redone_total"))

    def _all_read(self) -> bool:
        return self._read_anomalies >= self._flagged()

    def _flagged(self) -> int:
        return int(self.worker.metrics.value("streamer_anomalies_total"))

    def _outcome(self, problem: str | None) -> Outcome:
        metrics = self.worker.metrics
        outcome = Outcome(
            fed=self._feeder.delivered,
            predicted=int(metrics.value("streamer_records_total", "predicted")),
            dead=int(metrics.value("streamer_records_total", "dead")),
            flagged=self._flagged(),
            anomalies=list(self._anomalies),
            known={} if self._loops else self._known,
            problem=problem,
        )
        if self._feeder.failed and outcome.problem is None:
            outcome.problem = f"{self._feeder.failed:,} events were not delivered: {self._feeder.last_error}"
        if self._failures and outcome.problem is None:
            outcome.problem = f"{type(self._failures[0]).__name__}: {self._failures[0]}"
        outcome.rolled_back = outcome.fed - outcome.predicted - outcome.dead
        if not 0 <= outcome.rolled_back <= self._uncounted_max() and outcome.problem is None:
            outcome.problem = "the counts do not add up"
        if self._read_anomalies != outcome.flagged and not self._uncounted_max() and outcome.problem is None:
            outcome.problem = f"{outcome.flagged:,} predictions were flagged, {self._read_anomalies:,} anomalies were read"
        return outcome
