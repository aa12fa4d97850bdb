"""flag: a score becomes a decision."""

import numpy as np

from streamer.rows.batch import Batch


class Flag:
    """Flags scores above the threshold that travels with the model version, or the number of the topology."""

    def __init__(self, threshold: float | None, column: int) -> None:
        self._threshold = None if threshold is None else np.float64(threshold)
        self._column = column

    def __call__(self, batch: Batch) -> None:
        """Set `batch.flags`; the comparison is in float64, so that a threshold is not rounded to the score's type."""
        if self._threshold is None or len(batch) == 0:
            batch.flags = np.zeros(len(batch), np.bool_)
        else:
            batch.flags = batch.scores[:, self._column].astype(np.float64) > self._threshold
