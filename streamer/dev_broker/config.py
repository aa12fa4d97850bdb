"""How the one node is set up: small internal topics, short time-outs, loopback only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SASL_MECHANISM = "SCRAM-SHA-512"

# What differs from Kafka's defaults, and why. Values are for one node that tests start, stop and kill.
QUICK: Mapping[str, str] = {
    # one node: every topic has one copy; few partitions are created on first use
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "2",
    # a mistyped topic is an error, and event time is bounded by the broker's own clock
    "auto.create.topics.enable": "false",
    "log.message.timestamp.type": "LogAppendTime",
    # groups form at once, and a dead member is noticed in seconds (classic and KIP-848)
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    # transactions of dead producers are looked for every second, not every ten
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # after kill -9 the controller waits this long before it lets the same node register again (default 9 s)
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # the cleaner's buffer is taken from the heap at start (default 128 MB)
    "log.cleaner.dedupe.buffer.size": "16777216",
}

LOG4J = """\
status = warn
shutdownHook = disable
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c)%n%throwable
# says when it gives up the end of a transaction, which then hangs (KAFKA-20734)
logger.markers.name = kafka.coordinator.transaction.TransactionMarkerChannelManager
logger.markers.level = info
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


@dataclass(frozen=True, slots=True)
class Detour:
    """One more plain listener, which tells clients the address of what stands in front of it: so they stay behind that.

    Attributes:
        advertised: port of what passes connections on.
        port: where it must pass them on to.
    """

    advertised: int
    port: int


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one node on 127.0.0.1; `sasl` and `detour` are None where those listeners are off."""

    plain: int
    controller: int
    sasl: int | None = None
    detour: Detour | None = None


@dataclass(frozen=True, slots=True)
class ScramUser:
    """The user of the SASL listener, created when the data folder is formatted. For development only."""

    name: str = "streamer"
    password: str = "streamer-secret"


def server_properties(ports: Ports, log_folder: Path, overrides: Mapping[str, str]) -> str:
    """The text of server.properties; `overrides` win over everything here."""
    listeners = [f"PLAINTEXT://127.0.0.1:{ports.plain}"]
    protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
    if ports.sasl is not None:
        listeners.append(f"SASL://127.0.0.1:{ports.sasl}")
        protocols.append("SASL:SASL_PLAINTEXT")
    advertised = list(listeners)
    if ports.detour is not None:
        listeners.append(f"DETOUR://127.0.0.1:{ports.detour.port}")
        advertised.append(f"DETOUR://127.0.0.1:{ports.detour.advertised}")
        protocols.append("DETOUR:PLAINTEXT")
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{ports.controller}",
        "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{ports.controller}"]),
        "advertised.listeners": ",".join(advertised),
        "listener.security.protocol.map": ",".join(protocols),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(log_folder),
        **QUICK,
        **(_scram() if ports.sasl is not None else {}),
        **overrides,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _scram() -> dict[str, str]:
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "listener.name.sasl.sasl.enabled.mechanisms": SASL_MECHANISM,
        f"listener.name.sasl.{SASL_MECHANISM.lower()}.sasl.jaas.config": login,
    }
