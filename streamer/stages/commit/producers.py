"""The producers of a worker: one with transactions for everything, or two without."""

from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer.clock import Clock
from streamer.errors import StreamerError
from streamer.kafka.clients import Clients
from streamer.kafka.config import producer_config, transactional_config
from streamer.kafka.message_sizes import MessageSizes
from streamer.kafka.refusals import Refusals
from streamer.settings.settings import Settings
from streamer.stages.commit.doubt import Doubt
from streamer.stages.commit.requests import Requests

# No answer of these changes by waiting.
_REFUSALS = (
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
)
# A rolled-back batch is thrown out of the queue on purpose.
_PURGES = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001 - the names the binding gives them


@dataclass(slots=True)
class TransactionalProducer:
    """Where records go with transactions, and how far it is with them.

    Attributes:
        requests: the client, and what it asks for.
        ready: whether transactions may begin.
        waits_for: why that is not so yet.
        useless: whether only another producer helps.
        begun: whether a transaction is open.
    """

    requests: Requests
    ready: bool = False
    waits_for: str = ""
    useless: bool = False
    begun: bool = False

    @property
    def client(self) -> Producer:
        """The producer itself."""
        return self.requests.client

    @property
    def doubt(self) -> Doubt:
        """Whether a request of the last transaction may still be on its way."""
        return self.requests.doubt

    def open(self, timeout_s: float) -> bool:
        """Get ready for transactions; False when the coordinator did not allow it within `timeout_s`: call again.

        Also fences whoever held this transactional id, and ends what it left open.

        Raises:
            StreamerError: it never will.
        """
        if not self.ready:
            try:
                self.client.init_transactions(timeout_s)
            except KafkaException as failure:
                error = failure.args[0]
                if error.code() in _REFUSALS:
                    raise StreamerError(
                        f"transactions are refused: {error.str()}. streamer topics plan lists the rights that a worker needs"
                    ) from failure
                self.waits_for, self.useless = error.str(), error.fatal()
                return False
            self.ready = True
        return True


@dataclass(frozen=True, slots=True)
class PlainProducers:
    """Where records go without transactions.

    The changelog has a producer of its own: waiting for its records does not mean waiting for outputs that came later.

    Attributes:
        outputs, changelog: producers.
        undelivered: why records were not taken.
    """

    outputs: Producer
    changelog: Producer
    undelivered: list[KafkaError] = field(default_factory=list)

    def purge(self) -> None:
        """Throw away what was not sent."""
        for producer in (self.outputs, self.changelog):
            producer.purge()


MakeTransactional = Callable[[], TransactionalProducer]
MakePlain = Callable[[], PlainProducers]


def transactional(clients: Clients, settings: Settings, group: str, sizes: MessageSizes, clock: Clock) -> MakeTransactional:
    """Makes the producer of a worker, with batches of `sizes`.

    Nothing is reported of deliveries, for a commit fails instead.
    """
    # Once: the next producer must bear the same id, and so end what the last one left open.
    config = {**transactional_config(settings, group), **sizes.producer_config()}

    def make() -> TransactionalProducer:
        doubt = Doubt()
        client = clients.producer({**config, "error_cb": doubt.error, "stats_cb": doubt.statistics})
        return TransactionalProducer(Requests(client, doubt, clock))

    return make


# A record that is not taken ends the commit, and all since the last one is written again in its order: the client need not
# try again, so it need not be idempotent either. An idempotent client has at most five requests on their way, one for each
# partition of a batch, and with a sixth its thread spins until the broker has answered one.
_NO_RETRIES = {"enable.idempotence": False, "message.send.max.retries": 0}


def plain(clients: Clients, settings: Settings, sizes: MessageSizes, refusals: Refusals, *, forwards: bool) -> MakePlain:
    """Makes the producers of a worker, with batches of `sizes`; what they could not deliver is told to `refusals`.

    With `forwards` outputs are records of an internal topic, whose reader takes one that was overtaken for one it has seen:
    there a failed request must stop those behind it.
    """
    # A worker hands over whole batches: to wait for more would only make them late. Without any wait the client sends the
    # first record of each alone.
    config = {**producer_config(settings, linger_ms=0.02), **sizes.producer_config()}
    # Outputs are many: a report of each would cost as much as sending it. Of the changelog's few each is told, since a
    # snapshot must know where it lies.
    many = {**config, **({} if forwards else _NO_RETRIES), "delivery.report.only.error": True}

    def make() -> PlainProducers:
        undelivered = list[KafkaError]()

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() not in _PURGES:
                undelivered.append(error)
                refusals.note(error, message)

        outputs = clients.producer({**many, "on_delivery": report})
        return PlainProducers(outputs, clients.producer({**config, "on_delivery": report}), undelivered)

    return make
