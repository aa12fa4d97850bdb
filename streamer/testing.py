"""Tests without a broker: the production worker over an in-memory log, on a clock that the test moves.

with TopologyTest(sensor, models="topologies/models") as test:
test.send(Reading(sensor_id="s1", ts=test.now, value=95.0), times=70, step="1s")
assert test.read("sensor.predictions")[-1]["window_n"] == 70
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import numpy as np
import orjson
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from numpy.typing import NDArray

from streamer.clock import ManualClock
from streamer.codecs.formats import codec_of
from streamer.errors import StreamerError
from streamer.inference.model import Features, LoadedModel, ModelMetadata
from streamer.inference.probe import Probed
from streamer.inference.repository import ModelFile
from streamer.inference.signature import Signature
from streamer.kafka.memory_admin import MemoryAdmin
from streamer.kafka.memory_clients import MemoryConsumer, MemoryProducer
from streamer.kafka.memory_log import MemoryLog, Stored
from streamer.operators.checks import check_memory
from streamer.planning.assemble import Flow
from streamer.planning.plan import plan_of
from streamer.settings.settings import Settings
from streamer.topology.event import Event
from streamer.topology.steps import Declaration
from streamer.topology.topics import inputs_of
from streamer.units import parse_duration_s
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker

_TURNS_MAX = 100_000
# Real time that a commit may take before time goes on without it (it may be waiting for that).
_COMMIT_S = 0.05

ScoreFunction = Callable[[Features], NDArray[np.float32]]


class _MemoryClients:
    rest_after_commit_s = 0.0
    silence_between_polls_s = math.inf  # the test moves the clock in one step ...
    commit_stuck_s = math.inf  # ... also while a commit is under way, whose thread works in real time

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def consumer(self, config: dict[str, Any]) -> Consumer:
        return cast("Consumer", MemoryConsumer(self._log, config))

    def producer(self, config: dict[str, Any]) -> Producer:
        return cast("Producer", MemoryProducer(self._log, config))

    def admin(self, _config: dict[str, Any]) -> AdminClient:
        return cast("AdminClient", MemoryAdmin(self._log))


def constant(score: float) -> ScoreFunction:
    """A model that gives every row the same score."""
    return lambda features: np.full((len(next(iter(features.values()))), 1), score, np.float32)


class TopologyTest:
    """One topology, its production worker, an in-memory log and a manual clock.

    Args:
        topology: what to run.
        models: a model repository, or a function from feature columns to (rows, 1) scores that stands in for the model.
        threshold: of a stand-in, for `.flag(above="model.threshold")`.
        partitions: of every topic.
        start: first instant of the clock, seconds since the epoch.
        message_bytes_max: topic -> its `max.message.bytes`; Kafka's default for the others.
        settings: texts as in a TOML file, such as `{"guarantee": "at-least-once", "commit_interval": "50ms"}`, or the
            numbers they stand for (seconds, bytes).
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
        settings: dict[str, object] | None = None,
    ) -> None:
        self.clock = ManualClock(start)
        self.log = MemoryLog(partitions, self.clock, message_bytes_max)
        given = settings or {}
        texts = {name: value for name, value in given.items() if isinstance(value, str)}
        numbers = {name: value for name, value in given.items() if name not in texts}
        self._settings = Settings.model_validate(texts).model_copy(update=numbers)
        self._topology, self._models, self._threshold = topology, models, threshold
        self._read: dict[str, int] = {}
        self.workers = self._new_workers()

    @property
    def worker(self) -> Worker:
        """The worker of the flow that ends in predictions."""
        return self.workers[-1]

    def _new_workers(self) -> list[Worker]:
        if callable(self._models):
            plan = plan_of(self._topology, self._settings, Path(), model=stand_in(self._models, self._threshold))
        else:
            plan = plan_of(self._topology, self._settings, Path(self._models), clock=self.clock)
            if plan.model is not None:
                for warning in plan.model.probed.warnings:
                    warnings.warn(f"{plan.model.file.path}: {warning}", stacklevel=3)
        if plan.store is not None:
            check_memory(plan.store, self._settings, plan.name, self.log.partitions)
        return [self._new_worker(flow) for flow in plan.flows]

    def _new_worker(self, flow: Flow) -> Worker:
        worker = Worker(parts_of(flow, self._settings, clients=_MemoryClients(self.log), clock=self.clock))
        worker.start()
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self.workers:
            worker.close()

    @property
    def now(self) -> float:
        """The clock, seconds since the epoch."""
        return self.clock.wall_us() / 1e6

    def send(
        self, event: Event, *, times: int = 1, step: str = "1s", headers: Sequence[tuple[str, bytes | None]] | None = None
    ) -> None:  # fmt: skip
        """Produce an event where the topology reads it, `times` times; the clock and the event time move by `step` each time.

        Its key is its key field, in the format raw the field `key`. A class that is read in two places goes to the source.
        """
        spec, seconds = type(event).__event__, parse_duration_s(step)
        topic, given = inputs_of(self._topology).get(type(event), (spec.topic, "json"))
        if not topic:
            raise StreamerError(f"{self._topology.name} reads no {type(event).__name__}; send_bytes() takes any topic")
        codec = codec_of(type(event), given, self._settings.record_bytes_max)
        for _ in range(times):
            key, value, own = codec.write(event)
            self.send_bytes(topic, key, value, headers=[*own, *(headers or ())])
            self.clock.advance(seconds)
            if spec.time and spec.time_unit != "iso":
                moved = getattr(event, spec.time) + seconds * {"s": 1, "ms": 1e3, "us": 1e6}[spec.time_unit]
                event = msgspec.structs.replace(event, **{spec.time: moved})

    def send_bytes(
        self, topic: str, key: bytes | None, value: bytes | None, *,
        headers: Sequence[tuple[str, bytes | None]] | None = None, created_ms: int | None = None,
    ) -> None:  # fmt: skip
        """Produce a record as it stands, good or bad; with `created_ms` it has a timestamp of its producer's."""
        self.log.append(topic, key, value, headers=list(headers or ()), created_ms=created_ms)

    def run(self) -> None:
        """Turn until everything sent is processed and committed."""
        for _ in range(_TURNS_MAX):
            quiet = True
            for worker in self.workers:
                worker.turn()
                quiet = quiet and (worker.idle or self.log.quiet)
            # In the order of the data: what an earlier flow has finished lies before the later ones.
            if all(worker.idle and not worker.held_back and self._caught_up(worker.plan) for worker in self.workers):
                return
            if quiet:
                # Time stands still between turns, and while the thread of a commit works; a commit waits for its age.
                for worker in self.workers:
                    worker.let_commit(_COMMIT_S)
                self.clock.advance(0.005)
        raise StreamerError(f"the topology did not come to rest within {_TURNS_MAX:,} turns")

    def _caught_up(self, flow: Flow) -> bool:
        return all(self.log.caught_up(flow.group, topic) for topic in flow.topics.sources)

    def restart(self) -> None:
        """Kill the process as SIGKILL would, and start another one: nothing but the log survives."""
        self.log.crash()
        for worker in self.workers:
            worker.abandon()
        self.workers = self._new_workers()

    def read(self, topic: str) -> list[Any]:
        """New committed records of a topic since the last read, as JSON values, after running to rest."""
        return [orjson.loads(record.value or b"null") for record in self.read_records(topic)]

    def read_records(self, topic: str) -> list[Stored]:
        """The same as records: key, value and headers."""
        self.run()
        records = self.log.committed_records(topic)
        start = self._read.get(topic, 0)
        self._read[topic] = len(records)
        return records[start:]


def stand_in(function: ScoreFunction, threshold: float = 0.5) -> LoadedModel:
    """A model made of a function; takes whatever features there are."""
    return cast("LoadedModel", _StandIn(function, threshold))


class _StandIn:
    """Looks like a `LoadedModel` to the stages."""

    def __init__(self, function: ScoreFunction, threshold: float) -> None:
        self._function = function
        self.file = ModelFile("stand-in", 1, Path("stand-in.onnx"))
        self.facts = ModelMetadata(threshold=threshold)
        self.score_column = -1
        self.signature = Signature({}, "score", None)
        self.probed, self.seconds_per_row = Probed(), 0.0

    def check(self, features: object) -> None:
        """Anything fits."""

    def prove(self, features: object, clock: object) -> None:
        """A function is believed."""

    def run(self, features: Features, rows: int) -> NDArray[np.float32]:
        """Call the function."""
        if rows == 0:
            return np.empty((0, 1), np.float32)
        return np.asarray(self._function(features), np.float32).reshape(rows, -1)


def values(records: Iterable[Any], field: str) -> list[Any]:
    """One field of each record."""
    return [record[field] for record in records]
