"""A bounded pool of threads that score batches while the worker goes on with the next ones.

A run that is expected to be over sooner than a thread could be woken is not handed over: the caller does it.
"""

import queue
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.inference.model import Features, LoadedModel
from streamer.limits import HAND_OVER_S

# Of the running mean that tells quick models from slow ones: a change shows within some ten batches.
_LEARNING_RATE = 0.2


@dataclass(slots=True)
class Task:
    """One batch at the pool. `wait` tells when `scores` and `failed` may be read.

    Attributes:
        features: the model's inputs, one entry per row in each.
        rows: how many.
        scores: (rows, columns); NaN in rows that failed.
        failed: row -> why the model refused it.
        started, ended: monotonic seconds of the run.
        bug: what broke the pool itself; raised by `wait`.
    """

    features: Features
    rows: int
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 1), np.float32))
    failed: dict[int, str] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    bug: Exception | None = None
    _done: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._done.acquire()

    def finish(self) -> None:
        """Let the waiting side go on; called once."""
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is finished, after at most `timeout_s`."""
        if self._done.acquire(timeout=timeout_s) if timeout_s > 0 else self._done.acquire(blocking=False):
            self._done.release()
            if self.bug is not None:
                raise self.bug
            return True
        return False


class Pool:
    """Threads that take tasks in order. The caller bounds how many are under way (`limits.ROWS_UNSCORED_MAX`)."""

    def __init__(self, model: LoadedModel, threads: int, clock: Clock) -> None:
        self._model, self._clock = model, clock
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._seconds_per_row = 0.0
        self._threads = [threading.Thread(target=self._work, name=f"streamer-infer-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, features: Features, rows: int) -> Task:
        """Queue a batch, or score it at once if that is quick."""
        task = Task(features, rows)
        if rows * self._seconds_per_row < HAND_OVER_S:
            self._run(task)
        else:
            self._tasks.put(task)
        return task

    def close(self) -> None:
        """End the threads after what is queued; a run that hangs is left behind (the threads are daemons)."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(timeout=1.0)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._run(task)
            except Exception as bug:  # noqa: BLE001 - a thread that dies silently would hang the worker
                task.bug = bug
                task.finish()

    def _run(self, task: Task) -> None:
        task.started = self._clock.monotonic()
        task.scores = score(self._model, task.features, task.rows, task.failed)
        task.ended = self._clock.monotonic()
        if task.rows:
            spent = (task.ended - task.started) / task.rows
            self._seconds_per_row += _LEARNING_RATE * (spent - self._seconds_per_row)
        task.finish()


def score(model: LoadedModel, features: Features, rows: int, failed: dict[int, str], first: int = 0) -> NDArray[np.float32]:
    """Scores of all rows; a row that the model refuses is found by halving, noted in `failed`, and scored NaN."""
    try:
        return model.run(features, rows)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many kinds; one bad row must not lose its neighbours
        if rows == 1:
            failed[first] = " ".join(str(error).split())[:300] or type(error).__name__
            return np.full((1, 1), np.nan, np.float32)
    half = rows // 2
    left = score(model, {name: c[:half] for name, c in features.items()}, half, failed, first)
    right = score(model, {name: c[half:] for name, c in features.items()}, rows - half, failed, first + half)
    columns = max(left.shape[1], right.shape[1])
    return np.concatenate([_widened(left, columns), _widened(right, columns)])


def _widened(scores: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    return scores if scores.shape[1] == columns else np.full((scores.shape[0], columns), np.nan, np.float32)
