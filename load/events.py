"""The events offered: 71-byte JSON readings, encoded ahead so that sending them costs next to nothing.

Values follow a normal law around 20, so windows have a spread and the model has something to score.
"""

import time
from typing import Any

import numpy as np
from confluent_kafka import Producer

VALUE_BYTES = 71  # of an event without extra fields
TAILS = 65_536
ROUND = 262_144  # events (rounded up to the same number for every key) after which the order of keys repeats
MICROS = 1_000_000


class Readings:
    """Makes readings for `keys` sensors: event number -> record for `produce_batch`. Same seed, same events.

    With `work`, an event carries that integer too: how long the model shall run (`load/make_model.py`).
    With `hot_share`, this share of the events has the first key, and the others share the rest. `order` is when the order
    of keys repeats; with 1, every key comes once before any comes again.
    """

    def __init__(self, keys: int, seed: int = 7, hot_share: float = 0.0, order: int = ROUND) -> None:
        rng = np.random.default_rng(seed)
        names = [f"sensor-{i:05d}" for i in range(keys)]
        self._keys = [name.encode() for name in names]
        self._heads = [f'{{"sensor_id":"{name}","ts":'.encode() for name in names]
        values = np.clip(rng.normal(20.0, 2.0, TAILS), 10.0, 99.0)
        self._tails = [f',"value":{value:.8f}'.encode() for value in values]
        # Keys in random order, again and again: neighbours differ, every key gets its equal share.
        even = rng.permutation(np.repeat(np.arange(keys), -(-order // keys)))
        self._order: list[int] = np.where(rng.random(len(even)) < hot_share, 0, even).tolist()

    def record(self, number: int, time_us: int, work: int | None = None) -> dict[str, Any]:
        """Event `number` with event time `time_us` (microseconds since the epoch)."""
        key = self._order[number % len(self._order)]
        end = b"}" if work is None else b',"work":%d}' % work
        value = b"%s%d.%06d%s%s" % (
            self._heads[key],
            time_us // MICROS,
            time_us % MICROS,
            self._tails[number % TAILS],
            end,
        )
        return {"key": self._keys[key], "value": value}


def preload(bootstrap: str, topic: str, readings: Readings, events: int, work: int | None = None) -> None:
    """Write `events` readings a millisecond of event time apart, the newest now; waits until all are in.

    Raises:
        RuntimeError: the broker did not take them all within a minute.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "enable.idempotence": True,
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    newest_us = time.time_ns() // 1_000
    for start in range(0, events, 10_000):
        numbers = range(start, min(start + 10_000, events))
        records = [readings.record(n, newest_us - (events - n) * 1_000, work) for n in numbers]
        producer.produce_batch(topic, records)
        while len(producer) > 200_000:
            producer.poll(0.05)
    if left := producer.flush(60):
        raise RuntimeError(f"preload: {left} of {events} events were not taken by {bootstrap} within 60 s")
