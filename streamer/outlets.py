"""The producers of a worker: one with transactions for everything, or two without."""

from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from streamer.clients import Clients
from streamer.kafka import producer_config, transactional_config
from streamer.settings import Settings

DeliveryReport = Callable[[KafkaError | None, Message], None]


class Outlets(NamedTuple):
    """Where records go.

    Without transactions the changelog has a producer of its own: waiting for its records does not mean waiting for outputs
    that came later. With them both are the same.
    """

    outputs: Producer
    changelog: Producer

    def purge(self) -> None:
        """Throw away what was not sent."""
        for producer in self:
            producer.purge()


MakeOutlets = Callable[[DeliveryReport], Outlets]


def outlets_of(clients: Clients, settings: Settings, group: str) -> MakeOutlets:
    """Makes the producers of a worker; failed deliveries are reported to the function given.

    With transactions nothing is reported, for a commit fails instead.
    """
    if settings.guarantee == "exactly-once":
        # Once: the next producer must bear the same id, and so end what the last one left open.
        config = transactional_config(settings, group)

        def make(_: DeliveryReport) -> Outlets:
            producer = clients.producer(config)
            return Outlets(producer, producer)

        return make

    # A worker hands over whole batches: to wait for more would only make them late. Without any wait the client sends the
    # first record of each alone.
    plain = producer_config(settings, linger_ms=0.1)

    def make_two(report: DeliveryReport) -> Outlets:
        # Outputs are many: a report of each would cost as much as sending it. Of the changelog's few each is told, since a
        # snapshot must know where it lies.
        outputs = clients.producer({**plain, "on_delivery": report, "delivery.report.only.error": True})
        return Outlets(outputs, clients.producer({**plain, "on_delivery": report}))

    return make_two
