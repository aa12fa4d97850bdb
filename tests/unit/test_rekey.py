"""Another key for the events: origins, outcomes and order through the internal topic, whatever dies where."""

import json
from pathlib import Path

import pytest

from streamer import Event, FencedError, Model, Topology, TopologyError, rolling
from streamer.kafka.admin import acls
from streamer.operators.rekey import header
from streamer.planning.plan import bind
from streamer.settings.settings import Settings
from streamer.state import murmur2
from streamer.state.watermarks import MARK
from streamer.testing import stand_in
from streamer.testing.clients import MemoryClients
from streamer.topology.topics import topics_of
from streamer.worker.service import Service, service_of
from streamer.worker.worker import Worker
from tests.kit import rekeyed
from tests.kit.faulty import FaultTest, short_waits
from tests.kit.flows import origin
from tests.kit.inside import InsideTest
from tests.kit.rekeyed import Payment, payment

__all__ = ["short_waits"]

KEYS = (b"c1", None, b"", b"\xff\x00", b"c2" * 100)


def flow(partitions: int = 3, **settings: object) -> InsideTest:
    return InsideTest(rekeyed.topology(), models=rekeyed.score, partitions=partitions, settings=settings)


def send(test: InsideTest, numbers: range) -> None:
    """Payments of four terminals under all kinds of record keys, a bad one now and then."""
    for n in numbers:
        value = b"{" if n % 7 == 6 else payment(f"t{n % 4}", float(n), test.now)
        test.send_bytes(rekeyed.SOURCE, KEYS[n % len(KEYS)], value)


# ---------------------------------------------------------------------- the parts


@pytest.mark.parametrize(
    ("key", "hashed"),
    # From the tests of Kafka's own clients.
    [
        (b"kafka", 0xD067CF64), (b"giberish123456789", 0x8F552B0C), (b"1234", 0x9FC97B14), (b"234", 0xE7C009CA),
        (b"34", 0x873930DA), (b"4", 0x5A4B5CA1), (b"PreAmbleWillBeRemoved,ThePrePartThatIs", 0x78424F1C), (b"", 0x106E08D9),
    ],
)  # fmt: skip
def test_keys_go_where_kafka_puts_them(key: bytes, hashed: int) -> None:
    for count in (1, 3, 4, 1000):
        assert murmur2.partitions([b"x", key, b""], count).tolist()[1] == (hashed & 0x7FFFFFFF) % count
    assert murmur2.partitions([], 4).tolist() == []


def test_headers_come_back_as_they_were() -> None:
    heads = header.headers(4, 9)
    heads["partition"], heads["offset"] = [0, 8, 3, 1], [0, 2**60, 5, MARK]
    heads["timestamp_ms"], heads["watermark_us"] = 1_700_000_000_123, [-(2**63), 7, 2**62, 0]
    keys, values = [b"", b"\xff" * 500, None, None], [b"{}", b"x", b"", b""]
    written = header.write(heads, keys, values)
    read, ours = header.read(written)
    assert ours.all()
    assert (read == heads).all()
    assert header.split(read, written) == (keys, values)
    alike = header.write(heads[:2], [b"ab", b"cd"], [b"1", b"2"])
    assert header.split(header.read(alike)[0], alike) == ([b"ab", b"cd"], [b"1", b"2"])


def test_what_has_no_header_of_ours_is_told_apart() -> None:
    (good,) = header.write(header.headers(1, 1), [b"key"], [b"{}"])
    foreign = [None, b"", b"{}", b"R", good[:10], good[: header.HEADER.itemsize + 2], b"{" * 100, b"\0" * 100]
    _, ours = header.read([good, *foreign, good])
    assert ours.tolist() == [True, *[False] * len(foreign), True]


# ---------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("partitions", [1, 3])
def test_one_outcome_for_each_input_under_any_record_key(partitions: int) -> None:
    with flow(partitions) as test:
        send(test, range(60))
        test.run()
        assert rekeyed.judge(test.log) == []
        assert len(test.log.committed_records(rekeyed.PREDICTIONS)) == 52
        front, main = test.workers
        assert front.metrics.by_label("streamer_records_total") == {("rekeyed",): 52, ("dead",): 8}
        assert main.metrics.value("streamer_records_total", "predicted") == main.metrics.value("streamer_records_total") == 52


def test_a_key_is_one_window_wherever_its_events_came_from() -> None:
    with flow(8) as test:
        for n in range(24):
            test.send_bytes(rekeyed.SOURCE, f"card-{n}".encode(), payment("t", 1.0, test.now))
        rows = test.read(rekeyed.PREDICTIONS)
        assert {row["id"].split("/")[1] for row in rows} > {"0", "1"}
        assert [row["window_n"] for row in rows] == [1, 2, *[3] * 22]


