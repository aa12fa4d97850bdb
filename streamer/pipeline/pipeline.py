"""`Pipeline`: records in, encoded records out, and no Kafka between. Who runs it reads, sends and commits."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from streamer.clock import Clock
from streamer.operators.flag.stage import Flag
from streamer.operators.operator import Keyed, Releasing, Scoring, Stateless
from streamer.rows.batch import Batch
from streamer.rows.outgoing import Outgoing
from streamer.rows.records import Records
from streamer.stages.produce.results import Sink
from streamer.telemetry.laps import Laps


@dataclass(slots=True, kw_only=True)
class Pipeline:
    """Decode, the operators of a flow, and encode.

    Rows enter by two doors, `feed` (they were read) and `advance` (their time has come), and leave by one, `done`, in the order
    in which they entered. Between the doors and `done` they are at the engine; state has taken them in by then. All of it happens
    on the thread that calls, but model runs.

    Attributes:
        decode: records become columns, bad ones dead letters.
        stateless: steps that keep nothing, by name, in order: all that was decoded goes through them before state sees it.
        window: keyed state advances, windows become features; holds a store per partition.
        timed: gives rows that time brings about; None where only records do.
        infer: holds batches while they are scored.
        flag: scores become decisions.
        sink: decided rows become records.
        dead_letters_of: input topic -> where its dead letters go.
        late_events: where late events go; None where no window closes.
        laps: books the time of each step.
        clock: stamps.
    """

    decode: Callable[[Records], Batch]
    stateless: Mapping[str, Stateless] = field(default_factory=dict)
    window: Keyed
    timed: Releasing | None
    infer: Scoring
    flag: Flag
    sink: Sink
    dead_letters_of: Callable[[str], str]
    late_events: str | None
    laps: Laps
    clock: Clock

    # ------------------------------------------------------------------ the two doors
    def feed(self, records: Records, polled: float) -> None:
        """Take in records of one topic, in order per partition; their partitions are open.

        Args:
            records: as read.
            polled: when they were, monotonic seconds.
        """
        batch, laps = self.decode(records), self.laps
        batch.stamps.polled, batch.stamps.decoded = polled, laps.lap("decode")
        for name, step in self.stateless.items():
            step(batch)
            batch.stamps.stateless += (laps.lap(name),)
        self.window(batch)
        batch.stamps.windowed = laps.lap("window")
        self.infer.submit(batch)

    def advance(self, room: Callable[[], int]) -> None:
        """Let rows go whose time has come by the clock, while there is `room` for them."""
        if self.timed is not None:
            for batch in self.timed.released(room):
                self.infer.submit(batch)

    def skip(self, topic: str, partition: int, offset: int) -> None:
        """Nothing lies before `offset` but what was fed: a batch without rows that owes it goes the way of all batches."""
        batch = Batch.unpolled(topic, self.clock.wall_us())
        batch.owed = {partition: offset}
        batch.stamps.begin_windowed(self.clock.monotonic())
        self.infer.submit(batch)

    # ------------------------------------------------------------------ the way out
    def done(self, wait_s: float = 0.0) -> Iterator[Outgoing]:
        """Batches that are scored, decided and encoded; for the first of them it waits at most `wait_s`.

        Raises:
            EngineError: the model refuses every row; all that is on its way is to be dropped and fed again.
        """
        while (batch := self.infer.collect(wait_s)) is not None:
            wait_s = 0.0
            self.laps.start()
            self.flag(batch)
            self.laps.lap("flag")
            outgoing = self._encoded(batch)
            self.laps.lap("produce")
            yield outgoing

    def _encoded(self, batch: Batch) -> Outgoing:
        rows = deque(self.sink.records(batch, self.clock.wall_us()))
        assert batch.balanced, f"not every input has one outcome: {len(batch)} rows, {len(batch.dead)} letters, {batch.tally}"
        batch.values, batch.messages, batch.traces = [], [], []
        batch.stamps.encoded = self.clock.monotonic()
        letters = deque((self.dead_letters_of(letter.topic), letter) for letter in batch.dead)
        letters += [(self.late_events or "", letter) for letter in batch.payload.late]
        return Outgoing(batch=batch, rows=rows, letters=letters)

    # ------------------------------------------------------------------ what is on its way
    @property
    def rows(self) -> int:
        """Records on their way, dead letters included."""
        return self.infer.rows

    @property
    def value_bytes(self) -> int:
        """Size of their values as read."""
        return self.infer.value_bytes

    def __len__(self) -> int:
        """Batches on their way."""
        return len(self.infer)

    @property
    def due(self) -> bool:
        """Whether rows wait only until it is certain that nothing comes before them."""
        return self.timed is not None and self.timed.due

    def stuck(self) -> str | None:
        """None, or which run of the model hangs; safe from any thread."""
        return self.infer.stuck()

    def drop(self) -> None:
        """Forget all that is on its way. State has taken it in: what follows is to open each partition anew."""
        self.infer.drop()

    def close(self) -> None:
        """End the threads of the engine."""
        self.infer.close()
