"""A slow model, a hanging commit or a full producer makes lag grow, never memory; nothing is lost and reading goes on."""

from collections.abc import Callable, Iterator

import pytest

from streamer import limits
from streamer.operators.infer.stage import Infer
from streamer.rows.batch import Batch
from streamer.worker.worker import Worker
from tests.kit import flows
from tests.kit.faulty import FaultTest, short_waits

__all__ = ["short_waits"]

BATCH, UNSCORED, WAITING, UNCOMMITTED = 8, 32, 64, 128


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch, short_waits: None) -> None:
    """The limits of service, scaled down so that a few hundred records reach them."""
    monkeypatch.setattr(limits, "ROWS_PER_BATCH_MAX", BATCH)
    monkeypatch.setattr(limits, "ROWS_UNSCORED_MAX", UNSCORED)
    monkeypatch.setattr(limits, "ROWS_WAITING_MAX", WAITING)
    monkeypatch.setattr(limits, "ROWS_UNCOMMITTED_MAX", UNCOMMITTED)
    monkeypatch.setattr("streamer.stages.commit.commit.COMMIT_ROWS_MAX", UNCOMMITTED // 2)


@pytest.fixture
def test() -> Iterator[FaultTest]:
    with FaultTest(flows.topology(), models=flows.score, partitions=2) as made:
        yield made


def feed(test: FaultTest, rows: int, make: Callable[[int], bytes] | None = None) -> None:
    for n in range(rows):
        key = f"s{n % 5}"
        test.send_bytes(flows.SOURCE, key.encode(), make(n) if make else flows.value_of(key, test.now, float(n)))


def held(worker: Worker) -> int:
    """Records between poll and commit, dead letters too."""
    assert isinstance(worker.pipeline.infer, Infer)
    under_way = [batch for batch, _ in worker.pipeline.infer._under_way]
    waiting = [outgoing.batch for outgoing in worker._produce._waiting]
    opened, running = worker._commit._open, worker._commit._running
    produced = [*(opened.batches if opened else []), *(running.job.batches if running else [])]
    return sum(len(batch) + len(batch.dead) for batch in [*under_way, *waiting, *produced])


def most_held(test: FaultTest, turns: int) -> int:
    """Turn, and see how much is held at most."""
    most = 0
    for _ in range(turns):
        test.turns(1)
        most = max(most, held(test.worker))
    return most


def test_a_slow_model_pauses_the_input_and_resumes_it(test: FaultTest) -> None:
    feed(test, 40)
    test.run()
    test.scores_held = True
    feed(test, 400)
    assert most_held(test, 300) == UNSCORED
    assert test.worker._consume.paused
    assert test.group_consumer.reading == set()
    assert sum(test.worker._consume.lag().values()) == 400 - UNSCORED
    assert test.worker.metrics.value("streamer_pauses_total") == 1
    assert test.worker.metrics.value("streamer_stage_blocked_seconds_total", "infer-1") > 0
    assert test.worker.live() is None
    test.release()
    test.run()
    assert test.group_consumer.reading == {0, 1}
    assert flows.judge(test.log).exactly_once


def test_a_short_stall_keeps_the_prefetch(test: FaultTest) -> None:
    test.scores_held = True
    feed(test, 100)
    most_held(test, 10)
    test.release()
    test.run()
    assert test.worker.metrics.value("streamer_pauses_total") == 0
    assert flows.judge(test.log).exactly_once


def test_resuming_waits_until_half_of_the_room_is_free(test: FaultTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hysteresis a pause would follow each batch, and each pause throws the prefetch away."""
    test.scores_held = True
    feed(test, 400)
    most_held(test, 300)
    test.scores_held = False
    collect, resume, resumed = test.worker.pipeline.infer.collect, test.worker._consume.resume, list[int]()
    turn = [0, 0]  # this one, and the one in which a batch was last given out

    def one_a_turn(wait_s: float) -> Batch | None:
        if turn[0] == turn[1]:
            return None
        turn[1] = turn[0]
        return collect(wait_s)

    def noting() -> None:
        resumed.append(UNSCORED - test.worker.pipeline.infer.rows)
        resume()

    monkeypatch.setattr(test.worker.pipeline.infer, "collect", one_a_turn)
    monkeypatch.setattr(test.worker._consume, "resume", noting)
    for turn[0] in range(1, 40):
        test.turns(1)
    assert resumed
    assert all(free >= UNSCORED // 2 for free in resumed)
    monkeypatch.undo()
    test.run()
    assert flows.judge(test.log).exactly_once


@pytest.mark.parametrize("bad", [False, True], ids=["good", "all dead letters"])
def test_a_hanging_commit_bounds_what_waits(test: FaultTest, bad: bool) -> None:
    feed(test, 10)
    test.run()
    test.commits_held = True
    feed(test, 2_000, (lambda _: b"{") if bad else None)
    assert most_held(test, 400) <= UNCOMMITTED
    assert test.worker.live() is None
    test.release()
    test.run()
    assert flows.judge(test.log).exactly_once
    assert not test.worker._consume.paused


@pytest.mark.parametrize("bad", [False, True], ids=["good", "all dead letters"])
def test_a_slow_model_bounds_bad_records_too(test: FaultTest, bad: bool) -> None:
    test.scores_held = True
    feed(test, 1_000, (lambda _: b"{") if bad else None)
    assert most_held(test, 300) <= UNSCORED
    test.release()
    test.run()
    assert flows.judge(test.log).exactly_once


def test_a_full_producer_is_waited_for_and_keeps_the_order(test: FaultTest) -> None:
    for n in range(1, 60):
        if n % 3:
            test.script.faults["produce_batch", n] = "full"
    test.script.fail_next("produce", "full", times=3)
    feed(test, 300, lambda n: b"{" if n % 50 == 0 else flows.value_of(f"s{n % 5}", test.now, float(n)))
    most = most_held(test, 100)
    test.run()
    assert most <= UNCOMMITTED
    assert len([hit for hit in test.script.hits if hit[2] == "full"]) > 30
    assert test.worker.metrics.value("streamer_stage_blocked_seconds_total", "produce") >= 0
    assert flows.judge(test.log).exactly_once


def test_large_records_fill_the_room_before_the_rows_do(test: FaultTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BYTES_UNSCORED_MAX", 3_000)
    feed(test, 10)
    test.run()
    test.scores_held = True
    feed(test, UNSCORED, lambda n: flows.value_of(f"s{n % 5}", test.now, float(n)) + b" " * 1_000)
    most = 0
    for _ in range(50):
        test.turns(1)
        most = max(most, test.worker.pipeline.infer.value_bytes)
    # A poll is asked for rows, so one batch may pass the limit; the next one is not polled.
    assert 3_000 <= most < 3_000 + BATCH * 1_200
    test.release()
    test.run()
    assert flows.judge(test.log).exactly_once
