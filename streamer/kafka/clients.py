"""The seam to Kafka: who makes consumers and producers. Kafka in service, an in-memory log in `streamer.testing`."""

from typing import Any, Protocol

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from streamer.limits import COMMIT_STUCK_S, REST_AFTER_COMMIT_S, SILENCE_BETWEEN_POLLS_S
from streamer.telemetry.logs import get_logger

_log = get_logger("librdkafka")


class _ClientLog:
    """librdkafka's own lines join ours, in parts, instead of going to stderr as they are."""

    @staticmethod
    def log(level: int, _form: str, source: str, client: str, text: str) -> None:
        """Take a line; the client's binding calls this with its level, facility, the name of the client, and the text."""
        _log.log(level, "kafka_client", source=source, client=client, text=text)


CLIENT_LOGGER = _ClientLog()


class Clients(Protocol):
    """Makes the clients of a worker.

    Attributes:
        rest_after_commit_s: how long the coordinator behind them wants to be left alone after a commit.
        silence_between_polls_s: how much of the time between two polls counts as silence of an input.
        commit_stuck_s: how long a commit may take before it is left to itself.
    """

    rest_after_commit_s: float
    silence_between_polls_s: float
    commit_stuck_s: float

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A consumer with librdkafka's configuration keys."""

    def producer(self, config: dict[str, Any]) -> Producer:
        """A producer with librdkafka's configuration keys."""

    def admin(self, config: dict[str, Any], /) -> AdminClient:
        """An admin client with librdkafka's configuration keys."""


class KafkaClients:
    """Real clients."""

    rest_after_commit_s = REST_AFTER_COMMIT_S
    silence_between_polls_s = SILENCE_BETWEEN_POLLS_S
    commit_stuck_s = COMMIT_STUCK_S

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A consumer with librdkafka's configuration keys."""
        return Consumer(config | {"logger": CLIENT_LOGGER})

    def producer(self, config: dict[str, Any]) -> Producer:
        """A producer with librdkafka's configuration keys."""
        return Producer(config | {"logger": CLIENT_LOGGER})

    def admin(self, config: dict[str, Any]) -> AdminClient:
        """An admin client with librdkafka's configuration keys."""
        return AdminClient(config | {"logger": CLIENT_LOGGER})
