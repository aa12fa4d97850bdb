"""A pipeline without worker, log and broker gives record for record what the worker over the in-memory log gives."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random
from zlib import crc32

import numpy as np
import pytest

from streamer.clock import ManualClock
from streamer.kafka.memory_log import Stored
from streamer.kafka.message_sizes import MessageSizes
from streamer.planning.assemble import Assembled, Flow, Surroundings, assembled
from streamer.planning.plan import plan_of
from streamer.rows.outgoing import Outgoing
from streamer.rows.records import Records
from streamer.settings.settings import Settings
from streamer.stages.produce.encode import dead_letter
from streamer.telemetry.metrics import Metrics
from streamer.testing import stand_in
from tests.laws.run import WHOLE, Outputs, score, told, undisturbed
from tests.laws.table import FLOWS, IDLE_S, START_S

SEED = 3
SIZES = MessageSizes({}, 1_000_000, 1_000_000)
SCORED_S = 10.0


@dataclass(slots=True)
class Record:
    """A record that lies in a topic."""

    topic: str
    partition: int
    stored: Stored


@dataclass(slots=True)
class AllRead:
    """Inputs of which all partitions are ours.

    Attributes:
        topics: the lead first.
        partitions: of each.
        silence: seconds since their last record; None while there may be more of them.
    """

    topics: Sequence[str]
    partitions: int
    silence: float | None = None

    @property
    def lead(self) -> str:
        return self.topics[0]

    def reading(self) -> list[int]:
        return list(range(self.partitions))

    def silence_s(self, partition: int) -> list[float | None]:
        assert partition in self.reading()
        return [self.silence] * len(self.topics)

    def wait_for_others(self, partition: int, topics: Iterable[str]) -> int:
        """What is fed next is not up to the pipeline."""
        assert partition in self.reading()
        return len(list(topics))


class Alone:
    """The pipeline of one flow, and who feeds it."""

    def __init__(self, flow: Flow, settings: Settings, clock: ManualClock, partitions: int) -> None:
        self.inputs, self.clock = AllRead(flow.topics.sources, partitions), clock
        around = Surroundings(
            settings=settings, clock=clock, sizes=SIZES, partitions_of=lambda _: partitions, inputs=self.inputs, metrics=Metrics()
        )  # fmt: skip
        self.built: Assembled = assembled(flow, around)
        self.pipeline, self.read = self.built.pipeline, Counter[tuple[str, int]]()
        self.open()

    def open(self) -> None:
        """Begin all partitions anew."""
        self.read.clear()
        for partition in self.inputs.reading():
            self.pipeline.window.open(partition)

    def feed(self, records: Iterable[Record]) -> None:
        """Those of our topics, in their order."""
        for topic, some in groupby((one for one in records if one.topic in self.inputs.topics), key=lambda one: one.topic):
            self.pipeline.feed(self._columns(topic, list(some)), self.clock.monotonic())

    def _columns(self, topic: str, records: list[Record]) -> Records:
        offsets = []
        for one in records:
            offsets.append(self.read[topic, one.partition])
            self.read[topic, one.partition] += 1
        return Records(
            topic=topic, partitions=np.array([one.partition for one in records], np.int32), offsets=np.array(offsets, np.int64),
            timestamps_ms=np.array([one.stored.timestamp_ms for one in records], np.int64), messages=[None] * len(records),
            keys=[one.stored.key for one in records], values=[one.stored.value for one in records],
            polled_us=self.clock.wall_us(),
        )  # fmt: skip

    def advance(self) -> None:
        """Let time act."""
        self.pipeline.advance(lambda: WHOLE)

    def done(self) -> list[Outgoing]:
        """All that is on its way."""
        found = list[Outgoing]()
        while len(self.pipeline):
            found += self.pipeline.done(SCORED_S)
        assert (self.pipeline.rows, self.pipeline.value_bytes) == (0, 0)
        return found

    def written(self) -> list[Record]:
        """All that is on its way as records, with what a transaction over it would say at its end."""
        outgoing = self.done()
        found = [record for one in outgoing for record in self._records(one)]
        if self.built.marks is not None:
            marks = self.built.marks([one.batch for one in outgoing])
            found += [self._record(topic, None, value, partition=partition) for topic, partition, value in marks]
        return found

    def _records(self, outgoing: Outgoing) -> Iterator[Record]:
        for topic, messages in outgoing.rows:
            yield from (self._record(topic, **message) for message in messages)
        for topic, letter in outgoing.letters:
            key, value, headers = dead_letter(letter, SIZES.record(topic))
            yield self._record(topic, key, value, headers=headers)

    def _record(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int = 0, headers: object = None
    ) -> Record:  # fmt: skip
        assert headers is None or isinstance(headers, list)
        return Record(topic, partition, Stored(key, value, headers or [], self.clock.wall_us() // 1000))


@contextmanager
def alone(name: str) -> Iterator[list[Alone]]:
    """The pipelines of a flow of the table, those in front first."""
    flow, settings = FLOWS[name], Settings().model_copy(update={"keys_max": 100})
    clock, plan = ManualClock(float(START_S)), plan_of(flow.topology, settings, Path(), model=stand_in(score))
    made = [Alone(one, settings, clock, flow.partitions) for one in plan.flows]
    try:
        yield made
    finally:
        for one in made:
            one.pipeline.close()


def sent(name: str) -> list[Record]:
    """What feeds it."""
    flow = FLOWS[name]
    found = []
    for one in flow.feed(Random(SEED)):
        partition = crc32(one.key or b"") % flow.partitions  # where the in-memory log puts it
        found.append(Record(one.topic, partition, Stored(one.key, one.value, [], round(one.at_s * 1000))))
    return found


def through(pipelines: list[Alone], records: list[Record]) -> list[Record]:
    """What comes of records; what goes to the next pipeline is fed to it."""
    written = list[Record]()
    for one in pipelines:
        one.feed(records)
        one.advance()
        records = one.written()
        written += records
    pipelines[0].clock.advance(0.005)
    return written


def silence(pipelines: list[Alone]) -> list[Record]:
    """What comes of it when nothing comes for so long that all that waits has its end."""
    written = list[Record]()
    for _ in range(len(pipelines) + 1):
        pipelines[0].clock.advance(IDLE_S + 100)
        for one in pipelines:
            one.inputs.silence = IDLE_S + 100
        written += through(pipelines, [])
    return written


def seen(name: str, records: list[Record]) -> Outputs:
    """The outputs among them as a reader sees them."""
    found: dict[tuple[str, bytes | None], list[str]] = defaultdict(list)
    for one in records:
        if one.topic in FLOWS[name].outputs:
            found[one.topic, one.stored.key].append(told(one.stored))
    return dict(found)


@pytest.mark.parametrize("most", [1, 7, WHOLE])
@pytest.mark.parametrize("name", FLOWS)
def test_it_gives_what_the_worker_gives(name: str, most: int) -> None:
    records, written, random = sent(name), list[Record](), Random(SEED)
    with alone(name) as pipelines:
        while records:
            some = random.randint(1, min(most, len(records)))
            written += through(pipelines, records[:some])
            records = records[some:]
        written += silence(pipelines)
    wanted = undisturbed(name, SEED).outputs
    assert wanted, "nothing comes of the flow: this proves nothing"
    assert seen(name, written) == wanted


def test_what_is_dropped_is_fed_again() -> None:
    records = sent("count")
    with alone("count") as (one,):
        one.feed(records[:20])
        assert one.pipeline.rows == 20
        assert len(one.pipeline) == 1
        one.pipeline.drop()
        assert one.done() == []
        one.open()
        written = through([one], records)
    assert seen("count", written) == undisturbed("count", SEED).outputs


def test_offsets_without_a_record_take_their_turn() -> None:
    records = sent("count")
    with alone("count") as (one,):
        one.feed(records[:5])
        one.pipeline.skip(records[0].topic, 1, 99)
        one.feed(records[5:10])
        first, skipped, last = one.done()
    assert (len(skipped.batch), skipped.batch.owed) == (0, {1: 99})
    assert not any(messages for _, messages in skipped.rows)
    assert not skipped.letters
    assert first.batch.tally.inputs == last.batch.tally.inputs == 5
