"""The clients of a worker under test: those of the in-memory log."""

import math
from typing import Any, cast

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from streamer.kafka.memory_admin import MemoryAdmin
from streamer.kafka.memory_clients import MemoryConsumer, MemoryProducer
from streamer.kafka.memory_log import MemoryLog


class MemoryClients:
    """Makes clients of one log."""

    rest_after_commit_s = 0.0
    silence_between_polls_s = math.inf  # the test moves the clock in one step ...
    commit_stuck_s = math.inf  # ... also while a commit is under way, whose thread works in real time

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A consumer with librdkafka's configuration keys."""
        return cast("Consumer", MemoryConsumer(self._log, config))

    def producer(self, config: dict[str, Any]) -> Producer:
        """A producer with librdkafka's configuration keys."""
        return cast("Producer", MemoryProducer(self._log, config))

    def admin(self, _config: dict[str, Any]) -> AdminClient:
        """An admin client with librdkafka's configuration keys."""
        return cast("AdminClient", MemoryAdmin(self._log))
