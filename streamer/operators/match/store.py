"""The state of predictions that wait for their labels, in one partition: each waiting row in a slot of its own.

A prediction at t belongs to the first label of its key, in the order of the label topic, whose time lies in [t, t + within].
That does not depend on which topic is read first: a prediction that waits leaves with the first such label that comes, and a
label stays until no prediction can come any more that it would be for.

What a row is lies in its name, and what is done with it is decided by `apply`, row by row, in Python: keys that are seen once
leave nothing to do for many rows at a time.
"""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.rows.trace import NO_TRACE, Trace
from streamer.state.bounds import Damaged, check_arrays, check_names, size_of, within
from streamer.state.bytes_column import NO_BYTES, BytesColumn
from streamer.state.delta import TICK, Delta, opening
from streamer.state.keyed_store import Dump
from streamer.state.watermarks import NO_TIME

PREDICTION, LABEL = 0, 1
# Measured with 100,000 waiting predictions of three short fields: 800 bytes. A label may wait beside each of them.
_ROW_BYTES = 800
# Entries of a line that are gone already and may stay beside as many that are not.
_GONE_MIN = 64
_LET_GO_MAX = 1 << 31


class StoredRow(msgspec.Struct, array_like=True, gc=False):
    """What stands for a row in the changelog: record key, text of the second field that must be equal, and a JSON object."""

    key: bytes
    on: bytes
    body: bytes


class TracedRow(StoredRow):
    """The same of a prediction that has a trace; who knows the other one only reads past what it has more."""

    trace: Trace = NO_TRACE


_NAMES = msgspec.msgpack.Decoder(TracedRow)


class Outcome(NamedTuple):
    """A prediction that leaves.

    Attributes:
        operation: place in the delta of what made it leave.
        key, body: its record key, and what is published of it.
        label: the body of its label, None if its time is over.
        time, label_time: microseconds; without a label the end of its time.
        trace: of the record that the prediction was in.
    """

    operation: int
    key: bytes
    body: bytes
    label: bytes | None
    time: int
    label_time: int
    trace: Trace


