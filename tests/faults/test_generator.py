"""The load itself: a tame generator would let a wrong service pass."""

from __future__ import annotations

import random
from collections import Counter

from tests.faults import schedule
from tests.faults.generator import AWKWARD_SENSORS, SPIKE, Load, Sensors
from tests.faults.poison import RECIPES, Poisoner

LOAD = Load(events=1_000, seconds=1.0, keys=50, bad_share=0.01, seed=4)


def test_every_poison_kind_comes_before_any_comes_twice() -> None:
    poisoner = Poisoner(random.Random(1))
    for _ in range(2 * len(RECIPES)):
        assert poisoner.draw("s", 1.7e9)
    assert poisoner.counts == dict.fromkeys(poisoner.counts, 2)
    assert poisoner.counts.keys() == RECIPES.keys()


def test_keys_are_zipf_like_and_include_the_awkward_ones() -> None:
    sensors = Sensors(LOAD, random.Random(LOAD.seed))
    counts = Counter(sensors.choose(20_000))
    assert set(AWKWARD_SENSORS) <= counts.keys()
    assert len(counts) == LOAD.keys
    hottest = [count for _, count in counts.most_common(5)]
    assert hottest[0] > 20_000 / 6
    assert min(counts.values()) < hottest[0] / 20


def test_values_hold_spikes_that_a_running_sum_would_remember() -> None:
    sensors = Sensors(LOAD, random.Random(LOAD.seed))
    values = [sensors.value("x") for _ in range(20_000)]
    assert 5 <= sum(abs(value) == SPIKE for value in values) <= 60


def test_a_seed_replays_its_load_and_its_schedule() -> None:
    first, second = (Sensors(LOAD, random.Random(LOAD.seed)) for _ in range(2))
    assert first.choose(500) == second.choose(500)
    assert [first.value("x") for _ in range(500)] == [second.value("x") for _ in range(500)]
    assert schedule.draw(3, schedule.KINDS) == schedule.draw(3, schedule.KINDS)
    assert schedule.draw(3, schedule.KINDS) != schedule.draw(4, schedule.KINDS)


def test_a_schedule_has_every_fault_asked_for_and_removes_nobody_before_one_was_added() -> None:
    for seed in range(50):
        kinds = [fault.kind for fault in schedule.draw(seed, [*schedule.KINDS, "kill"])]
        assert Counter(kinds) == Counter([*schedule.KINDS, "kill"])
        assert kinds.index("add") < kinds.index("remove")
