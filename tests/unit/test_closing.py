"""Windows that close, through the whole worker: rows, late records, ticks, crashes, and what one bad clock may not do."""

import json
from typing import Any

import numpy as np
import pytest

from streamer import hopping, session, tumbling
from streamer.changelog.blocks import CommitMetadata
from streamer.limits import KEY_BYTES_MAX, SILENCE_BETWEEN_POLLS_S
from streamer.topology.closing import Closing, Emission
from tests.kit import flows
from tests.kit.closing_flow import (
    LATE,
    SECOND,
    START,
    TEN,
    a_crash_around_a_tick_repeats_it_once_in_effect,
    a_record_in_time_keeps_the_windows_open,
    a_silent_partition_closes_its_windows_once,
    closing,
    send,
    short,
    topology,
)
from tests.kit.inside import InsideTest
from tests.kit.schemas import headers, problems
from tests.kit.window_oracle import Oracle


def test_early_results_and_then_the_final_one() -> None:
    with closing(TEN) as test:
        for second, value in ((1, 1.0), (4, 2.0), (11, 4.0), (3, 8.0), (15, 16.0), (2, 32.0)):
            send(test, "a", second, value)
        found = test.read(flows.PREDICTIONS)
        assert [short(row) for row in found] == [
            ("a", 0, 10, False, 1.0), ("a", 0, 10, False, 3.0), ("a", 10, 20, False, 4.0), ("a", 0, 10, False, 11.0),
            ("a", 0, 10, True, 11.0), ("a", 10, 20, False, 20.0),
        ]  # fmt: skip
        assert [row["id"] for row in found if row["final"]] == [f"{flows.SOURCE}/0/a/{START * SECOND}"]
        assert [row["id"] for row in found if not row["final"]] == [f"{flows.SOURCE}/0/{n}" for n in range(5)]
        assert [row["time"] - START for row in found] == [1, 4, 11, 3, 10, 15]
        assert [problems("prediction", row) for row in found] == [[]] * 6
        (late,) = test.read_records(LATE)
        assert (late.key, late.value) == (b"a", flows.value_of("a", START + 2, 32.0))
        told = headers(late)
        assert problems("dead_letter", told) == []
        assert (told["streamer.error.stage"], told["streamer.error.reason"]) == ("window", "late")
        assert told["streamer.late.watermark_us"] == str((START + 15) * SECOND)
        assert told["streamer.late.window_end_us"] == str((START + 10) * SECOND)
        assert told["streamer.error.offset"] == "5"
        assert "2023-11-14T22:13:30.000Z" in told["streamer.error.detail"]


@pytest.mark.parametrize(("emit", "rows"), [("on_close", [True]), ("each", [False] * 3), ("both", [False, False, True, False])])
def test_what_is_sent(emit: Emission, rows: list[bool]) -> None:
    with closing(tumbling("10s"), emit) as test:
        for second in (1, 2, 12, 3):
            send(test, "a", second)
        assert [row["final"] for row in test.read(flows.PREDICTIONS)] == rows
        value = test.worker.metrics.value
        assert value("streamer_windows_closed_total") == rows.count(True)
        outcomes = {o: value("streamer_records_total", o) for o in ("predicted", "folded", "late", "dead")}
        assert outcomes == {"predicted": rows.count(False), "folded": 3 - rows.count(False), "late": 1, "dead": 0}
        assert sum(outcomes.values()) == 4  # each input record has one outcome


def test_a_stall_of_ours_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.testing.clients.MemoryClients.silence_between_polls_s", SILENCE_BETWEEN_POLLS_S)
    with closing(tumbling("10s", idle_timeout="5s"), "on_close") as test:
        send(test, "a", 1)
        test.run()
        test.clock.advance(30.0)  # nobody turned: we were stopped
        assert test.read(flows.PREDICTIONS) == []
        for _ in range(round(5 / SILENCE_BETWEEN_POLLS_S)):
            test.clock.advance(SILENCE_BETWEEN_POLLS_S)
            test.worker.turn()
        assert [short(row)[:4] for row in test.read(flows.PREDICTIONS)] == [("a", 0, 10, True)]


