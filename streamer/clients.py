"""The seam to Kafka: who makes consumers and producers. Kafka in service, an in-memory log in `streamer.testing`."""

import logging
from typing import Any, Protocol

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from streamer.limits import REST_AFTER_COMMIT_S

# librdkafka's own lines join ours instead of going to stderr as they are.
CLIENT_LOGGER = logging.getLogger("librdkafka")


class Clients(Protocol):
    """Makes the clients of a worker.

    Attributes:
        rest_after_commit_s: how long the coordinator behind them wants to be left alone after a commit.
    """

    rest_after_commit_s: float

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A consumer with librdkafka's configuration keys."""

    def producer(self, config: dict[str, Any]) -> Producer:
        """A producer with librdkafka's configuration keys."""

    def admin(self, config: dict[str, Any], /) -> AdminClient:
        """An admin client with librdkafka's configuration keys."""


class KafkaClients:
    """Real clients."""

    rest_after_commit_s = REST_AFTER_COMMIT_S

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A consumer with librdkafka's configuration keys."""
        return Consumer({**config, "logger": CLIENT_LOGGER})

    def producer(self, config: dict[str, Any]) -> Producer:
        """A producer with librdkafka's configuration keys."""
        return Producer({**config, "logger": CLIENT_LOGGER})

    def admin(self, config: dict[str, Any]) -> AdminClient:
        """An admin client with librdkafka's configuration keys."""
        return AdminClient(config)
