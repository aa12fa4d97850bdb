"""Records as they are, through a real broker: values, keys and headers of any bytes, a kill in between, all of it recomputed."""

from pathlib import Path

import pytest

from tests.faults.checker import read_topic
from tests.kit.killed import killed_half_way


@pytest.mark.timeout(170)
def test_every_record_counts_once_as_it_is(kafka: str, tmp_path: Path) -> None:
    with killed_half_way("raw", kafka, tmp_path, bad_share=0.2, seed=3) as (names, verdict):
        assert verdict.anomalies > 0
        letters = read_topic(kafka, names.dead_letters)
        assert any(letter.header("gain") for letter in letters), "headers of the input stand in its dead letters too"