def test_a_silent_partition_closes_its_windows_once() -> None:
    a_silent_partition_closes_its_windows_once()


def test_a_record_in_time_keeps_the_windows_open() -> None:
    a_record_in_time_keeps_the_windows_open()


@pytest.mark.parametrize("turns", range(7))
def test_a_crash_around_a_tick_repeats_it_once_in_effect(turns: int) -> None:
    a_crash_around_a_tick_repeats_it_once_in_effect(turns)


def test_a_tick_moves_the_sequence_and_not_the_offset() -> None:
    with closing(TEN, "on_close") as test:
        send(test, "a", 1)
        test.run()
        before = test.log.committed("closing", flows.SOURCE, 0)
        test.clock.advance(650.0)
        test.run()
        after = test.log.committed("closing", flows.SOURCE, 0)
        assert [(said[0], CommitMetadata.parse(said[1]).seq) for said in (before, after) if said] == [(1, 1), (1, 2)]


def test_one_record_from_2099_changes_nothing_for_any_other_key() -> None:
    def play(test: InsideTest, poisoned: bool) -> list[tuple[Any, ...]]:
        for n in range(40):
            send(test, f"k{n % 3}", n, float(n))
            if poisoned and n == 5:
                send(test, "bad", 2_400_000_000, 1.0)
        test.clock.advance(650.0)
        return [short(row) for row in test.read(flows.PREDICTIONS)]

    for window in (TEN, hopping("20s", hop="5s", grace="5s"), session(gap="7s", grace="5s")):
        with closing(window) as clean, closing(window) as poisoned:
            assert play(clean, poisoned=False) == play(poisoned, poisoned=True)
            assert clean.read_records(LATE) == poisoned.read_records(LATE) == []
            (letter,) = poisoned.read_records(flows.DEAD_LETTERS)
            assert headers(letter)["streamer.error.reason"] == "time_too_far_ahead"


@pytest.mark.parametrize(
    "window", [TEN, hopping("20s", hop="5s", grace="3s"), session(gap="6s", grace="4s", idle_timeout="600s")]
)
def test_the_service_says_what_the_oracle_says(window: Closing) -> None:
    """Several partitions and keys, out of order, with crashes; every admitted record is late or in its windows."""
    with closing(window, partitions=3, keys_max=6) as test:
        for n in range(400):
            send(test, f"k{n * 7 % 19}", n / 4 - (n * 13 % 17) * 2, float(n))
            if n % 23 == 0:
                test.worker.turn()
            if n in (111, 222):
                test.crash()
        found = test.read(flows.PREDICTIONS)
        want, late = expected(test, window)
        assert sorted(map(short, found)) == sorted(want)
        assert len(test.read_records(LATE)) == late
        early = sum(not row["final"] for row in found)
        assert early + late + len(test.read_records(flows.DEAD_LETTERS)) == 400


def expected(test: InsideTest, window: Closing) -> tuple[list[tuple[Any, ...]], int]:
    rows, late = [], 0
    for partition in range(test.log.partitions):
        oracle = Oracle(window.size_us, window.hop_us, window.gap_us, window.grace_us, 6)
        for offset in range(test.log.end(flows.SOURCE, partition)):
            event = json.loads(test.log.record(flows.SOURCE, partition, offset).value or b"")
            for kind, key, start, end, values in oracle.row(event["sensor"], round(event["ts"] * 1e6), event["value"]):
                if kind in ("each", "final"):
                    rows.append((key, start / SECOND - START, end / SECOND - START, kind == "final", sum(values)))
                late += kind == "late"
    return rows, late