@dataclass(frozen=True, slots=True)
class MatchSpec:
    """What the store is made from.

    Attributes:
        topics: of predictions and of labels.
        within_us: how long a label may take.
        out_of_order_us: how far out of order rows may be.
        on: the second field that must be equal.
    """

    topics: tuple[str, str]
    within_us: int
    out_of_order_us: int
    on: str | None

    fields: tuple[str, ...] = field(default=("stream",), init=False)
    bounded_by: ClassVar[str] = "waiting_max"

    @property
    def ahead_us(self) -> int:
        """How long after its own time the last label may come that a prediction waits for."""
        return self.within_us + self.out_of_order_us

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a changelog written for another shape cannot be read as this one."""
        return f"match/{self.within_us}/{self.out_of_order_us}/{self.on or ''}: {'; '.join(self.topics)}"

    def check(self, delta: Delta) -> None:
        """Whether operations may be of a store of this shape, whatever it holds.

        Raises:
            Damaged: they may not.
        """
        if not within(delta.values[0], 0, _LET_GO_MAX):
            raise Damaged("a row is of an input that there is not, or a tick lets go more rows than there can be")

    @property
    def bytes_per_key(self) -> int:
        """Memory of a prediction that waits, and a label beside it."""
        return 2 * _ROW_BYTES


@dataclass(slots=True, eq=False, kw_only=True)
class _WaitingRow:
    """A row that waits; `seq` is the number of the operation that brought it, `place` its key and second field."""

    seq: int
    stream: int
    time: int
    slot: int
    place: tuple[bytes, bytes]
    used: bool = False
    gone: bool = False


@dataclass(slots=True)
class _WaitingRows:
    """Rows of one input that wait: by key in log order, and by time, ties in log order. Who leaves stays in `order` a while."""

    by_key: dict[tuple[bytes, bytes], list[_WaitingRow]] = field(default_factory=dict)
    order: list[tuple[int, int, _WaitingRow]] = field(default_factory=list)
    waiting: int = 0

    def of(self, place: tuple[bytes, bytes]) -> list[_WaitingRow]:
        return self.by_key.get(place, [])

    def add(self, entry: _WaitingRow) -> None:
        if (there := self.by_key.get(entry.place)) is None:
            self.by_key[entry.place] = [entry]
        else:
            there.append(entry)
        heappush(self.order, (entry.time, entry.seq, entry))
        self.waiting += 1

    def remove(self, entry: _WaitingRow) -> None:
        there = self.by_key[entry.place]
        there.remove(entry)
        if not there:
            del self.by_key[entry.place]
        entry.gone = True
        self.waiting -= 1
        if len(self.order) > 2 * self.waiting + _GONE_MIN:
            self.order = [one for one in self.order if not one[2].gone]
            heapify(self.order)

    def first(self) -> _WaitingRow | None:
        """The one with the smallest time."""
        while self.order and self.order[0][2].gone:
            heappop(self.order)
        return self.order[0][2] if self.order else None

    def before(self, time: int) -> _WaitingRow | None:
        """The one with the smallest time, if that lies before `time`."""
        first = self.first()
        return first if first is not None and first.time < time else None


@dataclass(slots=True, kw_only=True)
class MatchStore:
    """Rows of one partition that wait. `apply` is the only way its state changes, live and in a restore.

    Attributes:
        spec: its shape.
        newest: largest event time of predictions and of labels.
        watermark: predictions `out_of_order` before it have been read, and labels `within` after that.
        names: by slot, None where it is free.
        predictions, labels: who waits.
        unused: labels dropped so far that no prediction had.
    """

    spec: MatchSpec
    newest: list[int] = field(default_factory=lambda: [NO_TIME, NO_TIME])
    watermark: int = NO_TIME
    names: list[bytes | None] = field(default_factory=list)
    predictions: _WaitingRows = field(default_factory=_WaitingRows)
    labels: _WaitingRows = field(default_factory=_WaitingRows)
    unused: int = 0
    _clock: int = 0
    _entries: dict[int, _WaitingRow] = field(default_factory=dict)
    _free: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._entries)

    def waiting(self, stream: int) -> int:
        """How many rows of an input wait."""
        return (self.labels if stream == LABEL else self.predictions).waiting

    def due(self, watermark: int) -> bool:
        """Whether somebody leaves when the watermark moves there."""
        limit = watermark - self.spec.out_of_order_us
        return self.predictions.before(limit) is not None or self.labels.before(limit) is not None

    # ------------------------------------------------------------------ the live way
    def advance(self, stream: int, names: list[bytes], times: NDArray[np.int64]) -> tuple[Delta, list[Outcome]]:
        """Take in rows of an input; what was applied, and who leaves. Row n is operation 2n + 1."""
        n, known = len(names), len(self.names)
        slots = list(islice(self._free, n))
        slots += range(known, known + n - len(slots))
        given = np.array(slots, np.int32)
        operations = np.stack([opening(given), given], axis=1).reshape(-1)
        values = np.zeros((1, 2 * n))
        values[0, 1::2] = stream
        delta, out = Delta(BytesColumn.of(names), operations, np.repeat(times, 2), values), list[Outcome]()
        self.apply(delta, out)
        return delta, out

    def tick(self, watermark: int, most: int) -> tuple[Delta, list[Outcome]]:
        """Move the watermark; what was applied, and who leaves without a label, `most` at the most."""
        tick, out = np.array([TICK], np.int32), list[Outcome]()
        delta = Delta(NO_BYTES, tick, np.array([watermark], np.int64), np.full((1, 1), float(most)))
        self.apply(delta, out)
        return delta, out

    # ------------------------------------------------------------------ what changes it
    def apply(self, delta: Delta, out: list[Outcome] | None = None) -> None:
        """Carry operations out; with `out` also note who leaves."""
        new_keys = iter(delta.new_keys)
        rows = zip(delta.slots.tolist(), delta.times.tolist(), delta.values[0].tolist(), strict=True)
        for operation, (slot, time, value) in enumerate(rows):
            if slot < TICK:
                self._give(-2 - slot, next(new_keys))
            elif slot == TICK:
                self._tick(operation, time, int(value), out)
            elif value == LABEL:
                self._label(operation, slot, time, out)
            else:
                self._prediction(operation, slot, time, out)
            self._clock += 1

    def _prediction(self, operation: int, slot: int, time: int, out: list[Outcome] | None) -> None:
        self.newest[PREDICTION] = max(self.newest[PREDICTION], time)
        self._drop_labels()
        name = self._name(slot)
        label = next((one for one in self.labels.of((name.key, name.on)) if self._fit(time, one.time)), None)
        if label is None:
            self._stay(
                self.predictions, _WaitingRow(seq=self._clock, stream=PREDICTION, time=time, slot=slot, place=(name.key, name.on))
            )
            return
        label.used = True
        self._vacate(slot)
        if out is not None:
            out.append(Outcome(operation, name.key, name.body, self._name(label.slot).body, time, label.time, name.trace))

    def _label(self, operation: int, slot: int, time: int, out: list[Outcome] | None) -> None:
        self.newest[LABEL] = max(self.newest[LABEL], time)
        name = self._name(slot)
        entry = _WaitingRow(seq=self._clock, stream=LABEL, time=time, slot=slot, place=(name.key, name.on))
        for one in [one for one in self.predictions.of(entry.place) if self._fit(one.time, time)]:
            entry.used = True
            if out is not None:
                of = self._name(one.slot)
                out.append(Outcome(operation, name.key, of.body, name.body, one.time, time, of.trace))
            self._leave(self.predictions, one)
        if time >= self._floor:
            self._stay(self.labels, entry)
        else:
            self._vacate(slot)
            self.unused += not entry.used

    def _tick(self, operation: int, time: int, most: int, out: list[Outcome] | None) -> None:
        self.watermark = max(self.watermark, time)
        self._drop_labels()
        limit = self.watermark - self.spec.out_of_order_us
        while most > 0 and (one := self.predictions.before(limit)) is not None:
            most -= 1
            if out is not None:
                end, of = one.time + self.spec.within_us, self._name(one.slot)
                out.append(Outcome(operation, of.key, of.body, None, one.time, end, of.trace))
            self._leave(self.predictions, one)

    def _fit(self, time: int, label_time: int) -> bool:
        return time <= label_time <= time + self.spec.within_us

    @property
    def _floor(self) -> int:
        """No prediction comes any more that a label before this would be for."""
        return max(self.newest[PREDICTION], self.watermark) - self.spec.out_of_order_us

    def _drop_labels(self) -> None:
        while (one := self.labels.before(self._floor)) is not None:
            self._leave(self.labels, one)
            self.unused += not one.used

    def _name(self, slot: int) -> TracedRow:
        return _NAMES.decode(self.names[slot] or b"")

    def _stay(self, line: _WaitingRows, entry: _WaitingRow) -> None:
        self._entries[entry.slot] = entry
        line.add(entry)

    def _leave(self, line: _WaitingRows, entry: _WaitingRow) -> None:
        line.remove(entry)
        del self._entries[entry.slot]
        self._vacate(entry.slot)

    def _vacate(self, slot: int) -> None:
        self.names[slot] = None
        self._free.add(slot)

    def _give(self, slot: int, name: bytes) -> None:
        known = len(self.names)
        if slot >= known:
            self.names += [None] * (slot + 1 - known)
            self._free.update(range(known, slot))
        self.names[slot] = name
        self._free.discard(slot)

    # ------------------------------------------------------------------ as a whole
    def expect(self, new_keys: BytesColumn, share: float) -> None:
        """Nothing: what waits takes the room, and that has its own bound."""

    def dump(self) -> Dump:
        """Everything there is to know, copied; the rows that wait in log order."""
        waiting = sorted(self._entries.values(), key=lambda entry: entry.seq)
        rows = [(one.seq, one.stream, one.time, one.slot, one.used) for one in waiting]
        counters = np.array([self._clock, self.watermark, *self.newest], np.int64)
        names = BytesColumn.of([name or b"" for name in self.names])
        return Dump(names, {"counters": counters, "rows": np.array(rows, np.int64).reshape(len(rows), 5)})

    def load(self, dump: Dump) -> None:
        """Become what was dumped, by a store of the same spec; what was here is gone.

        Raises:
            Damaged: no store of this spec dumped that.
        """
        rows = size_of(dump.arrays, "rows") // 5
        check_arrays(dump.arrays, {"counters": ("<i8", (4,)), "rows": ("<i8", (rows, 5))})
        check_names(dump.keys, len(dump.keys.data))
        if not within(dump.arrays["rows"][:, 3], 0, len(dump.keys) - 1):
            raise Damaged("a row that waits has no name")
        self._clock, self.watermark, *self.newest = dump.arrays["counters"].tolist()
        self.names = [name or None for name in dump.keys]  # that of a row is never empty
        self._free = {slot for slot, name in enumerate(self.names) if name is None}
        self.predictions, self.labels, self._entries = _WaitingRows(), _WaitingRows(), {}
        for seq, stream, time, slot, used in dump.arrays["rows"].tolist():
            name = self._name(slot)
            entry = _WaitingRow(seq=seq, stream=stream, time=time, slot=slot, place=(name.key, name.on), used=bool(used))
            self._stay(self.labels if stream == LABEL else self.predictions, entry)
