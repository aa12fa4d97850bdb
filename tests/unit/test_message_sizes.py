"""Records larger than their topic takes are known before they are sent: dead letters that fit, whoever takes how little."""

import hashlib
from collections.abc import Mapping

import pytest

from streamer import Event, Model, Topology, limits, tumbling
from streamer.changelog.snapshot import CHUNK, MANIFEST
from streamer.errors import TopicError
from streamer.kafka.memory_log import BATCH_BYTES, MemoryLog, Record
from streamer.limits import LETTER_BYTES_MIN, MESSAGE_BYTES_DEFAULT, REKEY_ROOM_BYTES
from streamer.testing import constant
from tests.kit import flows, rekeyed
from tests.kit.flows import send
from tests.kit.inside import InsideTest
from tests.kit.labelled import FLOW, MATCHED, UNMATCHED, Label, Scored
from tests.kit.schemas import headers, problems

LONG, SHORT = "k" * 400, "s"
GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])


def flow(sizes: Mapping[str, int], **settings: object) -> InsideTest:
    return InsideTest(flows.topology(), models=flows.score, partitions=1, message_bytes_max=sizes, settings=settings)


def size(record: Record) -> int:
    """As a broker counts it."""
    of_headers = sum(len(name) + len(text or b"") for name, text in record.headers)
    return BATCH_BYTES + len(record.key or b"") + len(record.value or b"") + of_headers


def fits(log: MemoryLog, topic: str) -> bool:
    records = log.committed_records(topic)
    return bool(records) and all(size(record) <= log.takes(topic) for record in records)


def said(letter: Record) -> tuple[str, str]:
    found = headers(letter)
    assert problems("dead_letter", found) == []
    return found["streamer.error.stage"], found["streamer.error.reason"]


@GUARANTEES
@pytest.mark.parametrize("topic", [flows.PREDICTIONS, flows.ANOMALIES])
def test_a_result_that_its_topic_would_not_take_is_a_dead_letter_and_its_neighbours_are_not(topic: str, guarantee: str) -> None:
    with flow({topic: 900}, guarantee=guarantee) as test:
        for key in (SHORT, LONG, SHORT):
            send(test, range(3), key)
        predictions, letters = test.read(flows.PREDICTIONS), test.read_records(flows.DEAD_LETTERS)
        anomalies = test.read(flows.ANOMALIES)
        assert fits(test.log, topic)
        # Its sample is in the window all the same, as that of every row that is refused behind it.
        assert [row["window_n"] for row in predictions] == [1, 2, 3, 3, 3, 3]
        assert {row["key"] for row in predictions} == {SHORT}
        assert len(anomalies) == sum(row["flag"] for row in predictions)
        assert [said(letter) for letter in letters] == [("produce", "too_large")] * 3
        assert [letter.key for letter in letters] == [LONG.encode()] * 3
        assert topic in headers(letters[0])["streamer.error.detail"]
        assert "max.message.bytes" in headers(letters[0])["streamer.error.detail"]
        metrics = test.worker.metrics
        assert (metrics.value("streamer_records_total", "predicted"), metrics.value("streamer_records_total", "dead")) == (6, 3)
        assert metrics.value("streamer_recoveries_total") == 0


def test_what_just_fits_is_sent() -> None:
    """Byte by byte around the limit: what we send the log takes, and not much that it would take is refused."""
    largest = dict[int, int]()
    for keys in range(300, 520, 11):
        with flow({flows.PREDICTIONS: 1200}) as test:
            send(test, range(1), "k" * keys)
            test.run()
            for record in test.log.committed_records(flows.PREDICTIONS):
                largest[keys] = size(record)
    assert 0 < len(largest) < 20
    assert 1200 - 160 < max(largest.values()) <= 1200


