"""librdkafka's configuration keys: which exist, whose they are, which may be shown, which the service owns.

Facts as of librdkafka 2.16, taken from its own listing of properties.
"""

import difflib
from collections.abc import Mapping
from typing import Final, Literal

Section = Literal["common", "consumer", "producer"]
KafkaValue = str | int | float | bool

SECTIONS: Final[tuple[Section, ...]] = ("common", "consumer", "producer")


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The first three lists are the allow-list of what may be printed. A key that is in none of them is redacted.
_COMMON: Final = _keys(
    """
    allow.auto.create.topics api.version.fallback.ms api.version.request api.version.request.timeout.ms
    bootstrap.servers broker.address.family broker.address.ttl broker.version.fallback builtin.features
    client.dns.lookup client.id client.rack connections.max.idle.ms debug enable.metrics.push
    enable.random.seed enable.sasl.oauthbearer.unsecure.jwt enable.ssl.certificate.verification
    enabled_events https.ca.location internal.termination.signal log.connection.close log.queue
    log.thread.name log_level max.in.flight max.in.flight.requests.per.connection message.copy.max.bytes
    message.max.bytes metadata.broker.list metadata.max.age.ms metadata.recovery.rebootstrap.trigger.ms
    metadata.recovery.strategy plugin.library.paths receive.message.max.bytes
    reconnect.backoff.jitter.ms reconnect.backoff.max.ms reconnect.backoff.ms retry.backoff.max.ms
    retry.backoff.ms sasl.kerberos.keytab sasl.kerberos.min.time.before.relogin sasl.kerberos.principal
    sasl.kerberos.service.name sasl.mechanism sasl.mechanisms sasl.oauthbearer.assertion.algorithm
    sasl.oauthbearer.assertion.claim.aud sasl.oauthbearer.assertion.claim.exp.seconds
    sasl.oauthbearer.assertion.claim.iss sasl.oauthbearer.assertion.claim.jti.include
    sasl.oauthbearer.assertion.claim.nbf.seconds sasl.oauthbearer.assertion.claim.sub
    sasl.oauthbearer.assertion.file sasl.oauthbearer.assertion.jwt.template.file
    sasl.oauthbearer.assertion.private.key.file sasl.oauthbearer.client.credentials.client.id
    sasl.oauthbearer.client.id sasl.oauthbearer.grant.type sasl.oauthbearer.metadata.authentication.type
    sasl.oauthbearer.method sasl.oauthbearer.scope sasl.oauthbearer.sub.claim.name sasl.username
    security.protocol socket.blocking.max.ms socket.connection.setup.timeout.ms socket.keepalive.enable
    socket.max.fails socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes
    socket.timeout.ms ssl.ca.certificate.stores ssl.ca.location ssl.certificate.location
    ssl.cipher.suites ssl.crl.location ssl.curves.list ssl.endpoint.identification.algorithm
    ssl.engine.id ssl.engine.location ssl.key.location ssl.keystore.location ssl.providers
    ssl.sigalgs.list statistics.interval.ms topic.blacklist topic.metadata.propagation.max.ms
    topic.metadata.refresh.fast.cnt topic.metadata.refresh.fast.interval.ms
    topic.metadata.refresh.interval.ms topic.metadata.refresh.sparse
    """
)
_CONSUMER: Final = _keys(
    """
    auto.commit.enable auto.commit.interval.ms auto.offset.reset check.crcs
    consume.callback.max.messages coordinator.query.interval.ms enable.auto.commit
    enable.auto.offset.store enable.partition.eof fetch.error.backoff.ms fetch.max.bytes
    fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms fetch.wait.max.ms group.id
    group.instance.id group.protocol group.protocol.type group.remote.assignor heartbeat.interval.ms
    isolation.level max.partition.fetch.bytes max.poll.interval.ms max.poll.records offset.store.method
    offset.store.path offset.store.sync.interval.ms partition.assignment.strategy
    queued.max.messages.kbytes queued.min.messages session.timeout.ms share.acknowledgement.mode
    """
)
_PRODUCER: Final = _keys(
    """
    acks batch.num.messages batch.size compression.codec compression.level compression.type
    delivery.report.only.error delivery.timeout.ms enable.gapless.guarantee enable.idempotence linger.ms
    message.send.max.retries message.timeout.ms partitioner produce.offset.report
    queue.buffering.backpressure.threshold queue.buffering.max.kbytes queue.buffering.max.messages
    queue.buffering.max.ms queuing.strategy request.required.acks request.timeout.ms retries
    sticky.partitioning.linger.ms transaction.timeout.ms transactional.id
    """
)
# Keys whose value is a secret, may carry one (a command line, a URL, a free-form string) or is a whole file.
HIDDEN: Final = _keys(
    """
    https.ca.pem sasl.kerberos.kinit.cmd sasl.oauthbearer.assertion.private.key.passphrase
    sasl.oauthbearer.assertion.private.key.pem sasl.oauthbearer.client.credentials.client.secret
    sasl.oauthbearer.client.secret sasl.oauthbearer.config sasl.oauthbearer.extensions
    sasl.oauthbearer.token.endpoint.url sasl.password ssl.ca.pem ssl.certificate.pem ssl.key.password
    ssl.key.pem ssl.keystore.password
    """
)
SHOWN: Final = _COMMON | _CONSUMER | _PRODUCER

