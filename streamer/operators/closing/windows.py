"""What the rows of a batch are where windows close."""

from dataclasses import dataclass, field

from streamer.rows.dead_letter import DeadLetter
from streamer.rows.payload import Payload
from streamer.rows.per_row import WHOLE
from streamer.rows.spans import Spans


@dataclass(slots=True, kw_only=True, eq=False)
class Windows(Payload):
    """Windows that have closed, and events with their window so far.

    Attributes:
        spans: the window of each row.
        closed_at_first: how many of them had closed when the stage made them; some may be refused later.
        late: records that came when all their windows had closed.
    """

    spans: Spans = field()
    closed_at_first: int = field(metadata=WHOLE)
    late: list[DeadLetter] = field(default_factory=list, metadata=WHOLE)

    @property
    def closed(self) -> int:
        """Closed windows among the rows now."""
        return int(self.spans.final.sum())

    @property
    def refused(self) -> int:
        """Those that became dead letters."""
        return self.closed_at_first - self.closed
