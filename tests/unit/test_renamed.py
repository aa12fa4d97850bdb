"""Old names of the public API are errors that say the new ones, with the line."""

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import streamer
from streamer import Event, Model, SettingsError, Topology, TopologyError, hopping, interval, session, tumbling
from streamer.planning.plan import plan_of
from streamer.renamed import ARGUMENTS, FUNCTIONS, SETTINGS, STEPS
from streamer.settings.settings import Settings
from streamer.testing import constant, stand_in
from streamer.topology.steps import Windowed


class Reading(Event, topic="readings", key="sensor", time="ts"):
    sensor: str
    ts: float


START = Topology("t").source(Reading, dead_letters="dead")
# Every function that has renamed arguments, called as it must be but for those.
CALLS: dict[str, Callable[..., object]] = {
    "Topology.source": lambda **old: Topology("t").source(Reading, **old),
    "Topology.rekey": lambda **old: START.rekey("sensor", **old),
    "Topology.join": lambda **old: START.join(interval(Reading), **old),
    "Topology.publish": lambda **old: START.publish(predictions="out", **old),
    "tumbling": lambda **old: tumbling("10s", **old),
    "hopping": lambda **old: hopping("10s", **old),
    "session": lambda **old: session(gap="10s", **old),
}


def test_every_renamed_argument_is_tried() -> None:
    assert set(CALLS) == set(ARGUMENTS)


@pytest.mark.parametrize(("function", "old"), [(name, old) for name, olds in ARGUMENTS.items() for old in olds])
def test_an_old_argument_names_the_new_one_and_the_line(function: str, old: str) -> None:
    new = ARGUMENTS[function][old]
    with pytest.raises(TopologyError, match=rf"^.*test_renamed\.py:\d+: \S+\(\): {old}= is called {new}= now$"):
        CALLS[function](**{old: "5s"})


@pytest.mark.parametrize("old", FUNCTIONS)
def test_an_old_function_names_the_new_one_and_the_line(old: str) -> None:
    message = rf"^.*test_renamed\.py:\d+: {old}\(\) is called {FUNCTIONS[old]}\(\) now$"
    with pytest.raises(TopologyError, match=message):
        getattr(streamer, old)
    with pytest.raises(TopologyError, match=message):
        exec(compile(f"from streamer import {old}", __file__, "exec"), {"__name__": __name__})
    assert hasattr(import_module("streamer"), FUNCTIONS[old])


def test_what_was_never_there_is_no_old_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'newest'"):
        streamer.newest  # type: ignore[attr-defined]  # noqa: B018 - asked for, that is all
    with pytest.raises(AttributeError, match="no attribute 'branch'"):
        START.branch  # type: ignore[attr-defined]  # noqa: B018 - as above


@pytest.mark.parametrize("old", STEPS)
def test_an_old_step_names_what_there_is_instead(old: str) -> None:
    with pytest.raises(TopologyError, match=rf"test_renamed\.py:\d+: \.{old}\(\) is called LabelMatch"):
        getattr(START, old)


@pytest.mark.parametrize("old", SETTINGS)
def test_an_old_setting_names_the_new_one(old: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    new = SETTINGS[old]
    assert new in Settings.model_fields
    monkeypatch.setenv(f"STREAMER_{old.upper()}", "x")
    with pytest.raises(SettingsError, match=f"STREAMER_{old.upper()} is called STREAMER_{new.upper()} now"):
        Settings.load()
    monkeypatch.delenv(f"STREAMER_{old.upper()}")
    file = tmp_path / "s.toml"
    file.write_text(f'{old} = "x"\n')
    with pytest.raises(SettingsError, match=f"'{old}' is called '{new}' now"):
        Settings.load(file)


def test_a_duration_may_be_a_timedelta() -> None:
    window = tumbling(timedelta(minutes=1), grace=timedelta(seconds=5), idle_timeout="30s")
    assert window == tumbling("60s", grace="5s", idle_timeout=timedelta(milliseconds=30_000))
    flow = START.window(window).features(lambda w: {"n": w.count}).infer(Model("m"), deadline=timedelta(milliseconds=250))
    assert flow.need(Windowed).window == window
    with pytest.raises(TopologyError, match="is less than no time"):
        tumbling("60s", grace=timedelta(seconds=-1))


def test_a_span_may_be_a_timedelta() -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    window = streamer.rolling(hour, day, resolution=hour, ttl=2 * day)
    assert window == streamer.rolling("1h", "1d", resolution="1h", ttl="2d")
    assert streamer.lagged(Reading, hour, delay=day) == streamer.lagged(Reading, "1h", delay="1d")
    assert interval(Reading, before=hour, after=day) == interval(Reading, before="1h", after="1d")
    assert streamer.as_of(Reading, max_age=hour) == streamer.as_of(Reading, max_age="1h")
    with pytest.raises(TopologyError, match="is less than no time"):
        streamer.rolling(-hour)


def test_a_look_back_is_found_by_its_timedelta() -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    flow = START.window(streamer.rolling(hour, day))
    both = flow.features(lambda w: {"n": w.over(hour).count + w.over("1d").count}).infer(Model("m")).publish(predictions="out")
    plan = plan_of(both, Settings(), Path(), model=stand_in(constant(0.0)))
    assert plan.store is not None
    assert plan.store.fingerprint.startswith("rolling/256/3600000000+86400000000/")
    other = flow.features(lambda w: {"n": w.over(2 * day).count}).infer(Model("m")).publish(predictions="out")
    with pytest.raises(TopologyError, match=r"does not look back datetime\.timedelta\(days=2\)"):
        plan_of(other, Settings(), Path(), model=stand_in(constant(0.0)))
