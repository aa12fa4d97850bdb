"""Rows whose output is larger than its topic takes: dead letters, before anything of them is sent."""

from collections.abc import Mapping

import numpy as np

from streamer.rows.batch import Batch

TOO_LARGE = "too_large"


def refuse(batch: Batch, large: Mapping[int, str]) -> None:
    """Make dead letters of these rows, each with what is wrong with it."""
    for row, fault in sorted(large.items()):
        only = np.zeros(len(batch), np.bool_)
        only[row] = True
        batch.dead += batch.letters(only, "produce", TOO_LARGE, fault)
    batch.keep(np.setdiff1d(np.arange(len(batch)), list(large)))
