"""Rolling windows of one partition: keys in slots, samples in rings. Moved and rebuilt as one thing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from streamer.operators.aggregates import Answers
from streamer.operators.rings import Operations
from streamer.operators.rolling import kernels
from streamer.operators.samples import Results, SampleSpec, SampleStore, tick_of
from streamer.state.delta import Delta, merge
from streamer.topology.rolling import Rolling

_NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingSpec(SampleSpec):
    """Shape of a store of rolling windows."""

    window: Rolling
    kind: ClassVar[str] = "rolling"

    @classmethod
    def _sorted_by_time(cls, window: Rolling) -> bool:
        return window.by_time

    def open(self, keys_max: int) -> "RollingStore":
        """A new, empty store of this shape."""
        return RollingStore(self, keys_max)

    @property
    def bytes_per_key(self) -> int:
        """Memory of one live key."""
        return self.ring_bytes + (8 if self.window.ttl_us else 0)

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        window = self.window
        spans = "+".join(map(str, window.looks)) if window.by_time else "0"
        # By count, times are kept only where somebody asks for a rate, and a snapshot without them cannot be read with.
        times = "/times" if self.keeps_time and not window.by_time else ""
        return f"rolling/{window.samples}/{spans}/{self.marked}{times}"


class RollingStore(SampleStore):
    """Windows of all keys of one partition. `apply` is the only way its state changes, live and in a restore.

    Args:
        spec: its shape.
        keys_max: slots there are; beyond, the key seen longest ago goes.
    """

    spec: RollingSpec

    def __init__(self, spec: RollingSpec, keys_max: int) -> None:
        super().__init__(spec, keys_max, spec.window.ttl_us)
        self._looks = np.array(spec.window.looks, np.int64)

    @property
    def _wraps(self) -> bool:
        return self.spec.window.by_time

    def advance(
        self, keys: list[bytes], times: NDArray[np.int64], values: NDArray[np.float64], rows: NDArray[np.int64], results: Results
    ) -> tuple[Delta, int]:
        """The live way: find slots for rows of this partition and apply what follows from them.

        Args:
            keys: (n,).
            times: (n,) event times, microseconds.
            values: (fields, n) samples.
            rows: (n,) places of the rows in `results`.
            results: where it is written what each event's window came to.

        Returns:
            What was applied, and how many windows lost samples that were still inside their span.
        """
        admission = self.keys.plan_slots(keys, times)
        delta, done = admission.delta(times, values), len(admission.slots)
        truncated = self.apply(delta, rows[:done], results)
        if done == len(keys):
            return delta, truncated
        deltas = [delta]
        while done < len(keys):
            admission = self.keys.plan_slots(keys[done:], times[done:])
            deltas.append(admission.delta(times[done:], values[:, done:]))
            start, done = done, done + len(admission.slots)
            truncated += self.apply(deltas[-1], rows[start:done], results)
        return merge(deltas, len(self.spec.fields)), truncated

    def tick(self, time_us: int) -> Delta:
        """The watermark advances; returns what was applied."""
        delta = tick_of(self.spec, time_us)
        self.apply(delta)
        return delta

    def apply(self, delta: Delta, rows: NDArray[np.int64] = _NO_ROWS, results: Results | None = None) -> int:
        """Carry operations out; with `rows` and `results` also write what each event's window came to.

        Args:
            delta: what enters.
            rows: places of the delta's samples in `results`, in order.
            results: where they go.

        Returns:
            How many windows lost samples that were still inside their span.
        """
        self.upstreams.apply(delta.upstreams)
        room = results or _NOWHERE
        answers = Answers(room.count, room.span_us, room.aggregates, room.matrix)
        truncated = start = written = 0
        while start < len(delta.slots):
            end, samples, emptied = self.keys.apply_slots(delta, start)
            self._grow(len(self.keys))
            if len(emptied):
                self._empty(emptied)
            if samples == len(delta.slots):
                return self._roll(Operations(delta.slots, delta.times, delta.values), rows, answers)
            truncated += self._roll(_samples(delta, start, end), rows[written : written + samples], answers)
            start, written = end, written + samples
        return truncated

    def _roll(self, operations: Operations, rows: NDArray[np.int64], answers: Answers) -> int:
        seen, start, ring, ring_t = (self.arrays[name] for name in ("seen", "start", "ring", "ring_t"))
        if self.spec.window.by_time:
            by_time = kernels.TimeRings(start, seen, ring, ring_t)
            return kernels.roll_by_time(operations, rows, self._looks, by_time, self.asked, answers)
        kernels.roll_by_count(operations, rows, self._looks, kernels.CountRings(seen, ring, ring_t), self.asked, answers)
        return 0

    def _empty(self, slots: NDArray[np.int32]) -> None:
        for array in self.arrays.values():
            if len(array):
                array[slots] = 0


def _samples(delta: Delta, start: int, end: int) -> Operations:
    """The samples among rows `start` to `end`."""
    kept = start + np.flatnonzero(delta.slots[start:end] >= 0)
    # Columns picked from a matrix come back column by column; the kernels take them row by row.
    return Operations(delta.slots[kept], delta.times[kept], np.ascontiguousarray(delta.values[:, kept]))


_NOWHERE = Results(np.empty((0, 0), np.int64), np.empty((0, 0), np.int64), np.empty((0, 0, 0)), np.empty((0, 0, 0)))
