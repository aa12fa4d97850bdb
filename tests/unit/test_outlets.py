"""At-least-once: outputs wait for those before them to be durable, not for the changelog that follows."""

import threading

import pytest
from confluent_kafka import Producer

from streamer.clock import ManualClock
from streamer.kafka.memory_log import MemoryLog
from streamer.kafka.message_sizes import MessageSizes
from streamer.kafka.refusals import Refusals
from streamer.settings.settings import Settings
from streamer.stages.commit.at_least_once import AtLeastOnce
from streamer.stages.commit.producers import plain
from tests.kit import flows
from tests.kit.faulty import FaultTest, FaultyClients, Script
from tests.kit.flows import send
from tests.kit.inside import InsideTest


@pytest.mark.parametrize(("flushed", "seen"), [("outputs", 3), ("changelog", 5)])
def test_what_a_commit_waits_for_holds_up_only_what_it_must(flushed: str, seen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(_timeout: float = 0) -> int:
        entered.set()
        assert go_on.wait(10.0), "nobody lets the flush end"
        return 0

    settings: dict[str, object] = {"guarantee": "at-least-once"}
    with InsideTest(flows.topology(), models=flows.score, partitions=1, settings=settings) as test:
        guarantee = test.worker._commit._guarantee
        assert isinstance(guarantee, AtLeastOnce)
        producers = guarantee._producers
        assert producers.outputs is not producers.changelog
        monkeypatch.setattr(getattr(producers, flushed), "flush", slow)
        send(test, range(3))
        while not entered.is_set():
            test.worker.turn()
            test.clock.advance(0.005)
        assert test.worker._commit.busy
        send(test, range(3, 5))
        for _ in range(5):
            test.worker.turn()
        assert len(test.log.committed_records(flows.PREDICTIONS)) == seen
        go_on.set()
        test.worker.let_commit(10.0)
        test.run()
        assert flows.judge(test.log).exactly_once


def test_a_new_producer_bears_the_id_of_the_one_it_replaces() -> None:
    with FaultTest(flows.topology(), models=flows.score, partitions=1) as test:
        test.script.fail_next("commit", "fatal")
        send(test, range(3))
        test.run()
        first, second = test.clients.producers
        assert first._id == second._id


@pytest.mark.parametrize("forwards", [False, True])
def test_without_transactions_only_the_last_outputs_may_overtake_each_other(forwards: bool) -> None:
    settings, made = Settings.load(None, bootstrap="nowhere:1", guarantee="at-least-once"), list[dict[str, object]]()

    class Notes(FaultyClients):
        def producer(self, config: dict[str, object]) -> Producer:
            made.append(config)
            return super().producer(config)

    clients = Notes(MemoryLog(1, ManualClock()), Script())
    plain(clients, settings, MessageSizes({}, 2**20, 10**6), Refusals(), forwards=forwards)()
    outputs, changelog = made
    assert changelog["enable.idempotence"] is True
    assert "message.send.max.retries" not in changelog
    # What is neither retried nor in a known order must not be either alone.
    assert (outputs["enable.idempotence"], outputs.get("message.send.max.retries")) == ((True, None) if forwards else (False, 0))
