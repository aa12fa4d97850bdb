"""The window stage inside the worker: rows of several partitions in one batch, and batches without rows."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer import Model, Topology, Window
from streamer.errors import TopologyError
from streamer.inference.model import LoadedModel
from streamer.inference.pool import score as run_model
from streamer.inference.repository import find
from tests.faults.make_model import write_model
from tests.faults.names import MODEL
from tests.kit import flows
from tests.kit.inside import InsideTest


@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_windows_with_two_fields_take_rows_of_several_partitions_in_one_batch(partitions: int) -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=partitions) as test:
        for n in range(60):
            key = f"s{n % 7}"
            test.send_bytes(flows.SOURCE, key.encode(), flows.value_of(key, test.now, float(n), n / 8))
        test.run()
        assert flows.judge(test.log).exactly_once


def test_a_batch_without_rows_passes_a_real_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    model = LoadedModel.load(find(tmp_path, Model(MODEL)), max_batch=8)
    failed: dict[int, str] = {}
    assert run_model(model, {}, 0, failed).shape == (0, 1)
    assert failed == {}


def test_a_function_that_fails_on_a_real_batch_stops_the_service_with_a_reason() -> None:
    def picky(w: Window) -> dict[str, NDArray[np.float64]]:
        if len(w.count) != 2:  # as many as the trial has
            raise ZeroDivisionError("three is too many")
        return {"n": w.count}

    plain = Topology("picky").source(flows.Reading, dead_letters="r").features(picky)
    picky_flow = plain.infer(Model("m")).publish(predictions="p")
    with InsideTest(picky_flow, models=lambda columns: columns["n"][:, None], partitions=1) as test:
        for n in range(3):
            test.send_bytes(flows.SOURCE, b"a", flows.value_of("a", test.now, n))
        with pytest.raises(TopologyError, match=r"3 rows, .*/0/0..2 \(ZeroDivisionError: three is too many\)"):
            test.run()
