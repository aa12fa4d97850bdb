"""A producer as `streamer feed` knows it."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from streamer.clock import ManualClock


class FakeProducer:
    """A producer with a small queue; time passes while it is polled."""

    def __init__(self, clock: ManualClock, room: int = 10_000, refuse_every: int = 0) -> None:
        self.clock, self.room, self.refuse_every = clock, room, refuse_every
        self.waiting: list[tuple[Any, ...]] = []
        self.sent: list[tuple[float, bytes | None, bytes | None]] = []
        self.most_waiting = 0

    def produce(self, topic: str, value: bytes | None, key: bytes | None, on_delivery: Callable[..., None]) -> None:
        if len(self.waiting) >= self.room:
            raise BufferError
        self.waiting.append((value, key, on_delivery))
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        self.sent.append((self.clock.monotonic(), key, value))

    def poll(self, timeout: float) -> None:
        self.clock.advance(timeout)
        for number, (_, _, on_delivery) in enumerate(self.waiting, len(self.sent) - len(self.waiting) + 1):
            refused = self.refuse_every and number % self.refuse_every == 0
            on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT) if refused else None, None)
        self.waiting.clear()

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return 0
