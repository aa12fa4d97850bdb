"""Doubt: may a request of the last transaction still be on its way?

After the loss of a connection the client sends a request again by itself. Its first copy may then arrive inside the *next*
transaction and end that, or set its offsets back (KAFKA-17754; the client lacks KIP-890, with which a broker would refuse it).
A new producer with the same id makes the broker refuse whatever the old one sent.

Two rules say when. The one that needs no signal is time: a resend waits, so a request that was answered sooner was sent once.
The others are what the client tells of its connections to the coordinators; that comes late, and beside the first.
"""

import orjson
from confluent_kafka import KafkaError

from streamer.limits import DOUBT_AFTER_S

# The client's connection to the coordinator of transactions bears this name in its statistics, that of a group its broker's.
_TRANSACTIONS = "TxnCoordinator"
_OFFSETS = "TxnOffsetCommit"
# So the client describes a connection that had carried something when it broke.
_WAS_UP = "in state UP"
# What is told of topics is most of the text, and stands behind what is told of brokers.
_BROKERS_END = ', "topics":'


class Doubt:
    """What is known of the requests of one producer.

    Attributes:
        reason: short code for the metric, None while there is no doubt.
        what: the reason in words.
    """

    __slots__ = ("_before", "_ended", "_now", "_open", "reason", "what")

    def __init__(self) -> None:
        self.reason: str | None = None
        self.what = ""
        self._open = self._ended = False
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def opened(self) -> None:
        """A transaction begins: what happened to connections before concerns none of its requests."""
        self._open, self._ended, self._before = True, False, self._now

    def ended(self) -> None:
        """It has ended; the next statistics may still tell of it, and no later ones."""
        self._ended = True

    def took(self, what: str, seconds: float) -> None:
        """A request was answered after so long; enough for a second copy?"""
        if seconds > DOUBT_AFTER_S:
            self._note("slow", f"{what} took {seconds * 1e3:.0f} ms")

    def failed(self, what: str, error: KafkaError) -> None:
        """A request got no answer and is sent again."""
        self._note("retried", f"{what}: {error.str()}")

    def error(self, error: KafkaError) -> None:
        """The client tells of an error; the callback of that name. Connections that never came up carried nothing."""
        if self._open and (error.code() == KafkaError._ALL_BROKERS_DOWN or _WAS_UP in error.str()):  # noqa: SLF001
            self._note("error", error.str())

    def statistics(self, text: str) -> None:
        """The client tells of its connections; the callback of that name.

        Counted are the connections to coordinators: closed and timed out. A retry after an answer is none of it, since then
        nothing is on its way; and these are part of every day.
        """
        self._now = _breaks(text)
        for broker, breaks in self._before.items() if self._open else ():
            # Fewer, or none: the client has begun anew with this broker.
            if self._now.get(broker) != breaks:
                self._note("connection", f"the connection to {broker} broke")
        if self._ended:
            self._open = False

    def _note(self, reason: str, what: str) -> None:
        if self.reason is None:
            self.reason, self.what = reason, what


def _breaks(text: str) -> dict[str, int]:
    """Coordinator -> how often the connection to it broke, by the client's statistics."""
    brokers = orjson.loads(text.partition(_BROKERS_END)[0] + "}")["brokers"]
    return {
        name: broker["disconnects"] + broker["req_timeouts"]
        for name, broker in brokers.items()
        if name == _TRANSACTIONS or broker["req"].get(_OFFSETS)
    }
