"""The oracle of records as they are, by hand, and the topology over the same records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from streamer.testing import TopologyTest
from tests.faults.log import Record
from tests.faults.make_model import write_model
from tests.faults.names import FEATURES, Names
from tests.faults.oracle import Scorer
from tests.faults.oracle_raw import expect_raw
from tests.faults.topology_raw import NAMES, torture

if TYPE_CHECKING:
    from pathlib import Path

RECORDS: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (b"s", b'{"no": "JSON is read"}', [("gain", b"1.5"), ("trace", b"\xff\x00")]),
    (None, b"\x05\x01\x03", []),
    (b"\xff\xfe", b"", [("gain", b"1"), ("gain", b"2")]),
    (b"s", None, [("gain", b"3")]),
    (b"", b"\xff" * 300, [("gain", None), ("none", None)]),
]
BY_HAND = {
    0: (0, 2, 22, 32, 125, 125, 1.5, 1),
    1: (0, 0, 3, 1, 5, 3, 0, -1),
    2: (0, 1, 0, 0, 0, 0, 2, 2),
    4: (0, 2, 300, 255, 255, 255, 0, 0),
}


def _logged() -> list[Record]:
    return [
        Record("in", 0, offset, key, value, 1_000 + offset, tuple((name, data or b"") for name, data in headers))
        for offset, (key, value, headers) in enumerate(RECORDS)
    ]


def test_features_by_hand(tmp_path: Path) -> None:
    truth = expect_raw(_logged(), Scorer(write_model(tmp_path)))
    assert {origin[1]: expected.features for origin, expected in truth.predictions.items()} == BY_HAND
    assert [(origin[1], bad.reasons) for origin, (_, bad) in truth.dead_letters.items()] == [(3, frozenset({"null_value"}))]
    assert truth.predictions[0, 1].reading.time_us == 1_001_000
    assert all(0 <= expected.score <= 1 for expected in truth.predictions.values())


def test_the_topology_says_the_same(tmp_path: Path) -> None:
    truth = expect_raw(_logged(), Scorer(write_model(tmp_path)))
    with TopologyTest(torture, models=tmp_path, partitions=1) as test:
        for key, value, headers in RECORDS:
            test.send_bytes(NAMES.input, key, value, headers=headers)
        found = {int(row["id"].rsplit("/", 1)[1]): row for row in test.read(NAMES.predictions)}
        (letter,) = test.read_records(NAMES.dead_letters)
    assert found.keys() == BY_HAND.keys()
    for offset, row in found.items():
        assert tuple(row["features"][name] for name in FEATURES) == pytest.approx(BY_HAND[offset])
        assert math.isclose(row["score"], truth.predictions[0, offset].score, rel_tol=1e-6)
    assert dict(letter.headers)["gain"] == b"3"


def test_the_flow_keeps_nothing() -> None:
    assert Names("x", flow="raw").changelogs == ()
