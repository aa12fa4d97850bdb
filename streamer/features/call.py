"""The user's functions on the rows of a batch; where one fails, the row it fails on."""

import inspect
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.errors import TopologyError
from streamer.telemetry.logs import get_logger

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamer.rows.batch import Batch
    from streamer.topology.steps import FeatureFunction, FilterFunction
    from streamer.topology.view import Events, Window

_log = get_logger(__name__)

_PLACES_SHOWN = 4


def add_features(function: "FeatureFunction", window: "Window", batch: "Batch") -> None:
    """Call the user's function on the windows of the rows of a batch, and put what it gives into the batch.

    Raises:
        TopologyError: it failed, or gave columns of another length; names the rows, and the one that it fails on.
    """
    try:
        batch.features, batch.whole_features = _features(function, window, len(batch))
    except Exception as error:
        problem = _problem("the feature function failed on a batch of", function, batch, error)
        blamed = _blame(partial(_features, function), window, batch)
        what = f"{problem}; {blamed}. It must accept any number of rows, any count of samples, and constant values"
        _log.error("features_failed", problem=what, exc_info=error)
        raise TopologyError(what) from error


def kept_of(function: "FilterFunction", events: "Events", batch: "Batch") -> "NDArray[np.bool_]":
    """Call the function of a filter on the events of a batch: (rows,) whether each goes on.

    Raises:
        TopologyError: it failed, or gave something else; names the rows, and the one that it fails on.
    """
    try:
        return kept(function, events, len(batch))
    except Exception as error:
        problem = _problem("the filter failed on a batch of", function, batch, error)
        blamed = _blame(partial(kept, function), events, batch)
        what = f"{problem}; {blamed}. It must accept any number of rows, and any values"
        _log.error("filter_failed", problem=what, exc_info=error)
        raise TopologyError(what) from error


def kept(function: "FilterFunction", events: "Events", rows: int) -> "NDArray[np.bool_]":
    """Call the function of a filter on so many events, and raise what it raises.

    Raises:
        ValueError: what it gives is not a bool for each row.
    """
    with np.errstate(all="ignore"):
        answer = np.asarray(function(events))
    if answer.shape != (rows,) or answer.dtype != np.bool_:
        raise ValueError(f"a filter gives one bool a row; for {rows} rows it gave shape {answer.shape} of type {answer.dtype}")
    return answer


def _features(
    function: "FeatureFunction", window: "Window", rows: int
) -> "tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.integer[Any]]]]":
    """What the function gives, as float32, and the whole numbers among it as they are; the latter copied, as the former are."""
    with np.errstate(all="ignore"):
        columns = {name: np.asarray(column) for name, column in function(window).items()}
        features = {name: np.asarray(column, np.float32) for name, column in columns.items()}
    for name, column in features.items():
        if column.shape[:1] != (rows,):
            raise ValueError(f"feature {name!r} has shape {column.shape} for {rows} events")
    return features, {name: _whole(column) for name, column in columns.items() if column.dtype.kind in "iu" and column.ndim == 1}


def _whole(column: "NDArray[Any]") -> "NDArray[np.integer[Any]]":
    """int64, unless it may be larger than that."""
    return column.astype(np.uint64 if column.dtype == np.uint64 else np.int64)


def _problem(failed: str, function: Callable[[Any], object], batch: "Batch", error: Exception) -> str:
    """Where the function failed, on which rows, and with what."""
    return f"{_line(function, error)}: {failed} {len(batch)} rows, {_range(batch)} ({type(error).__name__}: {error})"


def _line(function: Callable[[Any], object], error: Exception) -> str:
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


def _blame(call: Callable[[Any, int], object], view: "Window | Events", batch: "Batch") -> str:
    """The row that it fails on, found by halving."""
    low, high = 0, len(batch)
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(call, view, low, middle):
            high = middle
        elif _fails(call, view, middle, high):
            low = middle
        else:
            return f"it takes each half of the rows {low} to {high - 1} of them alone, and not both together"
    if not _fails(call, view, low, high):
        return "tried again it took them"
    origin = batch.origin
    row = f"{origin.topic}/{origin.partitions[low]}/{origin.offsets[low]}, key {batch.keys[low]!r}"
    return f"it fails on {what} at {row}" if (what := batch.payload.name(low)) else f"it fails on {row}"


def _fails(call: Callable[[Any, int], object], view: "Window | Events", start: int, end: int) -> bool:
    try:
        call(view.only(slice(start, end)), end - start)
    except Exception:  # noqa: BLE001 - whatever it is, this is about where
        return True
    return False
