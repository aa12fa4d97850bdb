"""Inputs that meet by key must lie by the same rule; where they do not, somebody is told."""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec
import pytest

from streamer import Event, LabelMatch, Model, TopicError, Topology, interval
from streamer.stages.consume.partitioners import ANOTHER, CRC32, MURMUR2, RECORDS, Tally
from streamer.state.murmur2 import partitions
from streamer.testing import constant
from tests.kit.inside import InsideTest

COUNT = 4
Rule = Callable[[bytes], int]


class Paid(Event, topic="paid", key="user", time="ts"):
    user: str
    ts: float
    amount: float


class Login(Event, topic="logins", key="user", time="ts"):
    user: str
    ts: float


class Scored(Event, topic="scored", key="user", time="ts"):
    user: str
    ts: float


JOINED = (
    Topology("joined")
    .source(Paid, dead_letters="paid.bad")
    .join(interval(Login, before="1m"), dead_letters="logins.bad")
    .features(lambda w: {"n": w.of(Login).count, "a": w.event("amount")})
    .infer(Model("m"))
    .publish(predictions="out")
)
MATCHED = (
    LabelMatch("matched")
    .predictions(Scored, dead_letters="bad")
    .labels(Login, within="1d", dead_letters="worse")
    .publish(matched="m", unmatched="u")
)


def murmur2(key: bytes) -> int:
    return int(partitions([key], COUNT)[0])


def crc(key: bytes) -> int:
    return crc32(key) % COUNT


def by_hand(key: bytes) -> int:
    return sum(key) % COUNT


def flow(topology: Topology = JOINED, **settings: object) -> InsideTest:
    return InsideTest(topology, models=constant(0.0), partitions=COUNT, settings={"keys_max": 1000, **settings})


def send(test: InsideTest, kind: type[Event], rule: Rule, keys: int, rows: int = 40) -> None:
    for n in range(rows):
        key = f"user-{n % keys}"
        more: dict[str, Any] = {"amount": 1.0} if kind is Paid else {}
        value = msgspec.json.encode(kind(user=key, ts=test.now, **more))
        test.log.append(kind.__event__.topic, key.encode(), value, rule(key.encode()))


@pytest.mark.parametrize(
    ("topology", "kind", "one", "other", "differ"),
    [
        (JOINED, Paid, murmur2, murmur2, None),
        (JOINED, Paid, crc, crc, None),
        (JOINED, Paid, murmur2, crc, "logins by crc32, paid by murmur2"),
        (JOINED, Paid, crc, murmur2, "logins by murmur2, paid by crc32"),
        (JOINED, Paid, by_hand, murmur2, "logins by murmur2, paid by another"),
        (MATCHED, Scored, murmur2, murmur2, None),
        (MATCHED, Scored, murmur2, crc, "logins by crc32, scored by murmur2"),
    ],
)
def test_inputs_that_differ_are_told_once(
    topology: Topology, kind: type[Event], one: Rule, other: Rule, differ: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with flow(topology) as test:
        for _ in range(3):
            send(test, kind, one, keys=40)
            send(test, Login, other, keys=40)
            test.run()
            test.clock.advance(2.0)
        lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        told = [line["detail"] for line in lines if line["event"] == "partitioner_mismatch"]
        assert test.worker.metrics.value("streamer_partitioner_mismatch") == (differ is not None)
    assert len(told) == (differ is not None)
    if differ:
        assert differ in told[0]
        assert "partitioner=murmur2_random in the producer of " in told[0]


@pytest.mark.parametrize("keys", [1, 3, 9])
def test_few_keys_prove_nothing(keys: int) -> None:
    """However many records there are: with a hot key a wrong rule is right by chance."""
    with flow(on_partitioner_mismatch="stop") as test:
        send(test, Paid, murmur2, keys, rows=RECORDS)
        send(test, Login, crc, keys, rows=RECORDS)
        test.run()


def test_it_may_end_the_service() -> None:
    with flow(on_partitioner_mismatch="stop") as test:
        send(test, Paid, murmur2, keys=40)
        send(test, Login, crc, keys=40)
        with pytest.raises(TopicError, match="events of one key never meet") as refusal:
            test.run()
    assert refusal.value.exit_code == 3


def test_a_producer_that_changes_is_noticed_and_one_that_is_mended_too() -> None:
    """Long after the first records, from a few of them a second."""
    with flow() as test:
        mismatches = []
        for rule in (murmur2, crc, murmur2):
            for _ in range(2 * RECORDS // 40):
                send(test, Paid, murmur2, keys=40)
                send(test, Login, rule, keys=40)
                test.run()
                test.clock.advance(1.1)
            mismatches.append(test.worker.metrics.value("streamer_partitioner_mismatch"))
    assert mismatches == [0, 1, 0]


@pytest.mark.parametrize(
    ("count", "rule", "verdict"), [(4, MURMUR2, MURMUR2), (3, CRC32, CRC32), (1, MURMUR2, None), (16, "x", ANOTHER)]
)
def test_verdicts(count: int, rule: str, verdict: str | None) -> None:
    keys = [f"key-{n}".encode() for n in range(200)]
    places = partitions(keys, count).tolist() if rule == MURMUR2 else [crc32(key) % count for key in keys]
    places = [n % count for n in range(200)] if rule == "x" else places
    tally = Tally(count)
    tally.add([None, b"", *keys[:150], *keys], [0, 0, *places[:150], *places])  # without a key, or an empty one: anywhere
    assert (tally.verdict, tally.records, len(tally.seen)) == (verdict, 350, 200)
