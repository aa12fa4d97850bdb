"""Predictions that have met their label, or will not any more."""

from dataclasses import dataclass, field

from streamer.rows.payload import Payload
from streamer.rows.per_row import WHOLE


@dataclass(slots=True, kw_only=True, eq=False)
class Pairs(Payload):
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
    unused: int = field(metadata=WHOLE)

    @property
    def found(self) -> int:
        """How many have a label."""
        return len(self.labels) - self.labels.count(None)
