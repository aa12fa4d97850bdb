"""The rolling window of a whole series at once, in plain numpy: the trainer's own view, independent of the service.

It answers the calls that a feature function makes on its window, one row per sample of one series, newest sample last.
It is slow and simple on purpose, so that it can be an oracle for the compiled kernels.
"""

import numpy as np

from streamer import Column, Window, WindowView


class SeriesWindow(Window):
    """`rolling(count=samples)` over one series: row i sees the samples i - samples + 1 to i, fewer at the start.

    Args:
        time: event time in seconds, (rows,).
        value: the field "value", (rows,), in the order of the log.
        samples: most samples in a window.

    Raises:
        KeyError: a feature function asks for a field other than "value".
    """

    def __init__(self, time: Column, value: Column, samples: int) -> None:
        rows = np.arange(len(value))
        oldest = np.maximum(rows - samples + 1, 0)
        padded = np.concatenate([np.full(samples - 1, np.nan), value])
        matrix = np.lib.stride_tricks.sliding_window_view(padded, samples)
        count = (rows - oldest + 1).astype(np.float64)
        mean = np.nanmean(matrix, axis=1)
        delta, span = value - value[oldest], time - time[oldest]
        columns = {
            "sum": np.nansum(matrix, axis=1),
            "mean": mean,
            "std": np.sqrt(np.nanmean((matrix - mean[:, None]) ** 2, axis=1)),
            "min": np.nanmin(matrix, axis=1),
            "max": np.nanmax(matrix, axis=1),
            "first": value[oldest],
            "last": value,
            "delta": delta,
            "rate": np.where(span > 0, delta / np.where(span > 0, span, 1.0), 0.0),
        }
        look = WindowView(count, {("value", name): column for name, column in columns.items()}, {"value": matrix}, {})
        super().__init__({samples: look}, {"value": value})
