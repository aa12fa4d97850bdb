"""The decode stage against the oracle: good and bad neighbours in every mix, judged one by one and all together."""

from __future__ import annotations

import random

import numpy as np
import pytest
from confluent_kafka import Message

from streamer.codecs.json import JsonCodec
from streamer.rows.records import LOG_APPEND_TIME, Records
from streamer.stages.decode.decode import Decode
from streamer.topology.event import Event
from tests.faults.log import Record
from tests.faults.oracle import Bad, judge
from tests.faults.poison import RECIPES, Context, Draft, good_value

NOW_S = 1_700_000_000.0
TOPIC = "agreement.in"


class Sample(Event, topic=TOPIC, key="sensor_id", time="ts"):
    """The torture reading, without its topology."""

    sensor_id: str
    ts: float
    value: float


def _stage() -> Decode:
    codec = JsonCodec(Sample, record_bytes_max=1_000_000)
    return Decode(codec=codec, columns=("value",), max_ahead_us=3_600_000_000, keyed=True)


def _agree(drafts: list[Draft]) -> None:
    rows = np.arange(len(drafts))
    keys, values = [d.key for d in drafts], [d.value for d in drafts]
    stamps = np.full(len(drafts), int(NOW_S * 1000))
    zeros = np.zeros(len(drafts), np.int32)
    messages = [Message(timestamp=(LOG_APPEND_TIME, int(NOW_S * 1000))) for _ in drafts]
    batch = _stage()(
        Records(
            topic=TOPIC, partitions=zeros, offsets=rows, timestamps_ms=stamps, messages=list(messages), keys=keys, values=values,
            polled_us=int(NOW_S * 1e6),
        )
    )  # fmt: skip
    verdicts = [judge(Record(TOPIC, 0, row, d.key, d.value, int(NOW_S * 1000))) for row, d in enumerate(drafts)]
    good = {row: verdict for row, verdict in enumerate(verdicts) if not isinstance(verdict, Bad)}
    assert batch.offsets.tolist() == list(good), drafts
    assert batch.columns["value"].tolist() == [reading.value for reading in good.values()]
    assert batch.times_us.tolist() == [reading.time_us for reading in good.values()]
    assert list(batch.keys) == [reading.sensor.encode() for reading in good.values()]
    reasons = {letter.offset: letter.reason for letter in batch.dead}
    assert reasons.keys() == {row for row, verdict in enumerate(verdicts) if isinstance(verdict, Bad)}
    for row, reason in reasons.items():
        verdict = verdicts[row]
        assert isinstance(verdict, Bad)
        assert reason in verdict.reasons, drafts[row]


def _good(dice: random.Random, sensor: str, rows: int) -> list[Draft]:
    values = [good_value(sensor, NOW_S, round(dice.gauss(0.0, 9.0), 3)) for _ in range(rows)]
    return [Draft(sensor.encode(), value) for value in values]


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_one_kind_among_good_neighbours(kind: str) -> None:
    for seed in range(12):
        dice = random.Random(f"{kind} {seed}")
        bad = RECIPES[kind](Context("s", NOW_S, good_value("s", NOW_S, 7.5), dice))
        _agree([*_good(dice, "s", dice.randrange(3)), *bad, *_good(dice, "s", dice.randrange(3))])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.again) for seed in range(1, 20))])
def test_kinds_in_any_mix(seed: int) -> None:
    dice = random.Random(seed)
    drafts: list[Draft] = []
    for _ in range(30):
        sensor = dice.choice(("s", 'quo"te', "käse-☃", "new\nline"))
        kind = dice.choice(sorted(RECIPES))
        drafts += RECIPES[kind](Context(sensor, NOW_S, good_value(sensor, NOW_S, 7.5), dice))
        drafts += _good(dice, sensor, dice.randrange(4))
    _agree(drafts)
