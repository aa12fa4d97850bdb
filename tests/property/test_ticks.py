"""Ticks among rows: both come in order, none is left out, and time moves where there is no row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.operators.ticks import segments, ticking_rows


@given(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=4), st.integers(0, 5))
def test_rows_and_ticks_come_in_order_and_none_is_left_out(n: int, places: list[int], time: int) -> None:
    ticks = [(min(place, n), time + number) for number, place in enumerate(sorted(places))]
    rows = 10 + np.arange(n)
    parts = list(segments(rows, ticks))
    assert [part for part in parts if isinstance(part, int)] == [time for _, time in ticks]
    came, seen = list[int](), list[int]()
    for part in parts:
        if isinstance(part, int):
            seen.append(len(came))
        else:
            assert len(part)
            came += part.tolist()
    assert came == rows.tolist()
    assert seen == [place for place, _ in ticks]


def test_time_moves_where_there_is_no_row() -> None:
    found = ticking_rows(np.array([4, 2, 4], np.int32), {7: [(0, 1)], 2: [(1, 1)]})
    assert [(partition, rows.tolist()) for partition, rows in found] == [(2, [1]), (4, [0, 2]), (7, [])]
