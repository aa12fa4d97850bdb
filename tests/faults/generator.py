"""A process that offers events steadily, open loop, whatever the service does; it writes nothing but Kafka.

Beside the plain producer a transactional one writes its own keys and aborts every fifth batch, so that the
input has markers, gaps and records that were never committed: a prediction for one of those is an invention.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Producer

from tests.faults.cluster import Cluster, wait_for
from tests.faults.names import FLOWS, MISSING_SHARE, Names
from tests.faults.poison import Draft, Poisoner, good_value

if TYPE_CHECKING:
    from collections.abc import Sequence

AWKWARD_SENSORS = ("käse-☃", 'quo"te', "back\\slash", "new\nline", "com,ma", "{brace}", "a" * 180)
TRANSACTION_ROWS = 40
TRANSACTION_EVERY_S = 1.0
ABORT_EVERY = 5
TICK_S = 0.01
# A soak takes the broker away for minutes.
PATIENCE_S = 900
# Of the joined flow: records of the second topic for one of the first. There and where windows close, records lie back in
# time, in the latter some of them too far.
SECOND_SHARE = 0.5
DISORDER_MS = 400
LATE_SHARE, LATE_MS = 0.02, 2_500
GATES = 40
NO_HEADERS_SHARE = 0.3
SPIKE = 1e12
# A transaction cut by a broker's death must not hide the input behind it for the default minute.
SHORT = {"transaction.timeout.ms": 5_000, "message.timeout.ms": 4_000}


@dataclass(frozen=True, slots=True)
class Load:
    """What to offer: events in all, over how long, how many of them bad."""

    events: int
    seconds: float
    keys: int
    bad_share: float
    seed: int


class Sensors:
    """Seeded readings of Zipf-chosen sensors; the time of one sensor never goes back."""

    def __init__(self, load: Load, dice: random.Random) -> None:
        self._dice = dice
        plain = [f"sensor-{i}" for i in range(max(1, load.keys - len(AWKWARD_SENSORS)))]
        self.names = [*plain, *AWKWARD_SENSORS]
        dice.shuffle(self.names)
        self._weights = [1.0 / (rank + 1) ** 1.1 for rank in range(len(self.names))]
        self._levels = {name: dice.uniform(50.0, 150.0) for name in self.names}
        self._levels[self.names[0]] = 1e6

    def choose(self, count: int) -> list[str]:
        return self._dice.choices(self.names, self._weights, k=count)

    def value(self, sensor: str) -> float:
        """A reading: noise about a level, now and then a spike that must leave no trace after its window."""
        chance = self._dice.random()
        if chance < 0.001:
            return SPIKE * self._dice.choice((1.0, -1.0))
        if chance < 0.02:
            return float(self._dice.randrange(-500, 500))
        return round(self._dice.gauss(self._levels.get(sensor, 100.0), 10.0), 4)


def now_s() -> float:
    """The wall clock, cut as all times are."""
    return cut(time.time())


def cut(seconds: float) -> float:
    """Whole milliseconds, so that every reader gets the same microseconds."""
    return int(seconds * 1000.0) / 1000.0


class Generator:
    """Sends one load to one topic."""

    def __init__(self, bootstrap: str, names: Names, load: Load) -> None:
        shared = {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5}
        self._topic = names.input
        self._bootstrap, self._names = bootstrap, names
        self._load = load
        self._dice = random.Random(load.seed)
        self._sensors = Sensors(load, self._dice)
        self._poisoner = Poisoner(random.Random(load.seed + 1))
        self._plain = Producer({**shared, "enable.idempotence": True, "message.timeout.ms": PATIENCE_S * 1000})
        self._grouping = {**shared, "transactional.id": f"{names.prefix}-generator", **SHORT}
        self._grouped = self._new_grouped()
        self._transactions = 0
        self._offered_s = time.time()
        self.sent = self.aborted = 0
        self.stopping = False

    def run(self) -> None:
        """Offer the load at its rate until told to stop, then one reading of every sensor: each partition ends with data."""
        start = time.monotonic()
        next_transaction = TRANSACTION_EVERY_S
        while self.sent < self._load.events and not self.stopping:
            elapsed = time.monotonic() - start
            due = min(self._load.events, int(self._load.events * elapsed / self._load.seconds))
            self._offer(due - self.sent)
            if elapsed >= next_transaction:
                self._transaction()
                next_transaction += TRANSACTION_EVERY_S
            self._plain.poll(0)
            time.sleep(TICK_S)
        # A broker answers a commit before it writes the markers: what comes after them ends the log with data.
        cluster = Cluster(self._bootstrap, self._names)
        wait_for("the last markers", lambda: not cluster.open_transactions([self._topic]), 30.0, 0.02)
        ts = now_s()
        for topic in self._names.inputs:
            for sensor in self._sensors.names:
                value = good_value(sensor, ts, self._sensors.value(sensor))
                self._send(self._plain, [Draft(sensor.encode(), value)], topic)
        if self._plain.flush(30.0):
            raise SystemExit("the generator could not deliver its records within 30 s: is the broker up?")

    def _offer(self, count: int) -> None:
        """What came due since the last time, at the times when it did: a stall must not put minutes of events into one window."""
        since_s = self._offered_s
        self._offered_s = max(since_s, time.time())
        for number, sensor in enumerate(self._sensors.choose(max(0, count)), 1):
            ts = cut(since_s + (self._offered_s - since_s) * number / count)
            if self._names.flow not in {"joined", "closing"}:
                self._reading(self._topic, sensor, ts)
                continue
            self._reading(self._topic, sensor, self._back(ts))
            if self._names.flow == "joined" and self._dice.random() < SECOND_SHARE:
                self._reading(self._names.second, sensor, self._back(ts))

    def _reading(self, topic: str, sensor: str, ts: float) -> None:
        if self._dice.random() < self._load.bad_share:
            self._send(self._plain, self._poisoner.draw(sensor, ts), topic)
        measured: float | None = self._sensors.value(sensor)
        if self._names.flow == "missing" and self._dice.random() < MISSING_SHARE:
            measured = None
        self._send(self._plain, [Draft(sensor.encode(), good_value(sensor, ts, measured))], topic)

    def _gate(self) -> bytes:
        """In the re-keyed flow the key of a record says where it came from."""
        return b"gate-%d" % self._dice.randrange(GATES) if self._names.flow == "rekeyed" else b""

    def _headers(self) -> list[tuple[str, str | bytes | None]]:
        """Where records are read as they are: none, or a number that counts, some of them twice, beside bytes that do not."""
        if self._names.flow != "raw" or self._dice.random() < NO_HEADERS_SHARE:
            return []
        gains: list[tuple[str, str | bytes | None]] = [
            ("gain", b"%d" % self._dice.randrange(-99, 99)) for _ in range(self._dice.randrange(1, 3))
        ]
        return [*gains, ("trace", self._dice.randbytes(8)), ("nothing", None)]

    def _back(self, ts: float) -> float:
        late = self._names.flow == "closing" and self._dice.random() < LATE_SHARE
        return (round(ts * 1000) - self._dice.randrange(DISORDER_MS) - late * LATE_MS) / 1000

    def _transaction(self) -> None:
        """One batch in a transaction of its own; every fifth is aborted and must leave no output."""
        ts = now_s()
        drafts = []
        for row in range(TRANSACTION_ROWS):
            sensor = f"grouped-{row % 8}"
            drafts.append(Draft(sensor.encode(), good_value(sensor, ts, self._sensors.value(sensor))))
        self._transactions += 1
        try:
            self._grouped.begin_transaction()
            self._send(self._grouped, drafts, self._topic, counted=False)
            self._grouped.flush(10.0)
            if self._transactions % ABORT_EVERY:
                self._grouped.commit_transaction(10.0)
                self.sent += len(drafts)
            else:
                self._grouped.abort_transaction(10.0)
                self.aborted += len(drafts)
        except KafkaException:
            # The broker died in between. A new producer ends whatever the old one left; the log tells what was committed.
            self._grouped.purge()
            self._grouped = self._new_grouped()

    def _new_grouped(self) -> Producer:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            producer = Producer(self._grouping)
            try:
                producer.init_transactions(10.0)
                return producer
            except KafkaException:
                if self.stopping or time.monotonic() > deadline:
                    raise

    def _send(self, producer: Producer, drafts: Sequence[Draft], topic: str, *, counted: bool = True) -> None:
        for draft in drafts:
            while True:
                try:
                    producer.produce(topic, key=self._gate() or draft.key, value=draft.value, headers=self._headers())
                    break
                except BufferError:
                    producer.poll(0.05)
            self.sent += counted


def main() -> None:
    parser = argparse.ArgumentParser(description="Offer seeded events to the torture topology, open loop.")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--flow", choices=FLOWS, default="rolling")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--bad-share", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    load = Load(args.events, args.seconds, args.keys, args.bad_share, args.seed)
    generator = Generator(args.bootstrap, Names(args.prefix, flow=args.flow), load)

    def stop(*_: object) -> None:
        generator.stopping = True

    signal.signal(signal.SIGTERM, stop)
    generator.run()
    sys.stdout.write(f"generator: {generator.sent} records sent, {generator.aborted} aborted\n")


if __name__ == "__main__":
    main()
