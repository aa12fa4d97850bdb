"""What has one entry per row follows the rows, whatever is done to a batch, and every batch accounts for what came in.

Nothing here knows the columns by name: whatever of a batch is as long as it has rows must be so afterwards too.
"""

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamer.operators
import streamer.rows
from streamer.operators.closing.windows import Windows
from streamer.operators.rekey.header import headers
from streamer.operators.rekey.receive import Said
from streamer.operators.rekey.send import Told
from streamer.rows.batch import Batch
from streamer.rows.dead_letter import DeadLetter
from streamer.rows.pairs import Pairs
from streamer.rows.payload import PLAIN, Payload
from streamer.rows.per_row import PerRow, following
from streamer.rows.records import Origin, Records
from streamer.rows.served import Served, ServedRows
from streamer.rows.spans import Spans
from streamer.rows.tally import Tally

# No list of a batch that is of the whole has this length by chance.
ROWS = 61


def numbers(n: int, dtype: Any = np.int64) -> Any:
    return np.arange(n).astype(dtype)


def names(n: int, prefix: str) -> list[Any]:
    return [f"{prefix}{row}".encode() for row in range(n)]


def spans(n: int) -> Spans:
    return Spans(numbers(n), 7 + numbers(n), numbers(n) % 2 == 0)


SERVED = Served(model="m", version=1, digest="", threshold=None, score_column=0)
LETTER = DeadLetter(topic="t", partition=0, offset=0, key=None, value=None, stage="s", reason="r", detail="d")
PAYLOADS: dict[type[Payload], Callable[[int], Payload]] = {
    Payload: lambda _: PLAIN,
    Windows: lambda n: Windows(
        spans=Spans(numbers(n), 7 + numbers(n), numbers(n) % 2 == 0), closed_at_first=9, late=[LETTER] * 3
    ),
    Pairs: lambda n: Pairs(bodies=names(n, "p"), labels=names(n, "l"), delays_us=list(range(n)), unused=4),
    Told: lambda n: Told(watermarks=numbers(n), receivers={1: numbers(5)}, quiet={2: 3}),
    Said: lambda _: Said(partitions_read=numbers(8, np.int32), offsets=numbers(8), heads=headers(8, 2)),
}


def origin(n: int) -> Origin:
    return Origin(
        topic="o", partitions=numbers(n, np.int32), offsets=3 * numbers(n), timestamps_ms=numbers(n), keys=names(n, "origin")
    )


def batch(payload: Payload, n: int = ROWS, *, received: bool = True) -> Batch:
    """Every column of it is filled."""
    return Batch(
        topic="t", polled_us=10**15, owed={0: 5}, dead=[LETTER] * 2, tally=Tally(inputs=n), keys=names(n, "k"),
        partitions=numbers(n, np.int32) % 3, offsets=numbers(n), timestamps_ms=numbers(n) + 1, times_us=numbers(n) + 2,
        columns={"x": numbers(n, float), "y": numbers(n, object)}, values=names(n, "v"), messages=[None] * n,
        traces=[(("traceparent", b"00"),)] * n,
        received=origin(n) if received else None, counts=numbers(n), features={"f": numbers(n, np.float32).reshape(n, 1)},
        whole_features={"n": numbers(n)},
        scores=numbers(n, np.float32).reshape(n, 1),
        served={"infer-1": ServedRows(table=(SERVED, SERVED), index=numbers(n) % 2)}, flags=numbers(n) % 2 == 0, payload=payload,
    )  # fmt: skip


def sequences(value: Any, path: str = "batch") -> Iterator[tuple[str, Any]]:
    """Every list and array in a value, however deep, with the way to it."""
    if isinstance(value, list | np.ndarray):
        yield path, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from sequences(each, f"{path}[{name}]")
    elif is_dataclass(value):
        for field in fields(value):
            yield from sequences(getattr(value, field.name), f"{path}.{field.name}")


def picked(column: Any, rows: Sequence[int]) -> list[Any]:
    return [column[row] for row in rows]


def classes(base: type) -> set[type]:
    """A base with all that derive from it; of a class that was made again with slots, the second."""
    for package in (streamer.operators, streamer.rows):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    found, more = {base}, [base]
    while more:
        derived: list[type] = more.pop().__subclasses__()
        found |= set(derived)
        more += derived
    return {kind for kind in found if "__slots__" in vars(kind)}


def test_every_payload_is_tried() -> None:
    assert {kind.__name__ for kind in classes(Payload)} == {kind.__name__ for kind in PAYLOADS}


