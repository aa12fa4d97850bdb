"""`TopologyTest`: what a test does with a topology, and when it comes to rest."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import gt
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from streamer.clock import ManualClock
from streamer.codecs.formats import codec_of
from streamer.errors import StreamerError, TopologyError, line_of_caller
from streamer.feeding.rows import Row, time_us_of
from streamer.kafka.memory_log import MemoryLog, Record
from streamer.operators.checks import check_memory
from streamer.planning.assemble import Flow
from streamer.planning.plan import plan_of
from streamer.renamed import TESTS, told
from streamer.settings.settings import Settings
from streamer.testing.clients import MemoryClients
from streamer.testing.samples import sample
from streamer.testing.stand_in import ScoreFunction, stand_in
from streamer.topology.event import Event
from streamer.topology.steps import Declaration
from streamer.topology.topics import inputs_of
from streamer.units import Duration, parse_duration_us
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker

_TURNS_MAX = 100_000
# Real time that a commit may take before time goes on without it (it may be waiting for that).
_COMMIT_S = 0.05
# What time releases may set the next clock going, from flow to flow; `advance` looks so often on its way.
_LOOKS_PER_ADVANCE: Final = 20


class TopologyTest:
    """One topology, its production worker, an in-memory log and a manual clock.

    Args:
        topology: what to run.
        models: a model repository, or a function from feature columns to (rows, 1) scores that stands in for the model.
        threshold: of a stand-in, for `.flag(above="model.threshold")`.
        partitions: of every topic.
        start: first instant of the clock, seconds since the epoch.
        message_bytes_max: topic -> its `max.message.bytes`; Kafka's default for the others.
        settings: as in a TOML file, such as `{"guarantee": "at-least-once", "commit_interval": "50ms"}`; nothing else sets
            any, no environment and no file.

    Raises:
        SettingsError: a setting is unknown or wrong; one line for each, which says what is allowed.
    """

    def __init__(
        self,
        topology: Declaration,
        *,
        models: str | Path | ScoreFunction = "models",
        threshold: float = 0.5,
        partitions: int = 4,
        start: float = 1_700_000_000.0,
        message_bytes_max: Mapping[str, int] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._settings = Settings.given(settings or {}, "settings=")
        self._clock = ManualClock(start)
        self._log = MemoryLog(partitions, self._clock, message_bytes_max)
        self._topology, self._models, self._threshold = topology, models, threshold
        self._read: dict[str, int] = {}
        self._workers = self._new_workers()

    def _new_workers(self) -> list[Worker]:
        """One for each flow, that of the predictions last."""
        if callable(self._models):
            plan = plan_of(self._topology, self._settings, Path(), model=stand_in(self._models, self._threshold))
        else:
            plan = plan_of(self._topology, self._settings, Path(self._models), clock=self._clock)
            if plan.model is not None:
                for warning in plan.model.probed.warnings:
                    warnings.warn(f"{plan.model.file.path}: {warning}", stacklevel=3)
        if plan.store is not None:
            check_memory(plan.store, self._settings, plan.name, self._log.partitions)
        return [self._new_worker(flow) for flow in plan.flows]

    def _new_worker(self, flow: Flow) -> Worker:
        worker = Worker(parts_of(flow, self._settings, clients=MemoryClients(self._log), clock=self._clock))
        worker.start()
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.close()

    if not TYPE_CHECKING:  # to a type checker every attribute would exist

        def __getattr__(self, name: str) -> Any:
            if name not in TESTS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise TopologyError(f"{line_of_caller()}: " + told(f"TopologyTest.{name}", TESTS[name]))

    # ------------------------------------------------------------------ records in
    def send(
        self, event: Event, *, times: int = 1, step: Duration = "1s", headers: Sequence[tuple[str, bytes | None]] | None = None
    ) -> None:  # fmt: skip
        """Produce an event where the topology reads it, `times` times; the clock and the event time move by `step` each time.

        Its key is its key field, in the format raw the field `key`. A class that is read in two places goes to the source.

        Raises:
            StreamerError: the topology reads no events of this class.
            ValueError: `step` is no duration, or the event time is no time that could be moved.
        """
        topic, given = inputs_of(self._topology).get(type(event), (type(event).__event__.topic, "json"))
        if not topic:
            raise StreamerError(f"{self._topology.name} reads no {type(event).__name__}; send_bytes() takes any topic")
        codec, step_us = codec_of(type(event), given, self._settings.record_bytes_max), parse_duration_us(step)
        for n in range(times):
            sent = event if n == 0 else Row(event, time_us_of(event)).moved(n * step_us).event
            key, value, own = codec.write(sent)
            self.send_bytes(topic, key, value, headers=[*own, *(headers or ())])
            self._clock.advance(step_us / 1e6)

    def send_bytes(
        self, topic: str, key: bytes | None, value: bytes | None, *,
        headers: Sequence[tuple[str, bytes | None]] | None = None, created_ms: int | None = None,
    ) -> None:  # fmt: skip
        """Produce a record as it stands, good or bad; with `created_ms` it has a timestamp of its producer's."""
        self._log.append(topic, key, value, headers=list(headers or ()), created_ms=created_ms)

    # ------------------------------------------------------------------ results out
    def read(self, topic: str) -> list[Any]:
        """New committed records of a topic since the last read, as JSON values, after running to rest."""
        return [orjson.loads(record.value or b"null") for record in self.read_records(topic)]

    def read_records(self, topic: str) -> list[Record]:
        """The same as records: key, value and headers."""
        self.run()
        records = self._log.committed_records(topic)
        start = self._read.get(topic, 0)
        self._read[topic] = len(records)
        return [Record(record.key, record.value, record.headers) for record in records[start:]]

    def metric(self, name: str, **labels: str) -> float:
        """What the workers count, as Prometheus would read it: `metric("streamer_records_total", outcome="late")`.

        It begins at 0 with each worker, so at a crash too. Gauges are set once a second of the test's clock. The samples of a
        histogram are `NAME_sum`, `NAME_count` and `NAME_bucket`.

        Raises:
            StreamerError: there is no such metric, or it has other labels.
        """
        return sample([worker.metrics for worker in self._workers], name, labels)

    # ------------------------------------------------------------------ time
    @property
    def now(self) -> float:
        """The clock, seconds since the epoch. It moves by a few milliseconds where a commit waits for its age."""
        return self._clock.wall_us() / 1e6

    def advance(self, duration: Duration) -> None:
        """Let time go by, such as "5s" or a `timedelta`, and all that waits for it come out: windows close, rows go on.

        What was sent before is processed before.

        Raises:
            ValueError: not a duration; the message shows how to write it.
        """
        left_us = parse_duration_us(duration)
        self._turn_until(self._up_to_date)
        end_us, step_us = self._clock.wall_us() + left_us, max(1, left_us // _LOOKS_PER_ADVANCE)
        while (left_us := end_us - self._clock.wall_us()) > 0:
            self._clock.advance(min(step_us, left_us) / 1e6)
            self._turn_until(self._up_to_date)

    def run(self) -> None:
        """Turn until everything sent is processed and committed.

        Raises:
            StreamerError: it does not come to rest.
        """
        self._turn_until(self._at_rest)

    # ------------------------------------------------------------------ what happens to workers
    def crash(self) -> None:
        """Kill the process as SIGKILL would, and start another one, which restores its windows from the changelog.

        Proves that nothing but the log counts: what was not committed is done again, and no result is lost, nor there twice
        unless with at-least-once.
        """
        self._log.crash()
        for worker in self._workers:
            worker.abandon()
        self._workers = self._new_workers()

    def rebalance(self) -> None:
        """Have the group take all partitions away in good order, as when another replica joins, and give them back.

        Proves that a partition can move: the worker finishes and commits what it has read, so that nothing is done twice; its
        windows are dropped and come back from the changelog, as at another replica.
        """
        for worker in self._workers:
            worker.turn()  # what was sent is on its way, so there is something to finish
        before = list(map(_dealt, self._workers))
        self._log.rebalance()
        self._turn_until(lambda: all(map(gt, map(_dealt, self._workers), before)) and self._ready())

    # ------------------------------------------------------------------ turns
    def _turn_until(self, done: Callable[[], bool]) -> None:
        """Turn all workers until it is so; time goes on where all of them wait for it."""
        for _ in range(_TURNS_MAX):
            quiet = True
            for worker in self._workers:
                worker.turn()
                quiet = quiet and (worker.idle or self._log.quiet)
            if done():
                return
            if quiet:
                # Time stands still between turns, and while the thread of a commit works; a commit waits for its age.
                for worker in self._workers:
                    worker.let_commit(_COMMIT_S)
                self._clock.advance(0.005)
        raise StreamerError(f"the topology did not come to rest within {_TURNS_MAX:,} turns")

    def _at_rest(self) -> bool:
        """Whether all is done. In the order of the data: what an earlier flow has finished lies before the later ones."""
        return all(worker.idle and not worker.held_back and self._caught_up(worker.plan) for worker in self._workers)

    def _up_to_date(self) -> bool:
        """Whether all is done, and windows are there that time could close."""
        return self._at_rest() and self._ready()

    def _ready(self) -> bool:
        return all(worker.ready() is None for worker in self._workers)

    def _caught_up(self, flow: Flow) -> bool:
        return all(self._log.caught_up(flow.group, topic) for topic in flow.topics.sources)


def _dealt(worker: Worker) -> float:
    """How often partitions were assigned."""
    return worker.metrics.value("streamer_rebalances_total", "assigned")


def values(records: Iterable[Any], field: str) -> list[Any]:
    """One field of each record."""
    return [record[field] for record in records]