@pytest.mark.parametrize("most", [LETTER_BYTES_MIN, 3_000, MESSAGE_BYTES_DEFAULT])
@pytest.mark.parametrize("key", [SHORT, LONG, "k" * 5_000])
def test_a_dead_letter_is_cut_to_what_its_topic_takes(most: int, key: str) -> None:
    value = b"{" + b"x" * 100_000
    with flow({flows.DEAD_LETTERS: most}) as test:
        test.send_bytes(flows.SOURCE, key.encode(), value)
        send(test, range(1))
        (letter,) = test.read_records(flows.DEAD_LETTERS)
        assert len(test.read(flows.PREDICTIONS)) == 1
        assert fits(test.log, flows.DEAD_LETTERS)
        assert test.worker.metrics.value("streamer_recoveries_total") == 0
    assert said(letter) == ("decode", "invalid_json")
    found, kept, key_kept = headers(letter), letter.value or b"", letter.key or b""
    assert value.startswith(kept)
    assert key.encode().startswith(key_kept)
    assert found["streamer.error.truncated"] == str(len(value))
    assert found["streamer.error.digest"] == "sha256:" + hashlib.sha256(value).hexdigest()
    assert size(letter) > min(most, 64 * 1024) - 500  # and not shorter than it has to be


def test_a_topic_without_room_for_the_reason_is_refused_at_the_start() -> None:
    with pytest.raises(TopicError, match=f"{flows.DEAD_LETTERS} takes records of 500 bytes"):
        flow({flows.DEAD_LETTERS: 500})


@GUARANTEES
def test_a_late_record_is_cut_to_what_its_topic_takes(guarantee: str) -> None:
    class Noted(Event, topic="in", key="id", time="ts"):
        id: str
        ts: float
        value: float
        note: str = ""

    topology = (
        Topology("late").source(Noted, dead_letters="dead").window(tumbling("10s")).features(lambda w: {"m": w.mean("value")})
        .infer(Model("any")).publish(predictions="out", late_events="late")
    )  # fmt: skip
    sizes = {"late": 2_000}
    given = dict[str, object](guarantee=guarantee)
    with InsideTest(topology, models=constant(0.0), partitions=1, message_bytes_max=sizes, settings=given) as t:
        t.send(Noted("a", t.now, 1.0))
        t.clock.advance(100)
        t.send(Noted("a", t.now, 1.0))
        t.send(Noted("a", t.now - 90, 1.0, "n" * 10_000))
        (record,) = t.read_records("late")
        assert size(record) <= 2_000
        assert headers(record)["streamer.error.reason"] == "late"
        assert t.worker.metrics.value("streamer_recoveries_total") == 0


@GUARANTEES
def test_a_record_too_large_for_the_internal_topic_is_a_dead_letter(guarantee: str) -> None:
    sizes = {rekeyed.INTERNAL: REKEY_ROOM_BYTES + 1_000}
    with InsideTest(
        rekeyed.topology(), models=rekeyed.score, partitions=2, message_bytes_max=sizes, settings={"guarantee": guarantee}
    ) as test:
        padded = rekeyed.payment("t1", 1.0, test.now)
        padded += b" " * (1_500 - len(padded))
        for value in (rekeyed.payment("t1", 2.0, test.now), padded, rekeyed.payment("t2", 3.0, test.now)):
            test.send_bytes(rekeyed.SOURCE, b"c", value)
        assert len(test.read(rekeyed.PREDICTIONS)) == 2
        (letter,) = test.read_records(rekeyed.DEAD_LETTERS)
        assert said(letter) == ("produce", "too_large")
        assert (letter.key, letter.value) == (b"c", padded)
        assert [worker.metrics.value("streamer_recoveries_total") for worker in test.workers] == [0, 0]


@pytest.mark.parametrize("topic", [MATCHED, UNMATCHED])
def test_a_pair_that_its_topic_would_not_take_is_a_dead_letter_with_the_prediction(topic: str) -> None:
    with InsideTest(FLOW, partitions=1, message_bytes_max={topic: 700}) as test:
        start = test.now
        for key in ("p1", "p2"):
            test.send(Scored("i" * (600 if key == "p2" and topic == UNMATCHED else 5), key, start, 0.75, True), step="0s")
        if topic == MATCHED:
            test.send(Label("p1", start + 1, True, "r"), step="0s")
            test.send(Label("p2", start + 1, True, "r" * 600), step="0s")
        else:
            test.clock.advance(15 * 86_400)
        (row,) = test.read(topic)
        (letter,) = test.read_records("scored.dead")
        assert row["key"] == "p1"
        assert said(letter) == ("produce", "too_large")
        assert letter.key == b"p2"
        assert b'"score":0.75' in (letter.value or b"")
        metrics = test.worker.metrics
        outcome = "matched" if topic == MATCHED else "unmatched"
        assert (metrics.value("streamer_records_total", outcome), metrics.value("streamer_records_total", "dead")) == (1, 1)
        assert metrics.value("streamer_recoveries_total") == 0


