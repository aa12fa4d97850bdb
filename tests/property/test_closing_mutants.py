"""The checks of closing windows are checked: each bug seeded here must be noticed by them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamer.errors import StreamerError
from streamer.operators.closing import kernels as closing
from streamer.operators.closing.kernels import GAP, LATE
from streamer.operators.closing.stage import CloseStage
from streamer.operators.closing.store import Advanced, ClosingStore
from streamer.stages.commit.transaction import Transaction
from streamer.state.delta import Delta
from streamer.state.keys import Keys
from tests.kit.bugs import (
    deadlines_not_rebuilt,
    deaf,
)
from tests.kit.closing_checks import (
    a_key_keeps_no_more_samples_than_it_may,
    grace_gives_what_order_gives,
    many_keys_close_by_their_deadlines,
    only_ticks_move_a_watermark,
    prefixes_go_on_alike,
    windows_equal_the_oracle,
)
from tests.kit.closing_flow import (
    a_crash_around_a_tick_repeats_it_once_in_effect,
    a_record_in_time_keeps_the_windows_open,
    a_silent_partition_closes_its_windows_once,
)
from tests.kit.remembered import evictions_and_expiry_equal_the_oracle

Patch = pytest.MonkeyPatch
Scenario = Callable[[], None]


def evictions() -> None:
    evictions_and_expiry_equal_the_oracle(1024)


def ticks() -> None:
    for turns in range(7):
        a_crash_around_a_tick_repeats_it_once_in_effect(turns)
    a_silent_partition_closes_its_windows_once()
    a_record_in_time_keeps_the_windows_open()


def in_python(patch: Patch) -> None:
    """Kernels as plain Python, so that what they call can be replaced."""
    for name in ("advance", "repeat", "_close", "_insert", "_write_early"):
        patch.setattr(closing, name, getattr(closing, name).py_func)


def config_with(patch: Patch, column: int, change: Callable[[int], int]) -> None:
    make = ClosingStore._config

    def changed(self: ClosingStore, *, final: bool, each: bool) -> Any:
        config = make(self, final=final, each=each)
        config[column] = change(int(config[column]))
        return config

    patch.setattr(ClosingStore, "_config", changed)


# ---------------------------------------------------------------------- the bugs


def closes_after_its_end(patch: Patch) -> None:
    """A window closes when the watermark is past its end and grace, and not when it is there."""
    config_with(patch, LATE, lambda late: late + 1)


def grace_ignored(patch: Patch) -> None:
    """A window closes at its end, whatever the grace."""
    config_with(patch, LATE, lambda _: 0)


def a_gap_wider_than_declared(patch: Patch) -> None:
    """Events exactly a gap apart are one session."""
    config_with(patch, GAP, lambda gap: gap + (gap > 0))


def session_merge_dropped(patch: Patch) -> None:
    """An event between two sessions joins the later one only."""
    in_python(patch)
    session = closing._session

    def apart(ring_t: Any, start: int, held: int, place: int, gap: int) -> tuple[int, int]:
        first, last = session(ring_t, start, held, place, gap)
        return max(first, place), last

    patch.setattr(closing, "_session", apart)


def late_rows_vanish(patch: Patch) -> None:
    """A row whose windows have closed leaves no trace."""
    pass_on = ClosingStore.pass_on

    def forget(self: ClosingStore, *rows: Any, final: bool, each: bool) -> Advanced:
        none = np.empty(0, np.int64)
        came = pass_on(self, *rows, final=final, each=each)
        return dataclasses.replace(came, late=none, late_watermark=none, late_end=none)

    patch.setattr(ClosingStore, "pass_on", forget)


def enters_before_it_closes(patch: Patch) -> None:
    """The row that moves the watermark is in the windows that it closes."""
    in_python(patch)
    close, insert = closing._close, closing._insert
    waiting: list[tuple[Any, ...]] = []

    def put_off(*asked: Any) -> bool:
        waiting[:] = [asked]
        return True

    def and_then(*row: Any) -> int:
        place = int(insert(*row))
        close(*waiting[0])
        return place

    patch.setattr(closing, "_close", put_off)
    patch.setattr(closing, "_insert", and_then)


def longest_seen_kept(patch: Patch) -> None:
    """A full store forgets the key seen last."""
    line_up = Keys._line_up

    def reversed_(self: Keys, new: int, busy: Any) -> None:
        line_up(self, new, busy)
        self._queue, self._queue_last = self._queue[::-1].copy(), self._queue_last[::-1].copy()

    patch.setattr(Keys, "_line_up", reversed_)


def idle_keys_in_any_order(patch: Patch) -> None:
    """Of the keys without an open window, the one in the lowest slot goes."""
    line_up = ClosingStore._line_up

    def by_slot(self: ClosingStore) -> None:
        last = self.keys.last.copy()
        self.keys.last[:] = np.where(last >= 0, np.arange(len(last)), last)
        line_up(self)
        slots = self._idle[1][: self._counters[closing.IDLE]]
        self.keys.last[:] = last
        self._idle[0][: len(slots)] = last[slots]

    patch.setattr(ClosingStore, "_line_up", by_slot)


def tick_not_logged(patch: Patch) -> None:
    """A close by silence is nowhere written down."""
    close = ClosingStore.close_until

    def silent(self: ClosingStore, time_us: int, *, final: bool) -> Advanced:
        return dataclasses.replace(close(self, time_us, final=final), delta=Delta.empty(len(self.spec.fields)))

    patch.setattr(ClosingStore, "close_until", silent)


def tick_outside_the_commit(patch: Patch) -> None:
    """A transaction without new offsets commits no position, and its block is lost."""
    patch.setattr(Transaction, "partitions", lambda self: sorted({partition for _, partition in self.offsets()}))


def impatient(patch: Patch) -> None:
    """A partition is silent as soon as it is read to its end."""
    patch.setattr(CloseStage, "idle_timeout_s", 1e-9)


BUGS: dict[Callable[[Patch], None], Scenario] = {
    closes_after_its_end: windows_equal_the_oracle,
    grace_ignored: grace_gives_what_order_gives,
    a_gap_wider_than_declared: windows_equal_the_oracle,
    session_merge_dropped: windows_equal_the_oracle,
    late_rows_vanish: windows_equal_the_oracle,
    enters_before_it_closes: windows_equal_the_oracle,
    deadlines_not_rebuilt: prefixes_go_on_alike,
    longest_seen_kept: evictions,
    idle_keys_in_any_order: many_keys_close_by_their_deadlines,
    tick_not_logged: ticks,
    tick_outside_the_commit: ticks,
    impatient: ticks,
    deaf: ticks,
}


def test_kernels_as_plain_python_are_the_same(monkeypatch: Patch) -> None:
    in_python(monkeypatch)
    only_ticks_move_a_watermark()
    a_key_keeps_no_more_samples_than_it_may()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_caught(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    monkeypatch.setattr("streamer.testing.topology._TURNS_MAX", 400)
    bug(monkeypatch)
    with pytest.raises((AssertionError, StreamerError, LookupError)) as caught:
        BUGS[bug]()
    assert str(caught.value)
