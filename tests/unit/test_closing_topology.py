"""Mistakes in declaring windows that close: each is one error on its line."""

import pytest

from streamer.errors import TopologyError
from tests.kit.declared import FEATURES, PUBLISH, WINDOW, blamed, changed, planned

MISTAKES = {
    "emission of a rolling window": (changed(WINDOW, '.window(rolling(count=4), emit="each")'), "gives a result for each event"),
    "grace of a rolling window": (changed(WINDOW, '.window(rolling(count=4, grace="5s"))'), "a rolling window never closes"),
    "idle of a rolling window": (changed(WINDOW, '.window(rolling("4s", idle_timeout="5s"))'), "a rolling window never closes"),
    "unknown emission": (changed(WINDOW, '.window(tumbling("4s"), emit="never")'), "is not one of on_close, each, both"),
    "idle that sends nothing": (
        changed(WINDOW, '.window(tumbling("4s", idle_timeout="1s"), emit="each")'),
        "sends nothing when windows close",
    ),
    "no width": (changed(WINDOW, '.window(tumbling("0s"))'), "tumbling(): size is at least a microsecond"),
    "no gap": (changed(WINDOW, '.window(session(gap="0s"))'), "session(): gap is at least a microsecond"),
    "windows with holes": (changed(WINDOW, '.window(hopping("4s", hop="5s"))'), "events between two windows would be in none"),
    "far too many windows": (
        changed(WINDOW, '.window(hopping("1h", hop="1s"))'),
        "puts an event into 3,600 windows, 2,048 is the most",
    ),
    "endless grace": (changed(WINDOW, '.window(tumbling("1s", grace="99999999d"))'), "is longer than a hundred years"),
    "samples are text": (changed(WINDOW, '.window(session(gap="1s", max_samples="8"))'), "samples of a key, not '8'"),
    "bare grace": (changed(WINDOW, '.window(hopping("4s", hop="2s", grace="1"))'), "hopping(): '1' has no unit"),
    "late records of a rolling window": (
        changed(PUBLISH, '.publish(predictions="out", late_events="late")'),
        "is for windows that",
    ),
    "closing without a topic for late ones": (
        changed(PUBLISH, PUBLISH).replace("rolling(count=4)", 'tumbling("4s")'),
        "tumbling() needs a topic for late events, .publish(..., late_events='out.late')",
    ),
    "late records with predictions": (
        changed(PUBLISH, '.publish(predictions="out", late_events="out")').replace("rolling(count=4)", 'tumbling("4s")'),
        "late_events='out' is taken by predictions=",
    ),
    "a field of the event in a closed window": (
        changed(FEATURES, '.features(lambda w: {"m": w.event("a")})')
        .replace("rolling(count=4)", 'tumbling("4s")')
        .replace('predictions="out"', 'predictions="out", late_events="late"'),
        "a closed window has many; use an aggregate such as w.last('a'), or emit='each'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_error_on_its_line(name: str) -> None:
    text, says = MISTAKES[name]
    with pytest.raises(TopologyError) as refusal:
        planned(text)
    message = str(refusal.value)
    assert message.startswith(blamed(text)), message
    assert says in message
    assert "\n" not in message
