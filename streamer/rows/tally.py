"""What a batch stands for, in numbers: the one account from which room in flight and metrics are taken."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts what came in and what came of it.

    At any time `weight` is the rows of the batch, its letters, and what is `gone`: `Batch.balanced`.

    Attributes:
        inputs: records of an input that the batch stands for.
        emitted: rows that none of them is: windows that closed, rows that had waited and now leave.
        folded: inputs that entered state and are no rows any more.
        joined: the same of an input beside the source, so that nothing else becomes of them.
        silent: inputs that hold a watermark and no event, or one that was there before.
        filtered: inputs that a filter let go no further.
    """

    inputs: int = 0
    emitted: int = 0
    folded: int = 0
    joined: int = 0
    silent: int = 0
    filtered: int = 0

    @property
    def weight(self) -> int:
        """What it takes up of the room in flight. A refusal changes nothing: a row becomes a letter."""
        return self.inputs + self.emitted

    @property
    def gone(self) -> int:
        """Inputs that are neither rows nor letters any more."""
        return self.folded + self.joined + self.silent + self.filtered
