"""What an operator adds to the batches that it makes, beside the columns that every row has."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from streamer.rows.dead_letter import DeadLetter
from streamer.rows.per_row import PerRow
from streamer.rows.spans import NO_SPANS, Spans

if TYPE_CHECKING:
    from streamer.rows.batch import Batch


@dataclass(slots=True, eq=False)
class Payload(PerRow):
    """Adds nothing: rows are records of the input. An operator derives its own, and overrides what it has to say.

    Those behind it ask these questions and not which operator there was. What only the operator's own encoder reads are fields
    of its class.
    """

    @classmethod
    def of(cls, batch: "Batch") -> Self:
        """That of a batch which an operator of this kind has made."""
        assert isinstance(batch.payload, cls), f"a batch has {type(batch.payload).__name__}, and {cls.__name__} was expected"
        return batch.payload

    @property
    def spans(self) -> Spans:
        """The windows that the rows are."""
        return NO_SPANS

    @property
    def closed(self) -> int:
        """Closed windows among the rows: they are no input records."""
        return 0

    @property
    def refused(self) -> int:
        """Closed windows that were among them and became dead letters."""
        return 0

    @property
    def late(self) -> Sequence[DeadLetter]:
        """Records that came when all their windows had closed."""
        return ()

    @property
    def partitions(self) -> Collection[int]:
        """Partitions of which it says something, be there a row of them or not."""
        return ()

    def name(self, row: int) -> str:
        """What a row is, in words; nothing where it is a record."""
        return self.spans.name(row) if len(self.spans) else ""


PLAIN = Payload()