HOME: Final[Mapping[str, Section]] = {
    **dict.fromkeys(_COMMON, "common"),
    **dict.fromkeys(HIDDEN, "common"),
    **dict.fromkeys(_CONSUMER, "consumer"),
    **dict.fromkeys(_PRODUCER, "producer"),
}
"""Every key, with the section it belongs to: a key both clients understand lives in "common"."""

ALIASES: Final[Mapping[str, str]] = {
    "metadata.broker.list": "bootstrap.servers",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "sasl.mechanisms": "sasl.mechanism",
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
    "fetch.message.max.bytes": "max.partition.fetch.bytes",
    "queue.buffering.max.ms": "linger.ms",
    "message.send.max.retries": "retries",
    "compression.codec": "compression.type",
    "request.required.acks": "acks",
    "message.timeout.ms": "delivery.timeout.ms",
    "auto.commit.enable": "enable.auto.commit",
}
"""librdkafka's second names. Settings use one name per key, or a default under the other name would win."""

# What a guarantee rests on: the values that agree with it, and why another one is refused.
_OWNED: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "group.id": (frozenset(), "the group names the changelog and the transactions too; set `group` instead"),
    "transactional.id": (frozenset(), "it is built from the group and the slot; set `slot` instead"),
    "auto.offset.reset": (
        frozenset(),
        (
            "a silent jump over lost records is not exactly-once; set `start_from` for a new group "
            "and `on_lost_offsets` for offsets lost to retention"
        ),
    ),
    "enable.auto.commit": (
        frozenset({"false"}),
        "offsets are committed with the results they belong to, never by a timer",
    ),
    "enable.auto.offset.store": (
        frozenset({"false"}),
        "offsets are committed with the results they belong to, never on delivery",
    ),
    "isolation.level": (
        frozenset({"read_committed"}),
        "reading uncommitted records would score events that were rolled back",
    ),
    "enable.idempotence": (
        frozenset({"true"}),
        "without it a retry may write a result twice or out of order",
    ),
    "delivery.report.only.error": (frozenset(), "results are counted when their delivery is reported"),
    "acks": (frozenset({"all", "-1"}), "a result acknowledged by fewer replicas can be lost with a broker"),
    "partitioner": (
        frozenset({"murmur2_random"}),
        "the same key must land on the same partition as from Java clients, or windows fall apart",
    ),
}

ENVIRONMENT: Final[Mapping[str, str]] = {"KAFKA_" + key.replace(".", "_").replace("-", "_").upper(): key for key in HOME}
"""KAFKA_* name -> key. A table, because the rule cannot be undone: `log_level` and `log.queue` look alike."""


class Secret(str):
    """A string that reaches librdkafka as it is and whose `repr` (of dicts around it too) shows nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def canonical(key: str) -> str:
    """The one name settings use for `key`."""
    return ALIASES.get(key, key)


def sealed(config: Mapping[str, KafkaValue]) -> dict[str, KafkaValue]:
    """`config` with every value that is not on the allow-list wrapped as a Secret."""
    return {key: value if key in SHOWN else Secret(value) for key, value in config.items()}


def refusal(section: str, key: str, value: object) -> str | None:
    """Why `key = value` cannot stand in `[kafka.<section>]`, or None where it can."""
    if key not in HOME:
        return f"{key!r} is not a librdkafka key{did_you_mean(key, HOME)}"
    if not isinstance(value, (str, int, float, bool)):
        return f"{key!r} takes one value, not {type(value).__name__}; write a list as 'a,b,c'"
    home = HOME[key]
    if section != "common" and home not in ("common", section):
        return f"{key!r} is a {home} key; move it to [kafka.{home}]"
    agreeing, reason = _OWNED.get(canonical(key), (None, ""))
    if agreeing is not None and str(value).strip().lower() not in agreeing:
        return f"{key!r} cannot be set to {value!r}: {reason}"
    return None


def did_you_mean(name: str, known: Mapping[str, object] | frozenset[str]) -> str:
    """A clause for an error message: '; did you mean ...?', or nothing where no name is close."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
