"""Whether a model's scores belong to their rows: tried at start on made-up rows, since a model that mixes them raises nothing.

Five distinct rows are scored alone, then two, three and five of them together, in order and out of it. A row must score the
same wherever it stands. What does not is refused: results of one key would be published under another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.errors import ModelError
from streamer.inference.specimens import ROWS, Floats, Specimens, specimens
from streamer.limits import PROBE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamer.inference.model import LoadedModel

# Orders in which the rows are scored together: each number of rows as they are, and with every row elsewhere.
_TOGETHER = ((0, 1), (1, 0), (0, 1, 2), (2, 0, 1), (0, 1, 2, 3, 4), (3, 0, 4, 1, 2))
# Of the largest score: float32 sums in another order differ by less.
_ROUNDING = 1e-5
# Rows tell something when their scores differ by more than this share of the largest: beyond, rounding could hide a mix-up.
_SPREAD_MIN = 0.01
# Of the spread of the scores. A quantised model, whose grid follows the batch, moves by a few hundredths; a mean over two
# rows by a half, another row's score by up to the whole.
_MOVED_MAX = 0.25


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found, where the model is not refused.

    Attributes:
        row: one made-up row that the model scores, feature -> (1,) or (1, width); None when it scored none.
        warnings: what a person should know, each a sentence.
    """

    row: "Mapping[str, Floats] | None" = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One kind of rows, judged.

    Attributes:
        moved: how far a score was from that of its row alone, as a share of the spread.
        change: the same in units of the score.
        noise: how far two runs over the same rows differ, as a share of the spread.
        says: the worst case as a sentence.
    """

    moved: float
    change: float
    noise: float
    says: str

    @property
    def mixed(self) -> bool:
        """Whether scores follow something else than their row."""
        return self.moved > _MOVED_MAX and self.moved > 3 * self.noise


def probe(model: "LoadedModel", features: "Mapping[str, tuple[int, ...]]", clock: Clock) -> Probed:
    """Try the model on made-up rows.

    Args:
        model: loaded, its inputs checked.
        features: name -> shape of one row.
        clock: bounds the time taken; a kind of rows that has begun is finished.

    Raises:
        ModelError: the number of scores does not follow the number of rows, or scores follow their neighbours.
    """
    started, row, refusal = clock.monotonic(), None, ""
    verdicts: list[_Verdict] = []
    for drawn in specimens(features, model.facts):
        if verdicts and clock.monotonic() - started > PROBE_S:
            break
        alone = _alone(model, drawn)
        if isinstance(alone, str):
            refusal = refusal or f"{drawn.kind}: {alone}"
            continue
        row = row or {name: column[:1] for name, column in drawn.columns.items()}
        if (verdict := _judged(model, drawn, alone)) is not None:
            verdicts.append(verdict)
    if row is None:
        return Probed(None, (f"the model refuses every made-up row ({refusal}), {_UNKNOWN}",))
    mixed = [verdict for verdict in verdicts if verdict.mixed]
    if 2 * len(mixed) > len(verdicts):  # rows at which a quantised model is saturated move by much of very little
        raise ModelError(f"{mixed[0].says}. {_MIXED}")
    return Probed(row, tuple(_warnings(verdicts)))


_UNKNOWN = "so nothing is known about whether each score belongs to its row"
_MIXED = (
    "Scores of one event would be published for another, as by an output that is transposed or time-major, a mean or a "
    "running sum over the rows, or one score for all: export it so that each row of the output is made from the same row of "
    "the input alone"
)


def _warnings(verdicts: list[_Verdict]) -> Iterator[str]:
    if not verdicts:
        yield f"made-up rows all score alike, {_UNKNOWN}"
        return
    noisy = max(verdicts, key=lambda verdict: verdict.noise)
    if noisy.noise > 0:
        unsure = f"; that is much of the difference between rows, {_UNKNOWN}" if noisy.noise > _MOVED_MAX else ""
        yield f"the same rows score differently each time, by up to {noisy.noise:.1%} of the spread of the scores{unsure}"
        return
    worst = max(verdicts, key=lambda verdict: verdict.moved)
    if worst.moved > 0:
        yield (
            f"scores move with the rows beside them, by up to {worst.change:.3g} ({worst.moved:.1%} of their spread), as those "
            "of a quantised model do: the same event may score a little differently after a restart"
        )


def _alone(model: "LoadedModel", drawn: Specimens) -> Floats | str:
    """Scores of each row by itself, (ROWS, columns), or why there are none."""
    try:
        scores = [model.run({name: column[n : n + 1] for name, column in drawn.columns.items()}, 1) for n in range(ROWS)]
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many kinds
        return one_line(error)
    widths = {score.shape[1] for score in scores}
    if len(widths) > 1:
        raise ModelError(
            f"{model.file.path} gives {sorted(widths)} numbers for one row; a row must have the same number each time"
        )
    together = np.concatenate(scores)
    return together if np.isfinite(together).all() else "the score is NaN or infinite"


def _judged(model: "LoadedModel", drawn: Specimens, alone: Floats) -> _Verdict | None:
    """Hold scores of rows together against those of each alone; None where the rows score too much alike to tell."""
    pairs = [[_together(model, drawn, order, alone.shape[1]) for _ in range(2)] for order in _TOGETHER]
    everything = [alone, *(first for first, _ in pairs)]
    largest = np.max([_finite(np.abs(scores)).max(axis=0) for scores in everything], axis=0)
    spread = np.max([np.ptp(_finite(scores), axis=0) for scores in everything], axis=0)
    telling = spread > _SPREAD_MIN * largest
    if not telling.any():
        return None
    worst, change, noise, says = 0.0, 0.0, 0.0, ""
    for order, (first, again) in zip(_TOGETHER, pairs, strict=True):
        noise = max(noise, float(_share(again, first, _ROUNDING * largest, spread, telling).max()))
        off = _share(first, alone[list(order)], _ROUNDING * largest, spread, telling)
        if (moved := float(off.max())) > worst:
            place, column = (int(index) for index in np.unravel_index(off.argmax(), off.shape))
            own, here = float(alone[order[place], column]), float(first[place, column])
            worst, change = moved, abs(here - own)
            where = f"in place {place + 1} of {len(order)} rows"
            says = f"{model.file.path}: a row that scores {own:.6g} alone scores {here:.6g} {where}"
    return _Verdict(worst, change, noise, says)


def _finite(scores: Floats) -> NDArray[np.float64]:
    return np.nan_to_num(scores.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _share(
    scores: Floats, others: Floats, rounding: NDArray[np.float64], spread: NDArray[np.float64], telling: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Differences as shares of the spread of their column; 0 where they are rounding, or the column tells nothing."""
    off = np.abs(scores.astype(np.float64) - others)
    off[~np.isfinite(scores) & ~np.isfinite(others)] = 0.0
    off = np.nan_to_num(off, nan=np.inf)
    off[(off <= rounding) | ~np.broadcast_to(telling, off.shape)] = 0.0
    return off / np.where(telling, spread, 1.0)


def _together(model: "LoadedModel", drawn: Specimens, order: tuple[int, ...], columns: int) -> Floats:
    rows = len(order)
    try:
        scores = model.run({name: column[list(order)] for name, column in drawn.columns.items()}, rows)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{model.file.path} scores each of {rows} rows alone, but not together ({one_line(error)}); "
            "export it with a dynamic first axis, or set .infer(max_batch=1)"
        ) from error
    if scores.shape[1] != columns:
        raise ModelError(
            f"{model.file.path} gives {columns} numbers for a row alone and {scores.shape[1]} for each of {rows} rows; "
            "the columns of its output must not depend on the number of rows"
        )
    return scores


def one_line(error: Exception) -> str:
    """Its words in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
