"""A score belongs to its row, whatever batch it came in; the pool keeps going whatever a model does."""

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.clock import SystemClock
from streamer.inference.model import Features, LoadedModel
from streamer.inference.pool import Pool, score
from streamer.inference.repository import ModelFile
from streamer.limits import HAND_OVER_S
from streamer.testing import ScoreFunction, constant, stand_in
from tests.kit.models import write_model

Floats = NDArray[np.float32]


def loaded(path: Path, max_batch: int = 8) -> LoadedModel:
    return LoadedModel.load(ModelFile("m", 1, path), max_batch=max_batch)


def columns(rows: int, names: str = "ab") -> dict[str, Floats]:
    return {name: np.arange(rows, dtype=np.float32) * 10**n for n, name in enumerate(names)}


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 16, 25])
@pytest.mark.parametrize("max_batch", [1, 3, 8, 512])
def test_padding_and_cutting_show_in_no_score(tmp_path: Path, rows: int, max_batch: int) -> None:
    model = loaded(write_model(tmp_path, inputs={"x": ("rows", 2)}), max_batch)
    given = columns(rows)
    assert model.run(given, rows).tolist() == [[a + b] for a, b in zip(given["a"], given["b"], strict=True)]


def test_a_model_exported_for_one_size_gets_that_size(tmp_path: Path) -> None:
    path = write_model(tmp_path, inputs={"x": (4, 2)}, output=(4, 1))
    for max_batch in (2, 64):
        model = loaded(path, max_batch)
        model.prove({"a": (), "b": ()}, SystemClock())
        for rows in (1, 4, 10):
            assert model.run(columns(rows), rows)[:, 0].tolist() == [11.0 * n for n in range(rows)]


def test_a_model_is_known_by_the_digest_of_its_file(tmp_path: Path) -> None:
    path = write_model(tmp_path, inputs={"x": ("rows", 2)})
    assert loaded(path).digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_proving_a_model_says_what_a_row_takes(tmp_path: Path) -> None:
    model = loaded(write_model(tmp_path, inputs={"x": ("rows", 2)}))
    model.prove({"a": (), "b": ()}, SystemClock())
    assert model.seconds_per_row is not None
    assert 0 < model.seconds_per_row < 1


def test_an_input_for_each_feature(tmp_path: Path) -> None:
    model = loaded(write_model(tmp_path, inputs={"a": ("rows", 1), "b": ("rows", 1), "c": ("rows", 3)}))
    given = {**columns(5), "c": np.ones((5, 3), np.float32)}
    model.check({"a": (), "b": (), "c": (3,)})
    assert model.run(given, 5)[:, 0].tolist() == [11.0 * n + 3 for n in range(5)]


def test_one_input_named_as_the_one_feature_takes_a_matrix(tmp_path: Path) -> None:
    model = loaded(write_model(tmp_path, inputs={"series": ("rows", 16)}))
    model.check({"series": (16,)})
    assert model.run({"series": np.ones((3, 16), np.float32)}, 3)[:, 0].tolist() == [16.0] * 3


def test_numbers_and_vectors_side_by_side_in_one_matrix(tmp_path: Path) -> None:
    model = loaded(write_model(tmp_path, inputs={"x": ("rows", 4)}))
    model.check({"a": (), "c": (3,)})
    given = {"a": np.arange(2, dtype=np.float32), "c": np.ones((2, 3), np.float32)}
    assert model.run(given, 2)[:, 0].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("kind", [1, 11])
def test_scores_are_float32_and_have_columns(tmp_path: Path, kind: int) -> None:
    model = loaded(write_model(tmp_path, inputs={"x": ("rows", 2)}, output=("rows", 3), kind=kind))
    scores = model.run(columns(2), 2)
    assert scores.dtype == np.float32
    assert scores.shape == (2, 3)


