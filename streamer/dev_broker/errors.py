"""Two ways the development broker fails: it cannot be had here, or it was had and does not run."""

from streamer.errors import StreamerError


class BrokerError(StreamerError):
    """The broker does not start, answer or stop; the message carries the end of its log."""


class BrokerUnavailableError(BrokerError):
    """Java, Maven or Kafka's jars cannot be had on this machine; the message names the fix."""
