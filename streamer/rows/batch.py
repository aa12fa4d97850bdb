"""`Batch`: rows that travel together, with what they owe, what was refused of them, and what their operator adds."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamer.rows.columns import Columns, unprompted
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.partitions import owed
from streamer.rows.payload import PLAIN, Payload
from streamer.rows.per_row import WHOLE
from streamer.rows.records import LOG_APPEND_TIME, Headers, Origin, Records, believed, known_headers
from streamer.rows.stamps import Stamps
from streamer.rows.tally import Tally
from streamer.rows.trace import NO_TRACE
from streamer.state.delta import Delta

_NO_PARTITIONS = np.empty(0, np.int32)


@dataclass(slots=True, kw_only=True)
class Batch(Columns):
    """Rows that go through the stages together.

    Attributes:
        topic: input topic.
        polled_us: wall time of the poll, microseconds.
        owed: partition -> next offset; what a commit of this batch covers, dead letters included.
        dead: records refused so far.
        deltas: partition -> what entered the window store.
        tally: what it stands for, in numbers.
        stamps: when it passed each station.
        value_bytes: size of all values polled with it.
        payload: what its operator adds.
    """

    topic: str = field(metadata=WHOLE)
    polled_us: int = field(metadata=WHOLE)
    owed: dict[int, int] = field(default_factory=dict, metadata=WHOLE)
    dead: list[DeadLetter] = field(default_factory=list, metadata=WHOLE)
    deltas: dict[int, Delta] = field(default_factory=dict, metadata=WHOLE)
    tally: Tally = field(default_factory=Tally, metadata=WHOLE)
    stamps: Stamps = field(default_factory=Stamps, metadata=WHOLE)
    value_bytes: int = field(default=0, metadata=WHOLE)
    payload: Payload = PLAIN

    @classmethod
    def of(cls, records: Records, rows: NDArray[np.int64]) -> Self:
        """These rows of what was polled, without event times yet; it owes all of it, and the others are to be letters of it."""
        kept = records if len(rows) == len(records) else records.take(rows)
        return cls(
            topic=records.topic, polled_us=records.polled_us, owed=owed(records.partitions, records.offsets),
            tally=Tally(inputs=len(records)), value_bytes=sum(map(len, filter(None, records.values))),
            keys=kept.keys, partitions=kept.partitions, offsets=kept.offsets, timestamps_ms=kept.timestamps_ms,
            times_us=np.empty(0, np.int64), columns={}, values=kept.values, messages=kept.messages, received=kept.received,
            traces=kept.traces,
        )  # fmt: skip

    @classmethod
    def unpolled(cls, topic: str, now_us: int, partitions: NDArray[np.int32] = _NO_PARTITIONS) -> Self:
        """Rows that time brings about, of these partitions; it owes no offset, and its rows are none of the input."""
        tally = Tally(emitted=len(partitions))
        return cls(topic=topic, polled_us=now_us, tally=tally, **unprompted(partitions, now_us))

    @property
    def origin(self) -> Origin:
        """Where the rows came from: the input topic, unless another flow of ours forwarded them."""
        return self.received or Origin(
            topic=self.topic, partitions=self.partitions, offsets=self.offsets, timestamps_ms=self.timestamps_ms, keys=self.keys
        )

    @property
    def arrived_us(self) -> NDArray[np.int64]:
        """When each row came to the topic it was read from, microseconds: its record timestamp as far as that can be true."""
        return believed(self.timestamps_ms * 1000, self.polled_us)

    @property
    def logged_us(self) -> NDArray[np.int64]:
        """The same for the topic it was first produced to; never after `arrived_us`."""
        return self.arrived_us if self.received is None else believed(self.received.timestamps_ms * 1000, self.arrived_us)

    @property
    def weight(self) -> int:
        """What it takes up of the room in flight: its input records, and rows that are none."""
        return self.tally.weight

    @property
    def balanced(self) -> bool:
        """Whether each input, and each row that is none, is a row, a letter, or gone into state: nothing twice, nothing lost."""
        return len(self) + len(self.dead) + len(self.payload.late) + self.tally.gone == self.tally.weight

    def broker_stamped(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether these rows have a timestamp of the broker's; asked of each record, so only for few."""
        messages = [self.messages[row] for row in rows.tolist()] if self.messages else [None] * len(rows)
        return np.array([message is not None and message.timestamp()[0] == LOG_APPEND_TIME for message in messages], np.bool_)

    def headers(self, row: int) -> Headers:
        """The headers of a row's record, as far as they are known."""
        return known_headers(self.messages, self.traces, row)

    def letters(self, bad: NDArray[np.bool_], stage: str, reason: str, detail: str) -> list[DeadLetter]:
        """Dead letters of these rows."""
        rows = np.flatnonzero(bad).tolist()
        if not rows:
            return []
        origin, spans, name = self.origin, self.payload.spans, self.payload.name
        windows = len(spans) > 0
        keys = self.keys if windows else origin.keys
        return [
            DeadLetter(
                topic=origin.topic, partition=int(origin.partitions[row]), offset=int(origin.offsets[row]),
                key=keys[row], value=self.values[row], stage=stage, reason=reason,
                detail=f"{name(row)}: {detail}" if windows else detail,
                timestamp_ms=None if windows and spans.final[row] else int(origin.timestamps_ms[row]),
                headers=self.headers(row),
            )
            for row in rows
        ]  # fmt: skip

    def pad(self, partitions: NDArray[np.int32]) -> None:
        """Add rows that no record of the input brought about, of these partitions; they arrived with the poll."""
        n, theirs, rows = len(partitions), self.received, Columns(**unprompted(partitions, self.polled_us))
        rows.columns = {name: np.zeros(n, column.dtype) for name, column in self.columns.items()}
        rows.messages = [None] * n if self.messages else []
        rows.traces = [NO_TRACE] * n if self.traces else []
        if theirs is not None:
            stamps, keys = rows.timestamps_ms, list[bytes | None]([None] * n)
            rows.received = Origin(
                topic=theirs.topic, partitions=partitions, offsets=rows.offsets, timestamps_ms=stamps, keys=keys
            )
        self.extend(rows)
