"""The oracle of the re-keyed flow: what may not happen on the way has its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.faults.log import Record
from tests.faults.make_model import write_model
from tests.faults.oracle import Scorer
from tests.faults.oracle_rekeyed import HEADER, expect_rekeyed
from tests.faults.poison import good_value

if TYPE_CHECKING:
    from collections.abc import Callable

NOW_S = 1_700_000_000.0
INPUTS = [
    Record("in", partition, offset, b"gate" if offset else None, good_value("s", NOW_S + offset, 1.5), int(NOW_S * 1000))
    for partition in (0, 1)
    for offset in range(3)
]


def _copy(place: int, source: Record) -> Record:
    head = HEADER.pack(0x5352, 1, 2, source.partition, -1 if source.key is None else len(source.key), source.offset, 0, 0)
    return Record("by", 0, place, b"s", head + (source.key or b"") + (source.value or b""))


FORWARDED = [_copy(place, source) for place, source in enumerate(INPUTS)]
TICK = Record("by", 0, 99, None, HEADER.pack(0x5352, 1, 2, 0, -1, -1, 0, 0))
CHANGES: dict[str, Callable[[list[Record]], list[Record]]] = {
    "lost_forward": lambda logs: logs[1:],
    "duplicate_forward": lambda logs: [*logs, replace(logs[0], offset=9)],
    "changed_forward": lambda logs: [replace(logs[0], value=(logs[0].value or b"") + b" "), *logs[1:]],
    "reordered_forward": lambda logs: [logs[1], logs[0], *logs[2:]],
    "invented_forward": lambda logs: [*logs, replace(logs[0], value=HEADER.pack(0x5352, 1, 2, 1, -1, 77, 0, 0))],
}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(write_model(tmp_path_factory.mktemp("models")))


def test_windows_follow_the_internal_topic(scorer: Scorer) -> None:
    mixed = [replace(FORWARDED[i], offset=place) for place, i in enumerate((0, 3, 1, 4, 2, 5))]
    truth = expect_rekeyed(INPUTS, [*mixed, TICK], scorer)
    assert truth.wrong == []
    assert [truth.predictions[origin].features[0] for origin in ((0, 0), (1, 0), (0, 1), (1, 2))] == [1.0, 2.0, 3.0, 6.0]
    assert sorted(truth.ranks.values()) == list(range(6))


@pytest.mark.parametrize("kind", CHANGES)
def test_each_wrong_forward_is_caught_by_name(kind: str, scorer: Scorer) -> None:
    truth = expect_rekeyed(INPUTS, CHANGES[kind](FORWARDED), scorer)
    assert kind in {found for found, _ in truth.wrong}
