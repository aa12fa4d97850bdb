"""`Outgoing`: the records that a batch became, on their way out."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """Encoded records of one batch. Who hands them over takes off what has gone.

    Attributes:
        batch: what they are of; its records as polled are let go.
        rows: topic and records, in the order in which they are to be sent; see `Sink.records`.
        letters: topic and dead letter or late record, in the order in which they are to be sent, behind all rows.
    """

    batch: Batch
    rows: deque[tuple[str, list[dict[str, Any]]]]
    letters: deque[tuple[str, DeadLetter]]
