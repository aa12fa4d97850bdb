"""A broker that grants nothing but what `streamer topics plan` prints: a worker starts, is killed, and starts again."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from streamer.dev_broker import DevBroker
from tests.faults.make_model import write_model
from tests.kit.service import FLOW, WAIT_S, Flow, expected, same, seen

ROWS = 200
KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional-id": ResourceType.TRANSACTIONAL_ID}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """A broker with ACLs: all is allowed on the listener without a password, nothing on the other one."""
    authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    settings = {"authorizer.class.name": authorizer, "super.users": "User:ANONYMOUS"}
    with DevBroker(tmp_path_factory.mktemp("acls"), sasl=True, settings=settings) as broker:
        yield broker


def grants(plan: str, user: str) -> list[AclBinding]:
    """The lines of the plan as a cluster's administrator would enter them."""
    found = []
    for line in plan.splitlines():
        if line.startswith("allow "):
            _, operations, kind, *prefix, name = line.split()
            pattern = ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL
            found += [
                AclBinding(KINDS[kind], name, pattern, f"User:{user}", "*", AclOperation[word.upper()], AclPermissionType.ALLOW)
                for word in operations.split(",")
            ]
    return list(dict.fromkeys(found))


def granted(broker: DevBroker, flow: Flow, topology: str) -> list[AclBinding]:
    """Grant what the plan of a flow prints, and have the flow's clients log in."""
    user = str(broker.sasl_config["sasl.username"])
    rights = grants(flow.command("topics", "plan", topology, "--group", flow.prefix), user)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for answer in admin.create_acls(rights).values():
        answer.result(20)
    flow.environment |= {"KAFKA_" + key.upper().replace(".", "_"): str(value) for key, value in broker.sasl_config.items()}
    assert os.environ.get("KAFKA_SASL_USERNAME") is None
    return rights


@pytest.mark.parametrize(
    ("topology", "guarantee"),
    [(FLOW, "exactly-once"), pytest.param("tests/kafka/rekey_flow.py:flow", "at-least-once", marks=pytest.mark.again)],
)
def test_the_rights_that_are_printed_suffice(guarded: DevBroker, tmp_path: Path, topology: str, guarantee: str) -> None:
    write_model(tmp_path)
    flow = Flow({"bootstrap.servers": guarded.bootstrap}, tmp_path, topology)
    granted(guarded, flow, topology)
    flow.send(ROWS)
    with flow.running("--guarantee", guarantee, ends=signal.SIGKILL):
        assert len(flow.predictions(ROWS)) >= ROWS
    flow.send(ROWS)
    with flow.running("--guarantee", guarantee):
        rows = flow.predictions(2 * ROWS)
    if topology == FLOW and guarantee == "exactly-once":
        assert same(seen(rows), expected(2 * ROWS))
    assert len({str(row["id"]) for row in rows}) == 2 * ROWS


@pytest.mark.again
def test_a_right_that_is_taken_away_is_named_until_it_is_back(guarded: DevBroker, tmp_path: Path) -> None:
    write_model(tmp_path)
    flow = Flow({"bootstrap.servers": guarded.bootstrap}, tmp_path)
    rights, topic = granted(guarded, flow, FLOW), f"{flow.prefix}.predictions"
    write = [right for right in rights if (right.name, right.operation) == (topic, AclOperation.WRITE)]
    admin = AdminClient({"bootstrap.servers": guarded.bootstrap})
    flow.send(ROWS)
    with flow.running():
        assert len(flow.predictions(ROWS)) == ROWS
        (right,) = write
        taken = AclBindingFilter(
            right.restype, right.name, right.resource_pattern_type, right.principal, "*", right.operation, right.permission_type
        )
        assert admin.delete_acls([taken])[taken].result(20)
        flow.send(ROWS)
        until = time.monotonic() + WAIT_S
        while "grant write on the topic" not in flow.log.read_text() and time.monotonic() < until:
            time.sleep(0.05)
        assert re.search(rf"grant write on the topic; .* The topics that this worker writes: .*{topic}", flow.log.read_text())
        admin.create_acls(write)[right].result(20)
        assert same(seen(flow.predictions(2 * ROWS)), expected(2 * ROWS))
