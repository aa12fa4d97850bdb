"""What scored the rows of a batch: for each `infer` the models that took part, and which of them took which row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamer.rows.per_row import WHOLE, PerRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model as those behind it need to know it.

    Attributes:
        model, version: its name and version in the repository.
        digest: of its file, "sha256:" and 64 digits.
        threshold: scores above it are flagged; None flags nothing.
        score_column: of its outputs, the one that is the score.
        usual: feature -> its centre and its spread at training, of those that the model says it of.
    """

    model: str
    version: int
    digest: str
    threshold: float | None
    score_column: int
    usual: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False)


@dataclass(slots=True, kw_only=True, eq=False)
class ServedRows(PerRow):
    """Which model scored each row.

    Attributes:
        table: those that scored rows of the batch.
        index: (rows,) the place of each row's in `table`.
    """

    table: tuple[Served, ...] = field(metadata=WHOLE)
    index: NDArray[np.int64]

    @classmethod
    def by(cls, one: Served, rows: int) -> Self:
        """All of them by one."""
        return cls(table=(one,), index=np.zeros(rows, np.int64))

    def of(self, row: int) -> Served:
        """What scored a row."""
        served: Served = self.table[self.index[row]]
        return served

    def score(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows,) of the outputs, (rows, columns), the one that is the score."""
        if len(self.table) == 1:
            return scores[:, self.table[0].score_column]
        columns = np.array([served.score_column % scores.shape[1] for served in self.table])
        chosen: NDArray[np.float32] = scores[np.arange(len(scores)), columns[self.index]]
        return chosen

    def thresholds(self) -> NDArray[np.float64]:
        """(rows,) scores above it are flagged; NaN, which nothing is above, where none are."""
        return np.array([np.nan if served.threshold is None else served.threshold for served in self.table])[self.index]

    def rows(self) -> Iterator[tuple[Served, int]]:
        """Each model with how many rows it scored."""
        yield from zip(self.table, np.bincount(self.index, minlength=len(self.table)).tolist(), strict=True)
