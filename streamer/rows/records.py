"""Records as polled, column by column, and where they came from at first."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.rows.per_row import WHOLE, PerRow
from streamer.rows.trace import Trace

# Topic and partition.
TopicAndPartition = tuple[str, int]
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


def known_headers(messages: list[Message | None], traces: list[Trace], row: int) -> Headers:
    """All headers where the record is at hand; what is left of one that is not is its trace."""
    if messages:
        return headers_of(messages[row])
    return traces[row] if traces else ()


def believed(times_us: NDArray[np.int64], by_us: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Times at which something happened that we saw at `by_us`; what cannot be (later, below 0, ages ago) is taken to be that."""
    # Without a sign what lies later is huge: one comparison for all that is wrong, and it is usually the only one.
    most = min(by_us, _AGE_US_MAX) if isinstance(by_us, int) else np.minimum(by_us, _AGE_US_MAX).view(np.uint64)
    wrong = (by_us - times_us).view(np.uint64) > most
    return np.where(wrong, by_us, times_us) if np.count_nonzero(wrong) else times_us


@dataclass(slots=True, kw_only=True)
class Origin(PerRow):
    """Records as their producer wrote them. What a re-keyed flow reads lies elsewhere by then; results name this place.

    Attributes:
        topic: where they were produced to.
        partitions, offsets: where each lies there.
        timestamps_ms: their record timestamps, milliseconds since the epoch.
        keys: the record keys they had.
    """

    topic: str = field(metadata=WHOLE)
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: list[bytes | None]


@dataclass(slots=True, kw_only=True)
class Records(PerRow):
    """Records as polled, column by column; all lists and arrays have one entry per record.

    Attributes:
        topic: input topic.
        partitions, offsets: where each record lies.
        timestamps_ms: record timestamps, milliseconds since the epoch.
        messages: the records as the client holds them.
        keys, values: bytes, or None.
        polled_us: wall time of the poll, microseconds.
        received: where they came from, for records of an internal topic.
        traces: of each record; empty where none has one.
    """

    topic: str = field(metadata=WHOLE)
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    messages: list[Message | None]
    keys: list[bytes | None]
    values: list[bytes | None]
    polled_us: int = field(metadata=WHOLE)
    received: Origin | None = None
    traces: list[Trace] = field(default_factory=list)

    @property
    def origin(self) -> Origin:
        """Where they came from: here, unless another flow of ours forwarded them."""
        return self.received or Origin(
            topic=self.topic, partitions=self.partitions, offsets=self.offsets, timestamps_ms=self.timestamps_ms, keys=self.keys
        )

    def __len__(self) -> int:
        return len(self.values)

    def headers(self, row: int) -> Headers:
        """The headers of a record, as far as they are known."""
        return known_headers(self.messages, self.traces, row)
