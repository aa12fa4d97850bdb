"""The user's feature function on the windows of a batch; where it fails, the row it fails on."""

import inspect
import traceback
from typing import TYPE_CHECKING

import numpy as np

from streamer.errors import TopologyError
from streamer.telemetry.logs import get_logger

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamer.rows.batch import Batch
    from streamer.topology.steps import FeatureFunction
    from streamer.topology.view import Window

_log = get_logger(__name__)

_PLACES_SHOWN = 4


def features_of(function: "FeatureFunction", window: "Window", batch: "Batch") -> "dict[str, NDArray[np.float32]]":
    """Call the user's function on the windows of the rows of a batch.

    Raises:
        TopologyError: it failed, or gave columns of another length; names the rows, and the one that it fails on.
    """
    try:
        return _called(function, window, len(batch))
    except Exception as error:
        what = (
            f"{_line(function, error)}: the feature function failed on a batch of {len(batch)} rows, {_range(batch)} "
            f"({type(error).__name__}: {error}); {_blame(function, window, batch)}. It must accept any number of rows, any count "
            "of samples, and constant values"
        )
        _log.error("features_failed", problem=what, exc_info=error)
        raise TopologyError(what) from error


def _called(function: "FeatureFunction", window: "Window", rows: int) -> "dict[str, NDArray[np.float32]]":
    with np.errstate(all="ignore"):
        columns = function(window)
        features = {name: np.asarray(column, np.float32) for name, column in columns.items()}
    for name, column in features.items():
        if column.shape[:1] != (rows,):
            raise ValueError(f"feature {name!r} has shape {column.shape} for {rows} events")
    return features


def _line(function: "FeatureFunction", error: Exception) -> str:
    """File and line of the function at which it failed, or where it begins."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return repr(function)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.co_filename]
    return f"{code.co_filename}:{lines[-1] if lines else code.co_firstlineno}"


def _range(batch: "Batch") -> str:
    """Where the rows of a batch lie: topic, partition, and the offsets from the first to the last."""
    origin = batch.origin
    places = []
    for partition in np.unique(origin.partitions).tolist():
        offsets = origin.offsets[origin.partitions == partition]
        places.append(f"{origin.topic}/{partition}/{offsets.min()}..{offsets.max()}")
    more = len(places) - _PLACES_SHOWN
    return ", ".join(places[:_PLACES_SHOWN]) + (f" and {more} partitions more" if more > 0 else "")


def _blame(function: "FeatureFunction", window: "Window", batch: "Batch") -> str:
    """The row that it fails on, found by halving."""
    low, high = 0, len(batch)
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(function, window, low, middle):
            high = middle
        elif _fails(function, window, middle, high):
            low = middle
        else:
            return f"it takes each half of the rows {low} to {high - 1} of them alone, and not both together"
    if not _fails(function, window, low, high):
        return "tried again it took them"
    origin = batch.origin
    row = f"{origin.topic}/{origin.partitions[low]}/{origin.offsets[low]}, key {batch.keys[low]!r}"
    return f"it fails on {what} at {row}" if (what := batch.payload.name(low)) else f"it fails on {row}"


def _fails(function: "FeatureFunction", window: "Window", start: int, end: int) -> bool:
    try:
        _called(function, window.only(slice(start, end)), end - start)
    except Exception:  # noqa: BLE001 - whatever it is, this is about where
        return True
    return False
