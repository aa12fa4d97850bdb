"""The producers of a worker: one with transactions for everything, or two without."""

from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer.errors import StreamerError
from streamer.kafka.clients import Clients
from streamer.kafka.config import producer_config, transactional_config
from streamer.kafka.message_sizes import MessageSizes
from streamer.kafka.refusals import DeliveryReport, Refusals
from streamer.settings.settings import Settings
from streamer.stages.commit.doubt import Doubt

# No answer of these changes by waiting.
_REFUSALS = (
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
)
# A rolled-back batch is thrown out of the queue on purpose.
_PURGES = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001 - the names the binding gives them


@dataclass(slots=True)
class Outlets:
    """Where records go, and what is known of it.

    Without transactions the changelog has a producer of its own: waiting for its records does not mean waiting for outputs
    that came later. With them both are the same.

    Attributes:
        outputs, changelog: producers.
        undelivered: why records were not taken; without transactions only, for a commit fails instead.
        doubt: whether a request of the last transaction may still be on its way.
        ready: whether transactions may begin; without transactions always.
        waits_for: why that is not so yet.
        useless: whether only another producer helps.
        begun: whether a transaction is open.
        refusals: are told why records were not taken.
    """

    outputs: Producer
    changelog: Producer
    undelivered: list[KafkaError] = field(default_factory=list)
    doubt: Doubt = field(default_factory=Doubt)
    ready: bool = True
    waits_for: str = ""
    useless: bool = False
    begun: bool = False
    refusals: Refusals | None = None

    def open(self, timeout_s: float) -> bool:
        """Get ready for transactions; False when the coordinator did not allow it within `timeout_s`: call again.

        Also fences whoever held this transactional id, and ends what it left open.

        Raises:
            StreamerError: it never will.
        """
        if not self.ready:
            try:
                self.outputs.init_transactions(timeout_s)
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

    @property
    def report(self) -> DeliveryReport | None:
        """What is to be told of each delivery; without transactions the producers report by themselves."""
        return self.refusals.report if self.refusals else None

    def purge(self) -> None:
        """Throw away what was not sent."""
        for producer in (self.outputs, self.changelog):
            producer.purge()


MakeOutlets = Callable[[], Outlets]


# A record that is not taken ends the commit, and all since the last one is written again in its order: the client need not
# try again, so it need not be idempotent either. An idempotent client has at most five requests on their way, one for each
# partition of a batch, and with a sixth its thread spins until the broker has answered one.
_NO_RETRIES = {"enable.idempotence": False, "message.send.max.retries": 0}


def outlets_of(
    clients: Clients, settings: Settings, group: str, sizes: MessageSizes, refusals: Refusals, *, forwards: bool
) -> MakeOutlets:  # fmt: skip
    """Makes the producers of a worker, with batches of `sizes`; what they could not deliver is told to `refusals`.

    With transactions nothing is reported, for a commit fails instead. With `forwards` outputs are records of an internal topic,
    whose reader takes one that was overtaken for one it has seen: there a failed request must stop those behind it.
    """
    if settings.guarantee == "exactly-once":
        # Once: the next producer must bear the same id, and so end what the last one left open.
        config = {**transactional_config(settings, group), **sizes.producer_config()}

        def make() -> Outlets:
            doubt = Doubt()
            producer = clients.producer({**config, "error_cb": doubt.error, "stats_cb": doubt.statistics})
            return Outlets(producer, producer, doubt=doubt, ready=False, refusals=refusals)

        return make

    # A worker hands over whole batches: to wait for more would only make them late. Without any wait the client sends the
    # first record of each alone.
    plain = {**producer_config(settings, linger_ms=0.02), **sizes.producer_config()}
    # Outputs are many: a report of each would cost as much as sending it. Of the changelog's few each is told, since a
    # snapshot must know where it lies.
    many = {**plain, **({} if forwards else _NO_RETRIES), "delivery.report.only.error": True}

    def make_two() -> Outlets:
        undelivered = list[KafkaError]()

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() not in _PURGES:
                undelivered.append(error)
                refusals.note(error, message)

        outputs = clients.producer({**many, "on_delivery": report})
        return Outlets(outputs, clients.producer({**plain, "on_delivery": report}), undelivered)

    return make_two