def test_each_size_of_batch_is_run_before_the_first_event(tmp_path: Path) -> None:
    model = loaded(write_model(tmp_path, inputs={"x": ("rows", 2)}), max_batch=12)
    sizes: list[int] = []
    once = type(model)._run_once

    def note(feed: dict[str, Floats], start: int, end: int) -> Floats:
        sizes.append(min(model.max_batch, 1 << (end - start - 1).bit_length()))
        return once(model, feed, start, end)

    type.__setattr__(LoadedModel, "_run_once", lambda self, *args: note(*args))
    try:
        model.prove({"a": (), "b": ()}, SystemClock())
    finally:
        type.__setattr__(LoadedModel, "_run_once", once)
    assert sizes[-5:] == [1, 2, 4, 8, 12]


# ---------------------------------------------------------------------- rows that a model refuses


@pytest.mark.parametrize("bad", [set(), {0}, {6}, {0, 6}, {2, 3}, set(range(7))])
def test_just_the_refused_rows_fail(bad: set[int]) -> None:
    runs = []

    def picky(given: Features) -> Floats:
        runs.append(len(given["a"]))
        for row in given["a"]:
            if int(row) in bad:
                raise ValueError(f"not {row:g}")
        return np.stack([given["a"], given["a"]], axis=1)

    failed: dict[int, str] = {}
    scores = score(stand_in(picky), columns(7), 7, failed)
    assert failed == {row: f"not {row}" for row in bad}
    assert np.flatnonzero(np.isnan(scores[:, 0])).tolist() == sorted(bad)
    assert all((scores[row] == row).all() for row in range(7) if row not in bad)
    assert len(runs) <= 1 + 2 * 3 * max(1, len(bad))


# ---------------------------------------------------------------------- the pool


def pool(function: ScoreFunction, threads: int = 2, seconds_per_row: float | None = 0.0) -> Pool:
    model = stand_in(function)
    model.seconds_per_row = seconds_per_row
    return Pool(model, threads, SystemClock())


@pytest.mark.parametrize("seconds_per_row", [HAND_OVER_S, None], ids=["seen to be slow", "not known yet"])
def test_a_quick_model_answers_at_once_and_a_slow_one_in_its_own_time(seconds_per_row: float | None) -> None:
    gate, where = threading.Event(), []

    def slow(given: Features) -> Floats:
        where.append(threading.current_thread() is threading.main_thread())
        assert gate.wait(5.0)
        return np.asarray(given["a"])[:, None]

    made = pool(slow, seconds_per_row=seconds_per_row)
    tasks = [made.submit(columns(3), 3) for _ in range(4)]
    assert [task.wait(0.0) for task in tasks] == [False] * 4
    gate.set()
    assert [task.wait(5.0) for task in tasks] == [True] * 4
    assert where == [False] * 4
    made.close()
    made = pool(slow)
    assert made.submit(columns(3), 3).wait(0.0)
    assert where[-1]
    made.close()


def test_stamps_and_scores_are_there_when_it_is_done() -> None:
    made = pool(constant(2.0), threads=1)
    task = made.submit(columns(2), 2)
    assert task.wait(5.0)
    assert 0 < task.started <= task.ended
    assert task.scores.tolist() == [[2.0], [2.0]]
    made.close()


def test_what_breaks_the_pool_itself_reaches_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that died silently would leave its batch, and all behind it, waiting for ever."""

    def broken(*_: object) -> None:
        raise MemoryError("no room for scores")

    def refuse(_: Features) -> Floats:
        raise ValueError

    made = pool(refuse, threads=1, seconds_per_row=HAND_OVER_S)
    with monkeypatch.context() as patch:
        patch.setattr("streamer.inference.pool.score", broken)
        task = made.submit(columns(2), 2)
        with pytest.raises(MemoryError, match="no room for scores"):
            task.wait(5.0)
    assert made.submit(columns(2), 2).wait(5.0)
    made.close()


def test_a_closed_pool_leaves_no_thread() -> None:
    made = pool(constant(1.0), threads=3)
    made.close()
    assert not any(thread.is_alive() for thread in made._threads)
