"""Rows of one batch that several models scored: each is judged by its own, and counted for it."""

import numpy as np

from streamer.operators.flag.stage import Flag
from streamer.rows.batch import Batch
from streamer.rows.served import Served, ServedRows

OLD = Served(model="fraud", version=1, digest="sha256:1", threshold=0.5, score_column=0)
NEW = Served(model="fraud", version=2, digest="sha256:2", threshold=0.25, score_column=1)
SHADOW = Served(model="rules", version=1, digest="sha256:3", threshold=None, score_column=-1)
TABLE, INDEX = (OLD, NEW, SHADOW), [1, 0, 2, 1, 0]
SCORES = np.array([[0.9, 0.2], [0.6, 0.1], [9.0, 9.0], [0.1, 0.3], [0.5, 0.9]], np.float32)


def scored() -> Batch:
    n = len(INDEX)
    batch = Batch(
        topic="t", polled_us=0, keys=[b"k"] * n, partitions=np.zeros(n, np.int32), offsets=np.arange(n),
        timestamps_ms=np.zeros(n, np.int64), times_us=np.zeros(n, np.int64), columns={}, values=[b""] * n,
    )  # fmt: skip
    batch.scores, batch.served["infer-1"] = SCORES.copy(), ServedRows(table=TABLE, index=np.array(INDEX))
    return batch


def test_each_row_is_held_against_the_threshold_of_what_scored_it() -> None:
    batch = scored()
    Flag("infer-1")(batch)
    assert batch.served["infer-1"].score(batch.scores).tolist() == [SCORES[row, [0, 1, 1][by]] for row, by in enumerate(INDEX)]
    assert batch.flags.tolist() == [False, True, False, True, False]  # 0.2 by NEW, 0.6 OLD, 9.0 SHADOW, 0.3 NEW, 0.5 OLD


def test_what_scored_a_row_goes_with_it() -> None:
    batch = scored()
    batch.keep(np.array([3, 2]))
    served = batch.served["infer-1"]
    assert [served.of(row) for row in range(2)] == [NEW, SHADOW]
    assert dict(served.rows()) == {OLD: 0, NEW: 1, SHADOW: 1}
    assert scored().served["infer-1"].index.tolist() == INDEX


def test_a_threshold_is_not_rounded_to_the_type_of_the_score() -> None:
    batch = scored()
    tenth = Served(model="m", version=1, digest="sha256:4", threshold=0.1, score_column=0)
    batch.scores = np.full_like(SCORES, np.float32(0.1))  # a little above a tenth
    batch.served["infer-1"] = ServedRows.by(tenth, len(batch))
    Flag("infer-1")(batch)
    assert batch.flags.all()


def test_nothing_is_flagged_where_nothing_scores() -> None:
    batch = scored()
    Flag(None)(batch)
    assert batch.flags.tolist() == [False] * len(INDEX)