def test_a_full_store_refuses_new_keys_only_while_all_have_open_windows() -> None:
    with closing(tumbling("10s"), keys_max=2) as test:
        for key, second in (("a", 1), ("b", 2), ("c", 3), ("c", 11), ("a", 12)):
            send(test, key, second)
        test.run()
        (letter,) = test.read_records(flows.DEAD_LETTERS)
        assert (headers(letter)["streamer.error.reason"], headers(letter)["streamer.error.offset"]) == ("too_many_keys", "2")
        assert problems("dead_letter", headers(letter)) == []
        assert [short(row)[:4] for row in test.read(flows.PREDICTIONS)][-2:] == [("c", 10, 20, False), ("a", 10, 20, False)]


def test_a_row_that_the_model_refuses_is_a_dead_letter_with_its_window() -> None:
    def picky(columns: Any) -> Any:
        scores = columns["total"].copy()
        scores[columns["n"] == 2] = float("nan")
        return scores[:, None]

    with InsideTest(topology(tumbling("10s"), "on_close"), models=picky, partitions=1) as test:
        for second in (1, 2, 11, 21):
            send(test, "a", second)
        assert [short(row)[:3] for row in test.read(flows.PREDICTIONS)] == [("a", 10, 20)]
        (letter,) = test.read_records(flows.DEAD_LETTERS)
        told = headers(letter)
        assert told["streamer.error.reason"] == "score_not_finite"
        assert told["streamer.error.detail"].startswith(f"the window from {START * SECOND} to ")
        assert letter.key == b"a"
        value = test.worker.metrics.value
        assert (value("streamer_records_total", "folded"), value("streamer_records_total", "dead")) == (4, 0)
        assert value("streamer_dead_letters_total") == 1


def test_the_hold_of_a_window_is_told_apart() -> None:
    with closing(tumbling("10s"), "on_close") as test:
        test.clock.advance(1.0)
        send(test, "a", 1)
        test.clock.advance(20.0)
        send(test, "b", 21)
        (row,) = test.read(flows.PREDICTIONS)
        ledger = test.worker.metrics.ledger
        assert ledger.parts["hold"].total_s == pytest.approx(11.0)  # from its end at 10 to the record at 21
        assert ledger.parts["source"].total_s == 0.0
        whole = sum(part.total_s for part in ledger.parts.values())
        assert whole == pytest.approx(ledger.end_to_end["event"].total_s)
        assert row["latency_ms"] < 100


def test_keys_of_any_text_are_in_the_id() -> None:
    key = 'a"/\\é\n' + "x" * (KEY_BYTES_MAX - 8)
    with closing(tumbling("10s"), "on_close") as test:
        send(test, key, 1)
        send(test, key, 11)
        (row,) = test.read(flows.PREDICTIONS)
        assert row["id"] == f"{flows.SOURCE}/0/{key}/{START * SECOND}"
        assert problems("prediction", row) == []


def test_at_least_once_closes_windows_too() -> None:
    with closing(TEN, "on_close", guarantee="at-least-once") as test:
        send(test, "a", 1)
        test.run()
        test.clock.advance(650.0)
        (row,) = test.read(flows.PREDICTIONS)
        test.crash()
        assert test.read(flows.PREDICTIONS) == []
        assert row["final"]


def test_a_silent_partition_without_open_windows_costs_no_look_at_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = 500
    with closing(tumbling("10s", idle_timeout="5s"), "on_close") as test:
        for n in range(keys):
            send(test, f"k{n}", 1)
        test.run()
        test.clock.advance(6)
        assert len(test.read(flows.PREDICTIONS)) == keys
        scanned: list[int] = []
        look = np.flatnonzero

        def scanning(array: Any) -> Any:
            scanned.append(len(array))
            return look(array)

        monkeypatch.setattr(np, "flatnonzero", scanning)
        for _ in range(20):
            test.worker.turn()
            test.clock.advance(1)
        assert max(scanned, default=0) < keys
        send(test, "k7", 60)
        test.run()
        test.clock.advance(6)
        assert [row["key"] for row in test.read(flows.PREDICTIONS)] == ["k7"]
