"""The columns that every row has, from the poll to the output."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.rows.per_row import PerRow
from streamer.rows.records import Message, Origin
from streamer.rows.served import ServedRows
from streamer.rows.trace import Trace

_NO_COUNTS, _NO_SCORES, _NO_FLAGS = np.empty(0, np.int64), np.empty((0, 1), np.float32), np.empty(0, np.bool_)


@dataclass(slots=True, kw_only=True)
class Columns(PerRow):
    """Rows; arrays and lists have one entry per row, in log order.

    Attributes:
        keys: record keys (None only in a flow without windows).
        partitions, offsets, timestamps_ms: where each row lies in the input topic.
        times_us: event times, microseconds.
        columns: event fields somebody asked for.
        values: record values, for a row that is refused later; empty once all rows are decided.
        messages: what the client holds of each row (None: it is no record of the input); empty where there are none, and once
            all rows are decided.
        traces: of each row; empty where none has one.
        received: where the rows came from, for those of an internal topic.
        counts: (rows,) samples in the window.
        features: feature name -> (rows,) or (rows, width) column, as the model takes it.
        whole_features: those that the function gave as whole numbers -> (rows,) int64 or uint64, exact, to be published.
        scores: (rows, columns) float32 model output.
        served: step that scored them -> by which model each.
        flags: (rows,) bool.
    """

    keys: list[Any]
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    times_us: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    values: list[bytes | None]
    messages: list[Message | None] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    received: Origin | None = None
    counts: NDArray[np.int64] = field(default_factory=lambda: _NO_COUNTS)
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    whole_features: dict[str, NDArray[np.integer[Any]]] = field(default_factory=dict)
    scores: NDArray[np.float32] = field(default_factory=lambda: _NO_SCORES)
    served: dict[str, ServedRows] = field(default_factory=dict)
    flags: NDArray[np.bool_] = field(default_factory=lambda: _NO_FLAGS)

    def __len__(self) -> int:
        return len(self.offsets)


def unprompted(partitions: NDArray[np.int32], now_us: int) -> dict[str, Any]:
    """Columns of rows that no record of the input brought about, of these partitions; they arrived at `now_us`."""
    n = len(partitions)
    stamps = np.empty(n, np.int64)
    stamps.fill(now_us // 1000)
    return {
        "keys": [b""] * n, "partitions": partitions, "offsets": np.zeros(n, np.int64),
        "timestamps_ms": stamps, "times_us": np.zeros(n, np.int64), "columns": {},
        "values": [None] * n,
    }  # fmt: skip
