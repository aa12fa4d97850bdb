"""A broker inside this process: the mock cluster of librdkafka. Enough to show the service, not to trust it with data."""

from types import TracebackType
from typing import Self

from streamer.kafka.clients import KafkaClients

NOTICE = "Embedded broker: in memory, not durable, not exactly-once (--broker real is)"
# A fetch that finds nothing is answered only when this is over, whatever arrives meanwhile.
CONSUMER_CONFIG: dict[str, str | int | float | bool] = {"fetch.wait.max.ms": 10}
_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """Lives as long as the block. Each topic has 4 partitions, of which the newest 5 MiB are kept.

    It takes transactions but forgets their offsets, shows aborted records, never fences, and creates a topic when it is
    asked about one.
    """

    bootstrap = ""

    def __enter__(self) -> Self:
        # This handle owns the cluster and must outlive all clients.
        self._owner = KafkaClients().producer({"test.mock.num.brokers": 1, "bootstrap.servers": "embedded"})
        brokers = self._owner.list_topics(timeout=_TIMEOUT_S).brokers.values()
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        return self

    def create(self, topics: list[str]) -> None:
        """Make topics; asking is enough."""
        for topic in topics:
            self._owner.list_topics(topic, timeout=_TIMEOUT_S)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._owner
