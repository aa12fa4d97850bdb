"""How our clients are configured: the user's librdkafka keys with what the guarantees need laid on top."""

import uuid
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata

from streamer import limits
from streamer.clock import SystemClock
from streamer.errors import TopicError
from streamer.kafka.clients import KafkaClients
from streamer.settings.settings import Settings
from streamer.topology.topics import Topics

# Small requests leave at once, as with Java's client; librdkafka's default lets them wait for the last one's acknowledgement.
# Group of clients that read by hand: it is named, and nothing is committed in it.
READERS = "streamer-reader"
_SOCKET = {"socket.nagle.disable": True}


# Where waiting helps only if somebody does something, and what that is.
_HINTS = {
    KafkaError._RESOLVE: "check the name in bootstrap.servers, and how this machine resolves names;",  # noqa: SLF001 - the binding's
    KafkaError._AUTHENTICATION: "check sasl.mechanism, sasl.username and the password;",  # noqa: SLF001 - names are all
    KafkaError._SSL: "check security.protocol and the ssl.* keys;",  # noqa: SLF001 - private
}


def consumer_config(settings: Settings, group: str, *, ends: bool = False) -> dict[str, Any]:
    """Configuration of the group's consumer: explicit offsets, bounded prefetch, cooperative rebalancing.

    With `ends` the client tells when a partition has nothing more to read: inputs that meet need not wait for one then.
    """
    user = settings.consumer_config()
    config: dict[str, Any] = {
        "session.timeout.ms": 10_000,
        "partition.assignment.strategy": "cooperative-sticky",
        "queued.max.messages.kbytes": limits.PREFETCH_KIB_MAX,
        "queued.min.messages": 100_000,
        "fetch.max.bytes": limits.FETCH_BYTES_MAX,
        # The default of one second would stall the flow each time the local queue was full.
        "fetch.queue.backoff.ms": 20,
        # One request at a time asks a broker for all partitions. One that only now begins, after its restore, is not in the
        # request that waits there for news of the others: by default it would stand still for up to half a second.
        "fetch.wait.max.ms": 50,
        # A partition that is added is seen within this time, not within the five minutes that are the default.
        "topic.metadata.refresh.interval.ms": 10_000,
        **_SOCKET,
        **user,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": ends,
    }
    if user.get("group.protocol") == "consumer":
        # KIP-848: the broker assigns and owns the session.
        for key in ("session.timeout.ms", "partition.assignment.strategy", "heartbeat.interval.ms"):
            config.pop(key, None)
    return config


def producer_config(settings: Settings, linger_ms: float) -> dict[str, Any]:
    """Configuration of a producer without a transactional id; the user's own linger wins."""
    return {
        "linger.ms": linger_ms,
        "batch.num.messages": 10_000,
        "compression.type": "lz4",
        "queue.buffering.max.messages": limits.PRODUCER_QUEUE_ROWS_MAX,
        "queue.buffering.max.kbytes": limits.PRODUCER_QUEUE_KIB_MAX,
        "message.max.bytes": rekeyed_bytes_max(settings.record_bytes_max),
        "topic.metadata.propagation.max.ms": round(limits.TOPIC_UNKNOWN_AFTER_S * 1e3),
        **_SOCKET,
        **settings.producer_config(),
        # Java's and ours must send a key to the same partition; librdkafka's default does not.
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
    }


def rekeyed_bytes_max(record_bytes_max: int) -> int:
    """Size of the largest record that may go through an internal topic: the largest we read, and what stands in front of it."""
    return record_bytes_max + limits.REKEY_ROOM_BYTES


def transactional_config(settings: Settings, group: str) -> dict[str, Any]:
    """The output producer with transactions; the id is stable where the worker has a slot."""
    slot = settings.slot_name
    timeout_ms = int(limits.TRANSACTION_TIMEOUT_S * 1000)
    return {
        # Readers wait for the commit anyway, and that sends what is left. The fewer requests the better: five may be on their
        # way, and with a sixth the client's thread spins until the broker has answered one.
        **producer_config(settings, linger_ms=5),
        "transactional.id": f"{group}-{slot or uuid.uuid4()}",
        "transaction.timeout.ms": timeout_ms,
        "message.timeout.ms": timeout_ms - 1000,
        # A silent server must surface as a time-out of our call, not as a hidden resend of a commit.
        "socket.timeout.ms": timeout_ms + 100,
        # What was answered sooner was sent once: `stages.doubt` counts on it.
        "retry.backoff.ms": round(limits.RETRY_BACKOFF_S * 1e3),
        "retry.backoff.max.ms": round(2e3 * limits.RETRY_BACKOFF_S),
        "statistics.interval.ms": round(limits.STATISTICS_EVERY_S * 1e3),
    }