@pytest.mark.parametrize("kind", PAYLOADS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_whatever_is_as_long_as_the_rows_follows_them(kind: type[Payload], data: st.DataObject) -> None:
    made = batch(PAYLOADS[kind](ROWS), received=data.draw(st.booleans()))
    rows = data.draw(st.lists(st.integers(0, ROWS - 1), max_size=2 * ROWS))
    before = dict(sequences(made))
    long = {path: list(column) for path, column in before.items() if len(column) == ROWS}
    made.keep(np.array(rows, np.int64))
    after = dict(sequences(made))
    assert len(made) == len(rows)
    assert after.keys() == before.keys()
    for path, column in after.items():
        expected = picked(long[path], rows) if path in long else list(before[path])
        assert list(column) == expected, path


@pytest.mark.parametrize("kind", PAYLOADS, ids=lambda kind: kind.__name__)
def test_what_says_that_it_is_per_row_is_as_long_as_the_rows(kind: type[Payload]) -> None:
    """The other half of the above: no column of one that is filled may have another length."""
    made = batch(PAYLOADS[kind](ROWS))

    def per_row(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        of: Any = type(value)
        for name in following(of):
            column = getattr(value, name)
            if isinstance(column, PerRow):
                yield from per_row(column, f"{path}.{name}")
            else:
                found = list(sequences(column, f"{path}.{name}"))
                yield from found or [(f"{path}.{name} is not filled here", ())]

    assert {path for path, column in per_row(made, "batch") if len(column) != ROWS} == set()


def test_what_a_batch_says_of_the_whole_stays() -> None:
    made = batch(PAYLOADS[Windows](ROWS))
    made.keep(np.empty(0, np.int64))
    assert (made.owed, len(made.dead), made.payload.late, made.payload.closed) == ({0: 5}, 2, [LETTER] * 3, 0)
    assert made.payload.refused == 9


def test_a_take_leaves_what_it_is_taken_from() -> None:
    whole = origin(ROWS)
    records = Records(
        topic="t", partitions=whole.partitions, offsets=whole.offsets, timestamps_ms=whole.timestamps_ms,
        messages=[None] * ROWS, keys=whole.keys, values=names(ROWS, "v"), polled_us=1, received=whole,
    )  # fmt: skip
    taken = records.take(np.array([5, 3]))
    assert taken.values == [b"v5", b"v3"]
    assert taken.origin.offsets.tolist() == [15, 9]
    assert (len(records), len(whole.offsets), records.received) == (ROWS, ROWS, whole)


@pytest.mark.parametrize("received", [False, True])
def test_a_batch_that_is_padded_is_longer_in_every_column(received: bool) -> None:
    made = batch(PLAIN, received=received)
    made.counts, made.features, made.whole_features = np.empty(0, np.int64), {}, {}
    made.scores, made.served, made.flags = np.empty((0, 1), np.float32), {}, np.empty(0, np.bool_)
    before = {path: list(column) for path, column in sequences(made) if len(column) == ROWS}
    made.pad(np.array([2, 1], np.int32))
    after = dict(sequences(made))
    for path, column in before.items():
        assert list(after[path][:ROWS]) == column, path
        assert len(after[path]) == ROWS + 2, path
    assert made.partitions[-2:].tolist() == made.origin.partitions[-2:].tolist() == [2, 1]
    assert made.timestamps_ms[-2:].tolist() == [10**12] * 2


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_refusal_keeps_the_account(refused: list[bool]) -> None:
    n = len(refused)
    made = batch(PLAIN, n)
    made.dead = []
    assert (made.balanced, made.weight) == (True, n)
    bad = np.array(refused)
    letters = made.letters(bad, "stage", "reason", "detail")
    made.keep(np.flatnonzero(~bad))
    lost = n - made.weight, len(made) + len(letters)
    assert lost == (0, n)
    made.dead += letters
    assert (made.balanced, made.weight) == (True, n)
    assert [letter.key for letter in letters] == picked(names(n, "origin"), np.flatnonzero(bad).tolist())


def test_every_way_out_is_on_the_account() -> None:
    made = batch(PAYLOADS[Windows](ROWS))
    found = [made.balanced]  # letters that no record has become
    made.tally = Tally(inputs=2 + 3 + 4 + 5 + 6 + 7, emitted=ROWS, folded=4, joined=5, silent=6, filtered=7)
    found += [made.balanced]
    assert found == [False, True]
    assert made.weight == 27 + ROWS


def test_rows_that_nobody_polled_are_none_of_the_input() -> None:
    made = Batch.unpolled("t", 5_000, np.array([3, 3], np.int32))
    assert (len(made), made.weight, made.tally.inputs, made.owed, made.balanced) == (2, 2, 0, {}, True)
    assert made.timestamps_ms.tolist() == [5, 5]
    made = Batch.unpolled("t", 5_000)
    assert (len(made), made.weight, made.balanced) == (0, 0, True)
