"""What scored a row: the model's name and version, and what its numbers mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Served:
    """A model as those behind it need to know it.

    Attributes:
        model, version: its name and version in the repository.
        threshold: scores above it are flagged; None flags nothing.
        score_column: of its outputs, the one that is the score.
        usual: feature -> its centre and its spread at training, of those that the model says it of.
    """

    model: str
    version: int
    threshold: float | None
    score_column: int
    usual: Mapping[str, tuple[float, float]] = field(default_factory=dict)
