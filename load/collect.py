"""The reader at the end: takes every prediction, read_committed, and notes when it had it in hand."""

import time
from array import array
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray

from load.stats import Floats

IDLE_S = 0.1


@dataclass(frozen=True)
class Arrivals:
    """What a collector saw, one entry per prediction in order of arrival.

    Attributes:
        intended_s: the prediction's `time`: when its event was due to be sent (epoch seconds).
        received_s: when the collector had it (epoch seconds, same machine).
        partitions: partition of the event, out of the prediction's `id`.
        offsets: its offset.
    """

    intended_s: Floats
    received_s: Floats
    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def distinct(self) -> int:
        """How many different events were predicted."""
        return int(np.unique(self.partitions << 48 | self.offsets).size)


class Collector:
    """Reads all partitions of a predictions topic from the beginning."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "load-collector",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 5,
                "socket.nagle.disable": True,
            }
        )
        self._consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        self._intended, self._received = array("d"), array("d")
        self._partitions, self._offsets = array("q"), array("q")

    def turn(self) -> int:
        """Wait up to 100 ms for predictions and take what is there; returns how many."""
        batch = self._consumer.consume(1, IDLE_S)
        if not batch:
            return 0
        batch += self._consumer.consume(9_999, 0)
        now = time.time()
        values = [m.value() for m in batch if m.error() is None]
        for value in values:
            intended, partition, offset = parse(value or b"")
            self._intended.append(intended)
            self._partitions.append(partition)
            self._offsets.append(offset)
            self._received.append(now)
        return len(values)

    def arrivals(self) -> Arrivals:
        """Everything taken so far."""
        columns = (self._intended, self._received, self._partitions, self._offsets)
        return Arrivals(*(np.array(column) for column in columns))


def parse(value: bytes) -> tuple[float, int, int]:
    """Event time (s), partition and offset, cut out of a prediction's bytes: a third of the cost of JSON.

    Safe because the service writes `"id"` first and neither an id nor a key of ours contains a quote.

    Raises:
        ValueError: the bytes do not look like a prediction.
    """
    start = value.index(b'"id":"') + 6
    _, partition, offset = value[start : value.index(b'"', start)].rsplit(b"/", 2)
    start = value.index(b'"time":', start) + 7
    return float(value[start : value.index(b",", start)]), int(partition), int(offset)


def collect_into(pipe: Connection, collector: tuple[str, str, int], expected: int, quiet_s: float) -> None:
    """Body of the collector's process: says "ready", collects `expected` predictions, sends the `Arrivals`.

    Once told that everything was sent, it gives up after `quiet_s` seconds without a prediction.
    """
    reader = Collector(*collector)
    reader.turn()
    pipe.send("ready")
    seen, sent, newest = 0, False, time.monotonic()
    while seen < expected and not (sent and time.monotonic() - newest > quiet_s):
        if taken := reader.turn():
            seen, newest = seen + taken, time.monotonic()
        if not sent and pipe.poll():
            sent, newest = bool(pipe.recv()), time.monotonic()
    pipe.send(reader.arrivals())
