"""Rows whose output is larger than its topic takes: dead letters, before anything of them is sent."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streamer.rows.batch import Batch

TOO_LARGE = "too_large"


def refuse(batch: Batch, large: Mapping[int, str]) -> NDArray[np.int64]:
    """Make dead letters of these rows, each with what is wrong with it; returns the rows that are left."""
    for row, fault in sorted(large.items()):
        only = np.zeros(len(batch), np.bool_)
        only[row] = True
        batch.dead += batch.letters(only, "produce", TOO_LARGE, fault)
    left = np.setdiff1d(np.arange(len(batch)), list(large))
    batch.keep(left)
    return left