def test_the_log_of_the_tests_refuses_what_a_broker_would() -> None:
    """And a transaction that holds such a record cannot be committed, which rolls it back."""
    with flow({}) as test:
        test.log.message_bytes_max[flows.PREDICTIONS] = 100
        send(test, range(1))
        for _ in range(50):
            test.worker.turn()
            test.worker.let_commit(1.0)
            test.clock.advance(0.005)
        assert test.log.committed_records(flows.PREDICTIONS) == []
        assert test.worker.metrics.value("streamer_recoveries_total") > 0


def test_where_the_limits_may_not_be_read_the_default_of_a_broker_is_taken() -> None:
    with flow({flows.PREDICTIONS: 900}) as test:
        test.log.undescribed |= {flows.PREDICTIONS, flows.DEAD_LETTERS}
        test.crash()
        send(test, range(1))
        assert len(test.read(flows.PREDICTIONS)) == 1


CHANGELOG = "flow-flow-window-changelog"


def test_state_is_cut_to_what_its_topic_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of many rows, chunks of base snapshots, and a restore from them."""
    monkeypatch.setattr(limits, "SNAPSHOT_BLOCKS_RATIO", 0)
    monkeypatch.setattr(limits, "SNAPSHOT_BLOCKS_MIN_BYTES", 1)
    keys = [f"{n:03}{hashlib.sha256(str(n).encode()).hexdigest()}" for n in range(150)]
    with flow({CHANGELOG: 4_000}) as test:
        for start in range(0, 150, 50):
            for key in keys[start : start + 50]:
                send(test, range(3), key)
            test.run()
        for key in keys[:40]:  # a snapshot goes out a little with each commit
            send(test, range(1), key)
            test.run()
        assert fits(test.log, CHANGELOG)
        records = test.log.committed_records(CHANGELOG)
        assert sum(record.key is None for record in records) > 5, "fifty new keys at once do not go into one record of this size"
        assert sum(record.key == CHUNK for record in records) > 2
        assert any(record.key == MANIFEST for record in records)
        test.crash()
        for key in keys:
            send(test, range(1), key)
        test.run()
        assert flows.judge(test.log).exactly_once
        assert test.worker.metrics.value("streamer_recoveries_total") == 0


def test_a_changelog_that_takes_no_row_is_refused_at_the_start() -> None:
    with pytest.raises(TopicError, match=f"{CHANGELOG} takes .* kafka-configs --alter --topic {CHANGELOG}"):
        flow({CHANGELOG: 1_500})


def test_what_could_not_wait_in_the_changelog_is_not_admitted() -> None:
    """A row cannot be cut; with the prediction in state its block would be refused for ever."""
    changelog = "labelled-labelled-match-changelog"
    with InsideTest(FLOW, partitions=1, message_bytes_max={changelog: 5_000}) as test:
        start = test.now
        for key, size in (("p1", 5), ("p2", 20_000), ("p3", 5)):
            test.send(Scored("i" * size, key, start, 0.75, True), step="0s")
            test.send(Label(key, start + 1, True, "r"), step="0s")
        test.send(Label("p1", start + 1, True, "r" * 20_000), step="0s")
        assert [row["key"] for row in test.read(MATCHED)] == ["p1", "p3"]
        (prediction,), (label,) = test.read_records("scored.dead"), test.read_records("labels.dead")
        assert (said(prediction), prediction.key) == (("window", "too_large"), b"p2")
        assert (said(label), label.key) == (("window", "too_large"), b"p1")
        assert changelog in headers(label)["streamer.error.detail"]
        assert fits(test.log, changelog)
        assert test.worker.metrics.value("streamer_recoveries_total") == 0
