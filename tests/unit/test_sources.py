"""Where events come from is said by the step or by the class, and what they are by the class alone."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from streamer import Event, LabelMatch, Model, Topology, as_of, interval
from streamer.errors import StreamerError, TopologyError
from streamer.planning.plan import Plan, plan_of
from streamer.settings.settings import Settings
from streamer.testing import TopologyTest, constant, stand_in, values
from streamer.topology.examples import example_of
from streamer.topology.topics import topics_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamer.topology.steps import Declaration


class Reading(Event, topic="readings", key="sensor", time="ts"):
    """Names a topic of its own."""

    sensor: str
    ts: float
    value: float


class Loose(Event, key="sensor", time="ts"):
    """Names none."""

    sensor: str
    ts: float
    value: float


class Narrower(Loose, key="room"):
    """Another key of the same."""

    room: str


def scored(topology: Topology) -> Topology:
    return topology.features(lambda w: {"value": w.event("value")}).infer(Model("m")).publish(predictions="scored")


def bound(topology: Topology) -> Plan:
    plan = plan_of(topology, Settings(), Path(), model=stand_in(constant(1.0)))
    assert isinstance(plan, Plan)
    return plan


def test_the_step_goes_before_the_class() -> None:
    for event, topic, read in ((Reading, None, "readings"), (Reading, "other", "other"), (Loose, "loose", "loose")):
        topology = scored(Topology("t").source(event, topic=topic, dead_letters="dead"))
        assert topics_of(topology, None).source == bound(topology).topics.source == read


def test_one_class_reads_from_two_topics() -> None:
    for topic in ("north", "south"):
        topology = scored(Topology(topic).source(Loose, topic=topic, dead_letters="dead"))
        with TopologyTest(topology, models=constant(0.5), partitions=1) as test:
            test.send(Loose("s", test.now, 1.0), times=2)
            assert values(test.read("scored"), "id") == [f"{topic}/0/0", f"{topic}/0/1"]


def test_a_class_keeps_the_topic_of_its_base() -> None:
    class Later(Reading, key="room"):
        room: str = ""

    assert (Later.__event__.topic, Later.__event__.key, Later.__event__.time) == ("readings", "room", None)
    assert (Narrower.__event__.topic, Narrower.__event__.key) == ("", "room")


@pytest.mark.parametrize("step", [".source()", ".join()", ".predictions()", ".labels()"])
def test_no_topic_anywhere_is_one_error_with_what_to_write(step: str) -> None:
    source = Topology("t").source(Reading, dead_letters="dead")
    steps: dict[str, Callable[[], Declaration]] = {
        ".source()": lambda: Topology("t").source(Loose, dead_letters="dead"),
        ".join()": lambda: source.join(interval(Loose, before="1m"), dead_letters="dead2"),
        ".predictions()": lambda: LabelMatch("t").predictions(Loose, dead_letters="dead"),
        ".labels()": lambda: (
            LabelMatch("t").predictions(Reading, dead_letters="dead").labels(Loose, within="1m", dead_letters="b")
        ),
    }
    with pytest.raises(TopologyError) as refusal:
        steps[step]()
    message = str(refusal.value)
    assert message.startswith(f"{__file__}:")
    assert message.endswith(
        f"{step}: Loose names no topic; write topic='...' in this step, or in the class, class Loose(Event, topic='...')"
    )


def test_a_topic_of_the_step_is_judged_as_one_of_the_class() -> None:
    with pytest.raises(TopologyError, match=r"test_sources\.py:\d+: topic='my topic': names of topologies and topics are"):
        bound(scored(Topology("t").source(Loose, topic="my topic", dead_letters="dead")))
    with pytest.raises(TopologyError, match=r"test_sources\.py:\d+: dead_letters='dead' is taken by topic="):
        bound(scored(Topology("t").source(Loose, topic="dead", dead_letters="dead")))


def test_a_topology_test_sends_what_it_reads() -> None:
    topology = scored(Topology("t").source(Loose, topic="a", dead_letters="dead"))
    refused = pytest.raises(StreamerError, match=r"t reads no Narrower; send_bytes\(\) takes any topic")
    with TopologyTest(topology, models=constant(1.0)) as test, refused:
        test.send(Narrower("s", test.now, 1.0, "r"))


def test_joined_streams_and_labels_have_topics_of_their_own() -> None:
    joined = scored(
        Topology("t").source(Loose, topic="a", dead_letters="a.dead")
        .join(interval(Reading, before="1m"), topic="b", dead_letters="b.dead")
        .join(as_of(Narrower), topic="c", dead_letters="c.dead")
    )  # fmt: skip
    assert topics_of(joined, None).sources == ["a", "b", "c"]
    matched = (
        LabelMatch("t").predictions(Loose, topic="scores", dead_letters="a.dead")
        .labels(Reading, topic="labels", within="1m", dead_letters="b.dead").publish(matched="m", unmatched="u")
    )  # fmt: skip
    assert topics_of(matched, None).sources == ["scores", "labels"]
    with TopologyTest(matched, models=constant(1.0), partitions=1) as test:
        test.send(Loose("s", test.now, 1.0))
        test.send(Reading("s", test.now, 7.0))
        (row,) = test.read("m")
    assert (row["id"], row["label"]) == ("scores/0/0", {"value": 7.0})


def test_the_word_there_was_says_the_one_there_is() -> None:
    with pytest.raises(
        TopologyError, match=r"class Old: the format is the source's; write \.source\(Old, format='json'\) instead"
    ):

        class Old(Event, topic="t", codec="json"):
            value: float


def test_a_class_is_joined_once() -> None:
    twice = (
        Topology("t").source(Loose, topic="a", dead_letters="a.dead")
        .join(interval(Reading, before="1m"), dead_letters="b.dead")
        .join(interval(Reading, before="2m"), topic="c", dead_letters="c.dead")
    )  # fmt: skip
    with pytest.raises(TopologyError, match=r"w\.of\(Reading\) would be two streams; make a class of its own, class Other"):
        bound(scored(twice))


def test_what_json_cannot_tell_apart_is_one_error() -> None:
    class One(msgspec.Struct):
        x: int

    class Two(msgspec.Struct):
        y: int

    class Either(Event, topic="t"):
        value: float
        which: One | Two

    with pytest.raises(TopologyError, match=r"Either cannot be read from JSON: .* must be tagged"):
        bound(scored(Topology("t").source(Either, dead_letters="dead")))


class Positive(Event, topic="positive"):
    """A class with a word of its own on its records."""

    value: float

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError("the value is not positive")


def test_a_class_may_refuse_a_record_in_its_own_words() -> None:
    with TopologyTest(scored(Topology("t").source(Positive, dead_letters="dead")), models=constant(1.0), partitions=1) as test:
        for value in (b"1", b"-1", b"2"):
            test.send_bytes("positive", None, b'{"value":' + value + b"}")
        assert values(test.read("scored"), "id") == ["positive/0/0", "positive/0/2"]
        (letter,) = test.read_records("dead")
    headers = dict(letter.headers)
    assert (headers["streamer.error.reason"], headers["streamer.error.detail"]) == ("wrong_type", "the value is not positive")


# ---------------------------------------------------------------------- fields of any type


class Point(msgspec.Struct):
    """A value within an event."""

    x: float
    next: "Point | None"
    y: float = 2.0


class Everything(Event, topic="things"):
    """A field of each kind."""

    image: bytes
    tags: list[str]
    point: Point
    missing: float | None
    when: datetime
    counts: dict[str, int]
    pair: tuple[int, str]
    text: str
    value: float = 0.0


def test_the_trial_call_gets_values_of_the_declared_types() -> None:
    assert {name: example_of(Everything, name) for name in Everything.__struct_fields__} == {
        "image": b"", "tags": [], "point": Point(1.0, None), "missing": 1.0, "when": datetime(1970, 1, 1, tzinfo=UTC),
        "counts": {}, "pair": (1, ""), "text": "", "value": 1.0,
    }  # fmt: skip


def test_fields_of_any_type_reach_the_function() -> None:
    def features(w: Any) -> dict[str, Any]:
        assert all(w.event(name).shape == w.event("value").shape for name in Everything.__struct_fields__)
        return {
            "bytes": np.array([len(image) for image in w.event("image")]),
            "tags": np.array([len(tags) for tags in w.event("tags")]),
            "x": np.array([point.x for point in w.event("point")]),
            "hour": np.array([when.hour for when in w.event("when")]),
        }

    topology = Topology("t").source(Everything, dead_letters="dead").features(features).infer(Model("m"))
    thing = Everything(b"\xff\x00", ["a", "b"], Point(3.0, None), None, datetime(2024, 1, 1, 5, tzinfo=UTC), {}, (1, "b"), "t")
    with TopologyTest(topology.publish(predictions="scored", features=True), models=constant(1.0), partitions=1) as test:
        test.send(thing, times=2)
        rows = test.read("scored")
    # In JSON, bytes are base64.
    assert values(rows, "features") == [{"bytes": 2, "tags": 2, "x": 3, "hour": 5}] * 2
