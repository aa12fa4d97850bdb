"""The fact the doubt rule stands on: after a lost connection the client sends a request again no sooner than it was told.

Read in the client that is installed, whose next release may do otherwise: `streamer.stages.commit.doubt` would have to follow.
"""

import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from streamer.dev_broker import DevBroker
from streamer.kafka.config import consumer_config, transactional_config
from streamer.limits import DOUBT_AFTER_S
from streamer.settings.settings import Settings
from tests.conftest import TopicFactory
from tests.faults.proxy import Link, Proxy, Rule
from tests.faults.wire import Api, Request


class ResetOnce(Rule):
    """Resets the connection on which the first request of a kind comes; the broker does not get it."""

    def __init__(self, aim: Api) -> None:
        self._aim = aim
        self.came: list[float] = []

    async def request(self, link: Link, request: Request) -> None:
        if request.api == self._aim:
            self.came.append(time.monotonic())
            if len(self.came) == 1:
                link.reset()
                return
        await link.forward(request)


@pytest.mark.parametrize("aim", [Api.ADD_OFFSETS, Api.TXN_OFFSET_COMMIT, Api.END_TXN], ids=lambda aim: aim.name)
def test_no_request_of_a_transaction_is_sent_again_before_it_is_in_doubt(
    aim: Api, broker: DevBroker, make_topic: TopicFactory
) -> None:
    source, target, group = make_topic("in", 1), make_topic("out", 1), f"resend-{uuid.uuid4().hex[:8]}"
    with Proxy(broker.detour.advertised, broker.detour.port) as proxy:
        settings = Settings.load(None, bootstrap=proxy.bootstrap)
        consumer = Consumer(consumer_config(settings, group))
        producer = Producer(transactional_config(settings, group))
        try:
            consumer.subscribe([source])
            deadline = time.monotonic() + 20.0
            while not consumer.assignment():
                assert time.monotonic() < deadline, "no partition was assigned"
                consumer.poll(0.1)
            producer.init_transactions(20.0)
            for offset in (1, 2):  # the second on connections that have been up for a while
                producer.begin_transaction()
                producer.produce(target, b"x")
                producer.flush(10.0)
                if offset == 2:
                    proxy.rule = rule = ResetOnce(aim)
                producer.send_offsets_to_transaction([TopicPartition(source, 0, offset)], consumer.consumer_group_metadata(), 9.0)
                producer.commit_transaction()
        finally:
            consumer.close()
        first, second = rule.came
        assert second - first > DOUBT_AFTER_S
        assert proxy.errors == []
