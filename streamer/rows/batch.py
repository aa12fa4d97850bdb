"""The values that travel: raw records, then one `Batch` of columns with its origins, stamps and what it owes."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.state.delta import Delta

Headers = tuple[tuple[str, bytes | None], ...]

LOG_APPEND_TIME = 2
# A timestamp longer ago than this is none: it is missing, or in another unit. No topic keeps records for ten years.
_AGE_US_MAX = 10 * 366 * 86_400 * 1_000_000


class Message(Protocol):
    """A record as the client holds it, for what is asked of few rows only; its bytes are columns of the batch already."""

    def timestamp(self) -> tuple[int, int]:
        """Kind of the timestamp (`LOG_APPEND_TIME`, or another: the producer's or none), and milliseconds since the epoch."""

    def headers(self) -> Any:
        """Name and value of each header, or None."""


def headers_of(message: Message | None) -> Headers:
    """Its headers as they were produced; none where there is no record, or where their names are no text."""
    try:
        return tuple(message.headers() or ()) if message is not None else ()
    except UnicodeDecodeError:
        return ()


def believed(times_us: NDArray[np.int64], by_us: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Times at which something happened that we saw at `by_us`; what cannot be (later, below 0, ages ago) is taken to be that."""
    # Without a sign what lies later is huge: one comparison for all that is wrong, and it is usually the only one.
    most = min(by_us, _AGE_US_MAX) if isinstance(by_us, int) else np.minimum(by_us, _AGE_US_MAX).view(np.uint64)
    wrong = (by_us - times_us).view(np.uint64) > most
    return np.where(wrong, by_us, times_us) if np.count_nonzero(wrong) else times_us


@dataclass(slots=True)
class Origin:
    """Records as their producer wrote them. What a re-keyed flow reads lies elsewhere by then; results name this place.

    Attributes:
        topic: where they were produced to.
        partitions, offsets: where each lies there.
        timestamps_ms: their record timestamps, milliseconds since the epoch.
        keys: the record keys they had.
    """

    topic: str
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: list[bytes | None]

    def only(self, rows: NDArray[np.int64]) -> "Origin":
        """These rows, in this order."""
        keys = [self.keys[row] for row in rows.tolist()]
        return Origin(self.topic, self.partitions[rows], self.offsets[rows], self.timestamps_ms[rows], keys)


@dataclass(slots=True)
class Records:
    """Records as polled, column by column; all lists and arrays have one entry per record.

    Attributes:
        topic: input topic.
        partitions, offsets: where each record lies.
        timestamps_ms: record timestamps, milliseconds since the epoch.
        messages: the records as the client holds them.
        keys, values: bytes, or None.
        polled_us: wall time of the poll, microseconds.
        received: where they came from, for records of an internal topic.
    """

    topic: str
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    messages: list[Message | None]
    keys: list[bytes | None]
    values: list[bytes | None]
    polled_us: int
    received: Origin | None = None

    @property
    def origin(self) -> Origin:
        """Where they came from: here, unless another flow of ours forwarded them."""
        return self.received or Origin(self.topic, self.partitions, self.offsets, self.timestamps_ms, self.keys)

    def __len__(self) -> int:
        return len(self.values)

    def only(self, rows: NDArray[np.int64]) -> "Records":
        """These rows, in this order."""
        chosen = rows.tolist()
        return Records(
            self.topic, self.partitions[rows], self.offsets[rows], self.timestamps_ms[rows],
            self.messages and [self.messages[row] for row in chosen],
            [self.keys[row] for row in chosen], [self.values[row] for row in chosen], self.polled_us,
            self.received and self.received.only(rows),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be used, with the reason; key, value and headers are the original ones.

    Attributes:
        timestamp_ms: of the original record; None where there is no such record.
        more: further headers, of ours.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    stage: str
    reason: str
    detail: str
    timestamp_ms: int | None = None
    headers: Headers = ()
    more: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Spans:
    """The windows that the rows of a batch stand for, where windows close; arrays (rows,).

    Attributes:
        start_us, end_us: the window [start, end), microseconds.
        final: whether it has closed; else the row is an event, and its window as it was then.
    """

    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    final: NDArray[np.bool_]

    def name(self, row: int) -> str:
        """What a row is, in words."""
        return f"{'the' if self.final[row] else 'an event in the'} window from {self.start_us[row]} to {self.end_us[row]} us"

    def only(self, rows: NDArray[np.int64]) -> "Spans":
        """These rows, in this order."""
        return Spans(self.start_us[rows], self.end_us[rows], self.final[rows])


@dataclass(slots=True)
class Pairs:
    """Predictions that leave, one for each row of the batch, with their labels or without.

    Attributes:
        bodies: JSON objects of the predictions.
        labels: of their labels, None for a prediction that got none.
        delays_us: from the time of the prediction to that of its label.
        unused: labels dropped meanwhile that no prediction had.
    """

    bodies: list[bytes]
    labels: list[bytes | None]
    delays_us: list[int]
    unused: int

    @property
    def found(self) -> int:
        """How many have a label."""
        return len(self.labels) - self.labels.count(None)

    def only(self, rows: NDArray[np.int64]) -> "Pairs":
        """These rows, in this order."""
        of = rows.tolist()
        columns = self.bodies, self.labels, self.delays_us
        bodies, labels, delays = ([column[row] for row in of] for column in columns)
        return Pairs(bodies, labels, delays, self.unused)


@dataclass(slots=True)
class Stamps:
    """Monotonic seconds at which a batch passed each station; a station's time is the difference to the one before.

    A batch waits between stations too, so the parts sum to the whole by construction.
    """

    polled: float = 0.0
    decoded: float = 0.0
    windowed: float = 0.0
    run_started: float = 0.0
    run_ended: float = 0.0
    encoded: float = 0.0
    produced: float = 0.0


@dataclass(slots=True)
class Said:
    """What the records of an internal topic say of the partitions of the source, those that hold no event among them.

    Attributes:
        partitions, offsets: where each record lies in the internal topic.
        heads: their headers, see `rekey.header`.
    """

    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    heads: NDArray[np.void]


@dataclass(slots=True)
class Batch:
    """Rows that go through the stages together. Arrays and lists have one entry per admitted row, in log order.

    Attributes:
        topic: input topic.
        owed: partition -> next offset; what a commit of this batch covers, dead letters included.
        dead: records refused so far.
        polled_us: wall time of the poll, microseconds.
        keys: record keys (None only in a flow without windows).
        partitions, offsets, timestamps_ms: where each row lies in the input topic.
        times_us: event times, microseconds.
        columns: event fields somebody asked for.
        values: record values, for a row that is refused later; empty once all rows are decided.
        value_bytes: size of all values polled with it.
        deltas: partition -> what entered the window store.
        counts: (rows,) samples in the window.
        features: feature name -> (rows,) or (rows, width) column.
        scores: (rows, columns) float32 model output.
        flags: (rows,) bool.
        folded: rows that entered state and are no rows of the batch any more.
        joined: whether those are of another input than the source, so that nothing else becomes of them.
        received: where the rows came from, for those of an internal topic.
        said: what their records say of the source.
        silent: records of an internal topic that hold a watermark and no event, or one that was there before.
        watermarks: (rows,) on the way to an internal topic: largest event time of the row's partition so far.
        spans: the windows that the rows are, where windows close.
        closed: how many closed windows there were among the rows at first: they are no input records.
        late: records that came when all their windows had closed.
        told: on the way there, partition -> (receivers,) watermark that each partition of that topic was told.
        quiet: on the way there, partitions that had fallen silent before its rows came, and how far they had come.
        pairs: where labels are waited for, what the rows are.
        messages: what the client holds of each row (None: it is no record of the input); empty where there are none, and once
            all rows are decided.
    """

    topic: str
    owed: dict[int, int]
    dead: list[DeadLetter]
    polled_us: int
    keys: list[Any]
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    times_us: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    values: list[bytes | None]
    value_bytes: int = 0
    stamps: Stamps = field(default_factory=Stamps)
    deltas: dict[int, Delta] = field(default_factory=dict)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 1), np.float32))
    flags: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    folded: int = 0
    joined: bool = False
    received: Origin | None = None
    said: Said | None = None
    silent: int = 0
    watermarks: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    told: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    quiet: dict[int, int] = field(default_factory=dict)
    spans: Spans | None = None
    closed: int = 0
    late: list[DeadLetter] = field(default_factory=list)
    pairs: Pairs | None = None
    messages: list[Message | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def origin(self) -> Origin:
        """Where the rows came from: the input topic, unless another flow of ours forwarded them."""
        return self.received or Origin(self.topic, self.partitions, self.offsets, self.timestamps_ms, self.keys)

    @property
    def arrived_us(self) -> NDArray[np.int64]:
        """When each row came to the topic it was read from, microseconds: its record timestamp as far as that can be true."""
        return believed(self.timestamps_ms * 1000, self.polled_us)

    @property
    def logged_us(self) -> NDArray[np.int64]:
        """The same for the topic it was first produced to; never after `arrived_us`."""
        return self.arrived_us if self.received is None else believed(self.received.timestamps_ms * 1000, self.arrived_us)

    @property
    def records(self) -> int:
        """Input records it stands for: rows, dead letters, rows in state, watermarks. A refusal later changes nothing here."""
        return self.weight - self.closed

    @property
    def weight(self) -> int:
        """What it takes up of the room in flight: its input records and closed windows. A refusal later changes nothing."""
        return len(self.offsets) + len(self.dead) + len(self.late) + self.folded + self.silent

    @property
    def final(self) -> int:
        """Closed windows among the rows now."""
        return int(self.spans.final.sum()) if self.spans else 0

    def broker_stamped(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether these rows have a timestamp of the broker's; asked of each record, so only for few."""
        messages = [self.messages[row] for row in rows.tolist()] if self.messages else [None] * len(rows)
        return np.array([message is not None and message.timestamp()[0] == LOG_APPEND_TIME for message in messages], np.bool_)

    def letters(self, bad: NDArray[np.bool_], stage: str, reason: str, detail: str) -> list[DeadLetter]:
        """Dead letters of these rows."""
        origin, spans = self.origin, self.spans
        keys = self.keys if spans else origin.keys
        return [
            DeadLetter(
                origin.topic, int(origin.partitions[row]), int(origin.offsets[row]),
                keys[row], self.values[row], stage, reason, f"{spans.name(row)}: {detail}" if spans else detail,
                None if spans and spans.final[row] else int(origin.timestamps_ms[row]),
                headers_of(self.messages[row] if self.messages else None),
            )
            for row in np.flatnonzero(bad).tolist()
        ]  # fmt: skip

    def pad(self, partitions: NDArray[np.int32]) -> None:
        """Add rows that no record of the input brought about, of these partitions; they arrived with the poll."""
        n, none = len(partitions), np.zeros(len(partitions), np.int64)
        stamps = np.full(n, self.polled_us // 1000)
        if self.received is not None:
            theirs = self.received
            self.received = Origin(
                theirs.topic, np.concatenate([theirs.partitions, partitions]), np.concatenate([theirs.offsets, none]),
                np.concatenate([theirs.timestamps_ms, stamps]), [*theirs.keys, *[None] * n],
            )  # fmt: skip
        self.partitions, self.offsets = np.concatenate([self.partitions, partitions]), np.concatenate([self.offsets, none])
        self.timestamps_ms = np.concatenate([self.timestamps_ms, stamps])
        self.times_us = np.concatenate([self.times_us, none])
        self.keys, self.values = [*self.keys, *[b""] * n], [*self.values, *[None] * n]
        self.messages = self.messages and [*self.messages, *[None] * n]
        self.columns = {name: np.concatenate([column, np.zeros(n, column.dtype)]) for name, column in self.columns.items()}

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only these rows, in this order."""
        chosen = rows.tolist()
        self.spans = self.spans and self.spans.only(rows)
        self.received = self.received and self.received.only(rows)
        self.keys = [self.keys[row] for row in chosen]
        self.values = [self.values[row] for row in chosen]
        if self.messages:
            self.messages = [self.messages[row] for row in chosen]
        for name in ("partitions", "offsets", "timestamps_ms", "times_us", "counts", "scores", "flags"):
            column = getattr(self, name)
            if len(column):
                setattr(self, name, column[rows])
        self.columns = {name: column[rows] for name, column in self.columns.items()}
        self.features = {name: column[rows] for name, column in self.features.items()}