def reader_config(settings: Settings, *, committed: bool) -> dict[str, Any]:
    """A consumer without a group, for changelogs and tails."""
    user = settings.consumer_config()
    user.pop("group.instance.id", None)
    return {
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 20,
        "queued.max.messages.kbytes": limits.PREFETCH_KIB_MAX,
        **_SOCKET,
        # Of each partition a mebibyte at a time, as is the default: so those that are restored together advance together.
        "fetch.max.bytes": limits.FETCH_BYTES_MAX,
        **user,
        "group.id": READERS,
        "group.protocol": "classic",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed" if committed else "read_uncommitted",
    }


def cluster_is_embedded(admin: AdminClient) -> bool:
    """Whether the brokers are the mock cluster of librdkafka, which knows few requests; False when nobody answers."""
    try:
        return (admin.list_topics(timeout=15.0).cluster_id or "").startswith("mockCluster")
    except KafkaException:
        return False


def admin_config(settings: Settings) -> dict[str, Any]:
    """An admin client: connection and security. It speaks through the errors of its answers: nobody polls it for its log."""
    return {"log_level": 0, **settings.admin_config()}


def partitions_of(settings: Settings, topics: list[str]) -> dict[str, int | None]:
    """Number of partitions of each topic, None where it does not exist.

    Raises:
        TopicError: the cluster does not answer, with the reason as the client has it.
    """
    known = _metadata(settings).topics
    return {topic: len(known[topic].partitions) if topic in known else None for topic in topics}


def _metadata(settings: Settings) -> ClusterMetadata:
    """What the cluster says of itself, asked until somebody answers or it is clear that nobody will."""
    reasons: list[KafkaError] = []
    clock = SystemClock()
    admin = KafkaClients().admin({**admin_config(settings), "error_cb": reasons.append})
    started = clock.monotonic()
    while True:
        try:
            return admin.list_topics(timeout=1.0)
        except KafkaException as error:
            admin.poll(0.1)  # hands over what the client was told meanwhile
            waited = clock.monotonic() - started
            if waited > limits.NO_BROKER_S or (waited > limits.NOBODY_THERE_S and any(_hopeless(reason) for reason in reasons)):
                raise TopicError(_no_answer(settings, waited, reasons or [error.args[0]])) from error


def _hopeless(reason: KafkaError) -> bool:
    return reason.code() in _HINTS or reason.code() == KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - the binding's name


def _no_answer(settings: Settings, waited_s: float, reasons: list[KafkaError]) -> str:
    # What a name server or a broker says tells more than that all brokers are down, which follows from it.
    told = next((reason for reason in reasons if reason.code() in _HINTS), reasons[0])
    hint = _HINTS.get(told.code(), "is the broker up and its advertised listener reachable?")
    return f"no answer from {settings.bootstrap} within {waited_s:.0f} s ({told.str()}); {hint} streamer doctor looks closer"


# For who does not know which group the worker has.
CREATE = "streamer topics create, and the --group of this worker if it has one"


def create_command(settings: Settings) -> str:
    """The command that makes missing topics; with another group than the topology's name it must be said there too."""
    return "streamer topics create" + (f" --group {settings.group}" if settings.group else "")


def check_topics(settings: Settings, topics: Topics) -> int:
    """Hold the cluster against what a flow needs; returns the number of partitions that hold state.

    Raises:
        TopicError: a topic is missing, or inputs and changelog differ in their number of partitions.
    """
    found = partitions_of(settings, topics.all())
    missing = [name for name, partitions in found.items() if partitions is None]
    if missing:
        raise TopicError(f"missing on {settings.bootstrap}: {', '.join(missing)}. Create them with {create_command(settings)}")
    for name in topics.joined:
        if found[name] != found[topics.lead]:
            raise TopicError(apart(topics.lead, found[topics.lead], name, found[name]))
    if topics.changelog and found[topics.changelog] != found[topics.lead]:
        raise TopicError(
            f"{topics.lead} has {found[topics.lead]} partitions, its changelog {topics.changelog} has "
            f"{found[topics.changelog]}: keys have moved, and the kept windows no longer belong to their partitions. "
            "Run with a new --group (and streamer topics create) to start new windows from the input"
        )
    return found[topics.lead] or 0


def apart(lead: str, count: int | None, other: str, others: int | None) -> str:
    """What to say of two inputs whose partitions do not belong together."""
    return (
        f"{lead} has {count} partitions, {other}, which is joined to it, has {others}: records of one key must lie in "
        f"partitions of the same number. Give {other} {count} partitions and produce it with the same keys and partitioner "
        "(murmur2_random in librdkafka, the default of Java's clients), or copy it into a topic of that shape and join that"
    )
