"""A real Apache Kafka on this machine without containers: jars through Maven, any Java 17+, one KRaft node.

Read in this order: `java` (which Java), `jars` (which Kafka, cached), `config` (how the node is set up),
`process` (ports, the guard of the child), `dev` (the broker itself), `detached` (one that outlives a shell).
"""

from streamer.dev_broker.dev import DevBroker
from streamer.dev_broker.errors import BrokerError, BrokerUnavailableError

__all__ = ["BrokerError", "BrokerUnavailableError", "DevBroker"]
