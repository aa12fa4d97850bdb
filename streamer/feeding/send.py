"""Rows into a topic at their pace; a full producer queue makes the feed wait, and every delivery is accounted for."""

from collections.abc import Callable, Iterable
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer.clock import Clock
from streamer.feeding.pace import Pace

# Rows due within this go together: shorter waits than a millisecond are spent polling anyway.
_EARLY_S = 0.001
# Long enough to sleep, short enough to notice a stop.
_WAIT_S = 0.1
_FLUSH_TIMEOUT_S = 30.0
# Delivery reports are served at least every so many rows.
_POLL_EVERY = 256


class Sendable(Protocol):
    """A record that knows its time: a `Row`, or a bad record on purpose."""

    @property
    def time_us(self) -> int:
        """Event time, microseconds."""

    @property
    def key(self) -> bytes | None:
        """Record key."""

    @property
    def value(self) -> bytes | None:
        """Record value."""


class Feeder:
    """Sends rows and counts what became of them.

    Args:
        producer: see `kafka.producer_config`.
        topic: where rows go.
        clock: measures the pace.
        hold: asked before a row goes; while it says True the feed waits.
        stopped: ends the feed early when it says True.

    Attributes:
        sent: rows handed to the producer.
        delivered: rows the broker has.
        failed: rows it refused or never answered for.
        last_error: why the last one failed.
    """

    def __init__(
        self,
        producer: Producer,
        topic: str,
        clock: Clock,
        *,
        hold: Callable[[], bool] = lambda: False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._producer, self._topic, self._clock = producer, topic, clock
        self._hold, self._stopped = hold, stopped
        self.sent = self.delivered = self.failed = 0
        self.last_error = ""

    def feed(self, rows: Iterable[Sendable], pace: Pace) -> None:
        """Send all rows and wait until the broker has them, also when reading them fails."""
        start, first_us = self._clock.monotonic(), None
        try:
            for number, row in enumerate(rows):
                first_us = row.time_us if first_us is None else first_us
                if not self._waited_until(start + pace.due_s(number, row.time_us - first_us)):
                    return
                self._send(row.key, row.value)
                if number % _POLL_EVERY == 0:
                    self._producer.poll(0)
        finally:
            self.finish()

    def _send(self, key: bytes | None, value: bytes | None) -> None:
        """Hand one record to the producer, waiting while its queue is full."""
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._reported)
            except BufferError:
                self._producer.poll(_WAIT_S)
                continue
            except KafkaException as error:  # larger than the producer takes, which no broker is asked about
                self._reported(error.args[0], None)
            self.sent += 1
            return

    def finish(self) -> None:
        """Wait for the last deliveries; what has no answer by then has failed."""
        deadline = self._clock.monotonic() + _FLUSH_TIMEOUT_S
        while (left := self._producer.flush(_WAIT_S)) and self._clock.monotonic() < deadline:
            pass
        if left:
            self.failed += left
            self.last_error = f"no answer within {_FLUSH_TIMEOUT_S:g} s"

    def _waited_until(self, due: float) -> bool:
        """Whether the row may go; False when the feed was stopped."""
        while not self._stopped():
            left = _WAIT_S if self._hold() else due - self._clock.monotonic()
            if left < _EARLY_S:
                return True
            self._producer.poll(min(left, _WAIT_S))
        return False

    def _reported(self, error: KafkaError | None, _message: Message | None) -> None:
        if error is None:
            self.delivered += 1
        else:
            self.failed += 1
            self.last_error = error.str()
