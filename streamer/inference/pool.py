"""A bounded pool of threads that score batches while the worker goes on with the next ones.

A run that is expected to be over sooner than a thread could be woken is not handed over: the caller does it. Where nothing
is known yet, it is handed over.
"""

import queue
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.inference.model import Features, LoadedModel
from streamer.inference.probe import one_line
from streamer.limits import HAND_OVER_S, RUN_STUCK_S, RUN_TIMES_MAX

# Of the running mean that tells quick models from slow ones: a change shows within some ten batches.
_LEARNING_RATE = 0.2


@dataclass(slots=True, kw_only=True)
class Task:
    """One batch at the pool. `wait` tells when `scores` and `failed` may be read.

    Attributes:
        features: the model's inputs, one entry per row in each.
        rows: how many.
        scores: (rows, columns); NaN in rows that failed.
        failed: row -> why the model refused it.
        ill: what is wrong with the engine itself, which refuses rows that it took before; `scores` say nothing then.
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
    ill: str | None = None
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
        self._seconds_per_row = model.seconds_per_row
        # Scored before: whether the engine still takes it tells an ill engine from bad rows.
        self._known = model.probed.row
        self._running: dict[int, Task] = {}
        self._threads = [threading.Thread(target=self._work, name=f"streamer-infer-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, features: Features, rows: int) -> Task:
        """Queue a batch, or score it at once if that is quick."""
        task = Task(features=features, rows=rows)
        if rows == 0 or (self._seconds_per_row is not None and rows * self._seconds_per_row < HAND_OVER_S):
            self._run(task)
        else:
            self._tasks.put(task)
        return task

    def stuck(self) -> str | None:
        """None, or which run has taken so long that it hangs; safe from any thread."""
        now, each = self._clock.monotonic(), self._seconds_per_row or 0.0
        for task in list(self._running.values()):
            age = now - task.started
            if age > max(RUN_STUCK_S, RUN_TIMES_MAX * each * task.rows):
                return f"the model has been at work on {task.rows:,} rows for {age:.0f} s"
        return None

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
        self._running[id(task)] = task
        try:
            self._score(task)
        finally:
            del self._running[id(task)]
        task.ended = self._clock.monotonic()
        if task.rows:
            spent = (task.ended - task.started) / task.rows
            before = spent if self._seconds_per_row is None else self._seconds_per_row
            self._seconds_per_row = before + _LEARNING_RATE * (spent - before)
        task.finish()

    def _score(self, task: Task) -> None:
        """Score a batch; one that fails is only taken apart while the engine still takes a row that it took before."""
        try:
            task.scores = self._model.run(task.features, task.rows)
        except Exception:  # noqa: BLE001 - ONNX Runtime raises many kinds
            if (ill := self._ill()) is None:
                task.scores = score(self._model, task.features, task.rows, task.failed)
            task.ill = ill
        if task.rows == 0 or task.ill:
            return
        finite = np.isfinite(task.scores).all(axis=1)
        if not finite.any():
            task.ill = self._ill()
        elif self._known is None:
            row = int(finite.argmax())
            self._known = {name: column[row : row + 1].copy() for name, column in task.features.items()}

    def _ill(self) -> str | None:
        """What is wrong with the engine; None when it scores a row that it scored before, or none is known."""
        if self._known is None:
            return None
        try:
            scores = self._model.run(self._known, 1)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many kinds
            return one_line(error)
        return None if np.isfinite(scores).all() else "it scores everything NaN or infinite"


def score(model: LoadedModel, features: Features, rows: int, failed: dict[int, str], first: int = 0) -> NDArray[np.float32]:
    """Scores of all rows; a row that the model refuses is found by halving, noted in `failed`, and scored NaN."""
    try:
        return model.run(features, rows)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many kinds; one bad row must not lose its neighbours
        if rows == 1:
            failed[first] = one_line(error)
            return np.full((1, 1), np.nan, np.float32)
    half = rows // 2
    left = score(model, {name: c[:half] for name, c in features.items()}, half, failed, first)
    right = score(model, {name: c[half:] for name, c in features.items()}, rows - half, failed, first + half)
    columns = max(left.shape[1], right.shape[1])
    return np.concatenate([_widened(left, columns), _widened(right, columns)])


def _widened(scores: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    return scores if scores.shape[1] == columns else np.full((scores.shape[0], columns), np.nan, np.float32)
