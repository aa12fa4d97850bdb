"""Missing values through a real broker: readings that are null, a kill in between, every window recomputed."""

from pathlib import Path

import pytest

from tests.faults.checker import read_topic
from tests.kit.killed import EVENTS, killed_half_way


@pytest.mark.timeout(170)
def test_a_reading_without_a_value_counts_once_as_one(kafka: str, tmp_path: Path) -> None:
    with killed_half_way("missing", kafka, tmp_path, bad_share=0.02, seed=5) as (names, _):
        without = [record for record in read_topic(kafka, names.input) if b'"value": null' in (record.value or b"")]
        assert len(without) > EVENTS / 10
