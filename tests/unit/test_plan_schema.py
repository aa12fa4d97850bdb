"""`streamer plan`: what it says of a topology is what the topology does, and publishes."""

import re

import pytest
from jsonschema import Draft202012Validator

from streamer import TopologyError
from streamer.cli.plan import drawn, told
from streamer.planning.schema import schema_of
from tests.kit import flows
from tests.kit.inside import InsideTest
from tests.kit.stateful import FLOWS, any_score


@pytest.mark.parametrize("name", FLOWS)
def test_what_is_published_is_as_the_schema_says(name: str) -> None:
    topology, feed = FLOWS[name]
    with InsideTest(topology, models=any_score, partitions=2) as test:
        for number in range(4):
            feed(test, number)
        test.clock.advance(3600)
        test.run()
        plan = test.worker.plan
        topics = [topic for topic in plan.explain().schemas if topic]
        published = {topic: test.read(topic) for topic in topics}
    assert any(published.values())
    for topic, records in published.items():
        validator = Draft202012Validator(schema_of(plan, topic))
        assert [error.message for record in records for error in validator.iter_errors(record)] == []


def test_a_schema_is_narrowed_to_what_the_topology_writes() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        test.send(flows.Reading("a", test.now, 40.0), times=3)
        test.run()
        plan = test.worker.plan
        (anomaly, *_), (prediction, *_) = test.read(flows.ANOMALIES), test.read(flows.PREDICTIONS)
    for topic, record in ((flows.ANOMALIES, anomaly), (flows.PREDICTIONS, prediction)):
        valid = Draft202012Validator(schema_of(plan, topic)).is_valid
        assert valid(record)
        assert not valid(record | {"features": record["features"] | {"of_another_topology": 1.0}})
        assert not valid(record | {"features": {"n": 1.0}}), "one is missing"
        assert not valid(record | {"window_start": 1.0}), "nothing closes here"
        assert not valid({field: value for field, value in record.items() if field != "score"})


def test_a_topic_without_a_schema_is_told_with_those_that_have_one() -> None:
    with InsideTest(flows.topology(), models=flows.score, partitions=1) as test:
        plan = test.worker.plan
    with pytest.raises(TopologyError, match=f"no JSON to '{flows.DEAD_LETTERS}'.*{flows.PREDICTIONS}, {flows.ANOMALIES}"):
        schema_of(plan, flows.DEAD_LETTERS)


@pytest.mark.parametrize("name", FLOWS)
def test_every_topic_is_named_and_drawn(name: str) -> None:
    topology, _ = FLOWS[name]
    with InsideTest(topology, models=any_score, partitions=1) as test:
        plans = [worker.plan for worker in test.workers]
    explained = [plan.explain() for plan in plans]
    lines, drawing = told(topology.name, explained, ""), drawn(explained)
    named = {topic for flow in explained for topic in (*flow.reads, *flow.writes)}
    assert named == set(plans[-1].topics.all()) - {plans[-1].topics.changelog}
    for plan in plans:
        kept = plan.store.bytes_per_key if plan.store else None
        assert kept is None or f"{kept:,} bytes a" in "\n".join(lines)
    nodes = {match[1] for line in drawing if (match := re.match(r"\s+(\w+)[(\[]", line))}
    arrows = [match.groups() for line in drawing if (match := re.match(r"\s+(\w+) -\.?->? ?>? ?(\w+)$", line))]
    assert arrows
    assert {end for arrow in arrows for end in arrow} <= nodes
    for topic in named:
        assert f'(["{topic}"])' in "\n".join(drawing)
