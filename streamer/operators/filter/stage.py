"""filter: rows for which the user's function gives False leave the flow, before any state has seen them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from streamer.features.call import kept_of
from streamer.operators.explained import listed
from streamer.rows.batch import Batch
from streamer.topology.steps import FilterFunction
from streamer.topology.view import Events


@dataclass(frozen=True, slots=True)
class FilterStage:
    """Asks the function once a batch.

    Attributes:
        function: the user's.
        columns: event fields that it reads.
    """

    function: FilterFunction
    columns: frozenset[str]
    kind: ClassVar[str] = "filter"

    @property
    def told(self) -> str:
        """What it does, in words."""
        return f"chooses rows by {listed(sorted(self.columns))}"

    def __call__(self, batch: Batch) -> None:
        """Keep the rows that go on; the batch owes the others' offsets still, and its tally has their number."""
        if not len(batch):
            return
        kept = kept_of(self.function, Events({name: batch.columns[name] for name in self.columns}), batch)
        if not kept.all():
            batch.tally.filtered += int((~kept).sum())
            batch.keep(np.flatnonzero(kept))