def test_latency_runs_from_the_source_and_the_parts_sum_to_the_whole() -> None:
    with flow(1) as test:
        test.workers[1]._consume.hold([0])
        send(test, range(5))
        for _ in range(20):
            test.workers[0].turn()
            test.clock.advance(0.1)
        rows = test.read(rekeyed.PREDICTIONS)
        ledger = test.worker.metrics.ledger
        assert min(row["latency_ms"] for row in rows) >= 100
        assert ledger.parts["rekey"].total_s > 0
        assert ledger.parts["rekey"].rows == ledger.parts["broker"].rows == 5
        total = sum(part.total_s for part in ledger.parts.values())
        assert total == pytest.approx(ledger.end_to_end["event"].total_s, abs=1e-6)
        assert total - ledger.parts["source"].total_s == pytest.approx(ledger.end_to_end["record"].total_s, abs=1e-6)


def test_dead_letters_of_the_second_flow_name_the_source_and_hold_its_bytes() -> None:
    with flow(1) as test:
        test.send_bytes(rekeyed.SOURCE, b"card", payment("t0", 1.0, test.now))
        test.send_bytes(rekeyed.SOURCE, b"other", value := payment("t1", 2e39, test.now))
        (letter,) = test.read_records(rekeyed.DEAD_LETTERS)
        assert (origin(letter), letter.key, letter.value) == ("payments/0/1", b"other", value)
        assert dict(letter.headers)["streamer.error.reason"] == "number_out_of_range"


@pytest.mark.parametrize(("terminal", "reason"), [(None, "null_key"), ("t" * 513, "key_too_long"), ("é" * 256, None), ("", None)])
def test_what_cannot_be_a_key_is_a_dead_letter(terminal: str | None, reason: str | None) -> None:
    with flow(1) as test:
        test.send_bytes(rekeyed.SOURCE, None, payment(terminal, 1.0, test.now))
        test.send_bytes(rekeyed.SOURCE, None, payment("neighbour", 2.0, test.now))
        letters = test.read_records(rekeyed.DEAD_LETTERS)
        assert [dict(letter.headers)["streamer.error.reason"] for letter in letters] == ([reason] if reason else [])
        assert len(test.read(rekeyed.PREDICTIONS)) == 2 - len(letters)


def test_a_stranger_in_the_internal_topic_is_a_dead_letter() -> None:
    with flow(1) as test:
        send(test, range(3))
        test.log.append(rekeyed.INTERNAL, b"t0", b'{"terminal":"t0"}')
        send(test, range(3, 6))
        (letter,) = test.read_records(rekeyed.DEAD_LETTERS)
        assert origin(letter).rpartition("/")[0] == f"{rekeyed.INTERNAL}/0"
        assert dict(letter.headers)["streamer.error.reason"] == "not_rekeyed"
        assert (letter.key, letter.value) == (b"t0", b'{"terminal":"t0"}')
        assert len(test.read(rekeyed.PREDICTIONS)) == 6


def test_whole_numbers_are_keys_too() -> None:
    class Hit(Event, topic="hits", time="ts"):
        shop: int
        ts: float

    by_shop = (
        Topology("hits").source(Hit, dead_letters="bad").rekey("shop").window(rolling(count=2))
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions="out")
    )  # fmt: skip
    with InsideTest(by_shop, models=lambda columns: columns["n"][:, None]) as test:
        test.send(Hit(7, test.now), times=3)
        assert [(row["key"], row["window_n"]) for row in test.read("out")] == [("7", 1), ("7", 2), ("7", 2)]


# ---------------------------------------------------------------------- whatever dies


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("turns", range(1, 10))
def test_a_crash_in_the_middle_of_either_flow(turns: int, ahead: int) -> None:
    """One flow turns more often than the other, then both die; and once more."""
    with flow() as test:
        for part in range(3):
            send(test, range(20 * part, 20 * part + 20))
            for turn in range(turns):
                test.workers[ahead].turn()
                if turn % 2:
                    test.workers[1 - ahead].turn()
                test.clock.advance(0.008)
            test.crash()
        test.run()
        assert rekeyed.judge(test.log) == []


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("call", ["begin", "produce", "produce_batch", "produce_changelog", "offsets", "commit"])
@pytest.mark.parametrize("kind", ["abortable", "fatal", "lost_answer", "fenced", "full"])
def test_a_failing_transaction_of_either_flow(call: str, kind: str) -> None:
    for number in range(1, 6):
        with FaultTest(rekeyed.topology(), models=rekeyed.score, partitions=2) as test:
            test.script.faults[call, number] = kind
            for part in range(3):
                send(test, range(10 * part, 10 * part + 10))
                test.turns(3)
            test.settle(fail=True)
            assert rekeyed.judge(test.log) == []


