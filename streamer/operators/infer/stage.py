"""infer: batches go to the engine and come back in order, while the worker goes on with the next ones."""

from collections import deque

import numpy as np

from streamer.operators.operator import Engine, EngineError, Run
from streamer.rows.batch import Batch
from streamer.rows.served import Served, ServedRows


class Infer:
    """Keeps the order of batches across the engine and bounds nothing itself: the worker asks `rows` before it polls.

    Args:
        engine: scores.
        step: what it is called here.
        served: the model, as those behind need to know it.

    Attributes:
        value_bytes: size of their values as polled.
        rows: records under way, dead letters included: a flood of those must be bounded too.
    """

    def __init__(self, engine: Engine, step: str, served: Served) -> None:
        self._engine, self._step, self._served = engine, step, served
        self._under_way: deque[tuple[Batch, Run]] = deque()
        self.rows = 0
        self.value_bytes = 0

    def submit(self, batch: Batch) -> None:
        """Queue a batch; one without rows passes through in its turn."""
        self._under_way.append((batch, self._engine.submit(batch.features, len(batch))))
        self.rows += batch.weight
        self.value_bytes += batch.value_bytes

    def collect(self, timeout_s: float) -> Batch | None:
        """The oldest batch once it is scored, waiting at most `timeout_s`; None when it is not, or there is none.

        Raises:
            EngineError: the engine is ill; none of the rows is at fault.
        """
        if not self._under_way or not self._under_way[0][1].wait(timeout_s):
            return None
        if (ill := self._under_way[0][1].ill) is not None:
            raise EngineError(f"the model refuses every row, even one that it took before: {ill}")
        batch, task = self._under_way.popleft()
        self.rows -= batch.weight
        self.value_bytes -= batch.value_bytes
        batch.scores, batch.served[self._step] = task.scores, ServedRows.by(self._served, len(batch))
        batch.stamps.run_started, batch.stamps.run_ended = task.started, task.ended
        self._refuse(batch, task)
        return batch

    def _refuse(self, batch: Batch, task: Run) -> None:
        finite = np.isfinite(batch.scores).all(axis=1)
        if finite.all():
            return
        failed = np.zeros(len(batch), np.bool_)
        failed[list(task.failed)] = True
        for row, why in task.failed.items():
            only = np.zeros(len(batch), np.bool_)
            only[row] = True
            batch.dead += batch.letters(only, "infer", "model_failed", why)
        batch.dead += batch.letters(~finite & ~failed, "infer", "score_not_finite", "the model's score is NaN or infinite")
        batch.keep(np.flatnonzero(finite))

    def drop(self) -> None:
        """Forget everything under way; what still runs finishes unread."""
        self._under_way.clear()
        self.rows = self.value_bytes = 0

    def __len__(self) -> int:
        return len(self._under_way)

    def stuck(self) -> str | None:
        """None, or which run hangs; safe from any thread."""
        return self._engine.stuck()

    def close(self) -> None:
        """End the engine."""
        self._engine.close()
