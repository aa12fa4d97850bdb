"""Labels and predictions through the stage, and which belong together by an oracle that knows nothing of slots and heaps."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import numpy as np

from streamer import Event
from streamer.operators.match.stage import MatchStage
from streamer.operators.match.store import MatchSpec, MatchStore
from streamer.rows.batch import Batch
from streamer.rows.pairs import Pairs
from streamer.rows.tally import Tally
from streamer.state.delta import Delta

SECOND = 1_000_000
START_S = 1_000_000_000
WITHIN_S, LATE_S = 10, 5
FAR_US = 1 << 60


class P(Event, topic="p", key="k", time="t"):
    """A prediction that knows its offset."""

    k: str
    t: float
    n: int
    place: int


class L(Event, topic="l", key="k", time="t"):
    """A label that does."""

    k: str
    t: float
    n: int
    place: int


@dataclass(frozen=True, slots=True)
class Row:
    """One record: topic, key, event time in seconds after the start, and its second field."""

    topic: str
    key: str
    time: int
    on: int = 0


Result = tuple[int, int | None, int | None]


@dataclass(slots=True)
class Flow:
    """A stage, and what left it: offset of the prediction, offset and delay of its label."""

    late_s: int = LATE_S
    on: str | None = "n"
    results: list[Result] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    unused: int = 0
    stage: MatchStage = field(init=False)
    _now_s: float = 0.0
    _offsets: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        spec = MatchSpec(("p", "l"), WITHIN_S * SECOND, self.late_s * SECOND, self.on)
        self.stage = MatchStage(
            spec=spec, events=(P, L), waiting_max=1000, idle_timeout_s=1.0, changelog="c", name_bytes_max=1 << 20
        )
        self.stage.open(0)

    @property
    def store(self) -> MatchStore:
        return self.stage.stores[0]

    def feed(self, rows: Sequence[Row]) -> None:
        """A poll: one batch for each topic."""
        for topic in ("p", "l"):
            if some := [row for row in rows if row.topic == topic]:
                self._feed(topic, some)

    def _feed(self, topic: str, rows: Sequence[Row]) -> None:
        n, start = len(rows), self._offsets[topic]
        self._offsets[topic] += n
        values = [
            msgspec.json.encode({"k": row.key, "t": START_S + row.time, "n": row.on, "place": start + place})
            for place, row in enumerate(rows)
        ]
        batch = Batch(
            topic=topic, owed={0: start + n}, polled_us=0, tally=Tally(inputs=n),
            keys=[row.key.encode() for row in rows], partitions=np.zeros(n, np.int32), offsets=np.arange(start, start + n),
            timestamps_ms=np.zeros(n, np.int64), times_us=np.array([(START_S + row.time) * SECOND for row in rows], np.int64),
            columns={}, values=list(values),
        )  # fmt: skip
        self.stage(batch)
        assert batch.dead == []
        self._note(batch)

    def release(self, silence_s: Sequence[float | None] = (None, None), now_us: int = 0) -> None:
        self._now_s += 10.0
        while (batch := self.stage.release(0, silence_s, now_us, self._now_s)) is not None:
            self._note(batch)

    def end(self) -> None:
        """Both inputs are silent, and our clock is far ahead."""
        self.release((9.0, 9.0), FAR_US)

    def _note(self, batch: Batch) -> None:
        pairs = Pairs.of(batch)
        assert batch.balanced
        self.deltas.append(batch.deltas[0])
        self.unused += pairs.unused
        rows = zip(batch.keys, pairs.bodies, pairs.labels, pairs.delays_us, strict=True)
        for key, body, label, delay in rows:
            prediction = msgspec.json.decode(body)
            assert prediction["key"] == key.decode()
            place = prediction["prediction"]["place"]
            assert place not in [known for known, *_ in self.results]
            theirs = None if label is None else int(msgspec.json.decode(label)["place"])
            self.results.append((place, theirs, None if label is None else delay))


def expected(rows: Sequence[Row], on: str | None = "n") -> set[Result]:
    """Each prediction with the first label, as the log has them, that is of its key and in its time."""
    labels = [row for row in rows if row.topic == "l"]
    found: set[Result] = set()
    for offset, row in enumerate([row for row in rows if row.topic == "p"]):
        fitting = [
            (place, label.time - row.time)
            for place, label in enumerate(labels)
            if label.key == row.key and (on is None or label.on == row.on) and row.time <= label.time <= row.time + WITHIN_S
        ]
        place, delay = fitting[0] if fitting else (None, None)
        found.add((offset, place, None if delay is None else delay * SECOND))
    return found


def check(flow: Flow, rows: Sequence[Row]) -> None:
    assert set(flow.results) == expected(rows, flow.on)
    labels, used = sum(row.topic == "l" for row in rows), {place for _, place, _ in flow.results if place is not None}
    assert len(flow.store.predictions.order) == 0
    assert sum(not one.used for one in flow.store._entries.values()) + flow.unused == labels - len(used)


def run(rows: Sequence[Row], cuts: Sequence[int], late_s: int = LATE_S, on: str | None = "n") -> Flow:
    flow = Flow(late_s, on)
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    for start, end in pairwise(edges):
        flow.feed(rows[start:end])
        flow.release()
    flow.end()
    return flow