# ---------------------------------------------------------------------- one process


def service(test: InsideTest) -> Service:
    plan = bind(rekeyed.topology(), Settings(), Path(), model=stand_in(rekeyed.score))
    return service_of(plan, Settings(), clients=MemoryClients(test.log), clock=test.clock)


def test_both_flows_stop_in_order() -> None:
    with flow() as test:
        running = service(test)
        assert running.live() is None
        assert running.ready() == "joining the group: it has not said yet which partitions are ours"
        running.stop()
        running.run()
        assert running._failures == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_flow_that_fails_ends_the_other_and_tells_why(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Worker) -> None:
        if self is running.workers[number]:
            raise FencedError("somebody else")
        self._stopping.wait(0.001)

    with flow() as test:
        running = service(test)
        monkeypatch.setattr(Worker, "turn", fail)
        with pytest.raises(FencedError, match="somebody else"):
            running.run()
        assert all(worker._stopping.is_set() for worker in running.workers)


def test_numbers_of_both_flows_are_shown_as_one() -> None:
    with flow() as test:
        send(test, range(20))
        test.run()
        running = service(test)
        for made, old in zip(running.workers, test.workers, strict=True):
            made.metrics = old.metrics
        for worker in test.workers:
            worker.metrics.set("streamer_paused", 1)
        samples = {(s.name, *s.labels.values()): s.value for family in running.metrics.collect() for s in family.samples}
        assert samples["streamer_records_total", "rekeyed"] == samples["streamer_records_total", "predicted"] == 18
        assert samples["streamer_records_total", "dead"] == 2
        assert samples["streamer_paused",] == 1
        commits = sum(worker.metrics.value("streamer_commits_total") for worker in test.workers)
        assert samples["streamer_commits_total",] == commits >= 2
        counted = [s.value for f in running.metrics.collect() for s in f.samples if s.name == "streamer_end_to_end_seconds_count"]
        assert 18 in counted


def test_names_of_groups_topics_and_rights() -> None:
    topics = topics_of(rekeyed.topology(), "g")
    assert topics.rekeyed == "g-flow-by-terminal"
    assert topics.all() == [
        "payments", "g-flow-by-terminal", "payments.dead", "payments.predictions", "g-flow-window-changelog",
    ]  # fmt: skip
    front, main = bind(rekeyed.topology(), Settings(group="g"), Path(), model=stand_in(rekeyed.score)).flows
    assert (front.group, main.group) == ("g-by-terminal", "g")
    rights = acls(topics, "g")
    for line in (
        "allow read,describe topic payments", "allow read,describe topic g-flow-by-terminal",
        "allow write,describe,describe_configs topic g-flow-by-terminal", "allow read group g-by-terminal", "allow read group g",
    ):  # fmt: skip
        assert line in rights


# ---------------------------------------------------------------------- mistakes


def mistaken(*, window: bool = True, max_drift: str = "1m", field: object = "terminal") -> Topology:
    found = Topology("flow").source(Payment, dead_letters="r").rekey(field, max_drift=max_drift)  # type: ignore[arg-type]  # mistakes
    if window:
        found = found.window(rolling(count=2))
    return found.features(lambda w: {"a": w.event("amount")}).infer(Model("m")).publish(predictions="p")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"field": 3}, ".rekey() takes the name of a field, not 3"),
        ({"field": "shop"}, "Payment has no such field; fields are card, terminal, ts, amount"),
        ({"field": "amount"}, "a key is text or a whole number"),
        ({"max_drift": "soon"}, "max_drift: "),
        ({"window": False}, "it is there for windows"),
    ],
)
def test_a_mistake_names_its_line(mistake: dict[str, object], message: str) -> None:
    with pytest.raises(TopologyError) as caught:
        bind(mistaken(**mistake), Settings(), Path(), model=stand_in(rekeyed.score))  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{__file__}:")


def test_a_key_that_differs_names_the_way_out() -> None:
    class Plain(Event, topic="plain", key="card"):
        card: str

    plain = (
        Topology("plain").source(Plain, dead_letters="bad").window(rolling(count=2))
        .features(lambda w: {"n": w.count}).infer(Model("m")).publish(predictions="out")
    )  # fmt: skip
    with InsideTest(plain, models=lambda columns: columns["n"][:, None]) as test:
        test.send_bytes("plain", b"other", json.dumps({"card": "a"}).encode())
        (letter,) = test.read_records("bad")
        assert ".rekey('card') behind .source()" in dict(letter.headers)["streamer.error.detail"]
