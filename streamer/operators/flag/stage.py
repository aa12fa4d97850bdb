"""flag: a score becomes a decision."""

import numpy as np

from streamer.rows.batch import Batch


class Flag:
    """Flags scores above the threshold of what gave them.

    Args:
        step: the one that scores; None where nothing does, and nothing is flagged.
    """

    def __init__(self, step: str | None) -> None:
        self._step = step

    def __call__(self, batch: Batch) -> None:
        """Set `batch.flags`; the comparison is in float64, so that a threshold is not rounded to the score's type."""
        if self._step is None or len(batch) == 0:
            batch.flags = np.zeros(len(batch), np.bool_)
        else:
            served = batch.served[self._step]
            batch.flags = served.score(batch.scores).astype(np.float64) > served.thresholds()
