"""A rebalance storm: guests that join the group of the service and leave it again, about one a second.

They are bare consumers that read and commit nothing, so that they can come and go faster than a worker starts. Prints one
JSON line with what happened to them: a guest that was never given a partition has not disturbed anybody.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, TopicPartition

from tests.faults.names import FLOWS, Names

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY_S = 1.0
STAYS_S = (1.0, 3.0)
POLL_S = 0.02
SERVED_MIN = 3
PATIENCE_S = 10.0
SECONDS_MAX = 60.0


@dataclass(slots=True)
class Guest:
    """One member for a moment."""

    consumer: Consumer
    until: float
    partitions: int = 0
    welcomed: bool = False

    def welcome(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self.partitions += len(partitions)
        self.welcomed = True

    def leaves(self, now: float) -> bool:
        """Whether its time is over. One that leaves before it was let in is waited for by a classic group until its session
        ends, and with a guest a second no rebalance would ever come to its end.
        """
        return now >= self.until and (self.welcomed or now >= self.until + PATIENCE_S)


def storm(bootstrap: str, names: Names, seconds: float, seed: int, protocol: str) -> list[Guest]:
    """Let guests come and go for this long, and longer until some were given partitions; returns all of them, gone."""
    dice = random.Random(f"storm {seed}")
    here: list[Guest] = []
    gone: list[Guest] = []
    start = time.monotonic()
    comes_at = start
    while True:
        now = time.monotonic()
        served = sum(guest.partitions > 0 for guest in (*here, *gone))
        blows = now < start + (seconds if served >= SERVED_MIN else SECONDS_MAX)
        if not here and not blows:
            return gone
        if blows and comes_at <= now:
            here.append(arrive(bootstrap, names, now + dice.uniform(*STAYS_S), protocol))
            comes_at = now + EVERY_S * dice.uniform(0.5, 1.5)
        for guest in list(here):
            guest.consumer.poll(POLL_S)
            if guest.leaves(now):
                here.remove(guest)
                guest.consumer.close()
                gone.append(guest)
        time.sleep(POLL_S)


def arrive(bootstrap: str, names: Names, until: float, protocol: str) -> Guest:
    settings: dict[str, Any] = {"bootstrap.servers": bootstrap, "group.id": names.group, "group.protocol": protocol}
    settings |= {"enable.auto.commit": False, "auto.offset.reset": "latest", "fetch.wait.max.ms": 50, "log_level": 2}
    if protocol == "classic":
        settings |= {"partition.assignment.strategy": "cooperative-sticky", "heartbeat.interval.ms": 250}
        settings |= {"session.timeout.ms": 6_000}
    guest = Guest(Consumer(settings), until)
    guest.consumer.subscribe([names.lead], on_assign=guest.welcome)
    return guest


def main() -> None:
    parser = argparse.ArgumentParser(description="Members join the group of a torture run and leave again.")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--flow", choices=FLOWS, default="rolling")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--protocol", choices=["classic", "consumer"], default="classic")
    args = parser.parse_args()
    guests = storm(args.bootstrap, Names(args.prefix, flow=args.flow), args.seconds, args.seed, args.protocol)
    served = sum(guest.partitions > 0 for guest in guests)
    sys.stdout.write(json.dumps({"guests": len(guests), "served": served}) + "\n")


if __name__ == "__main__":
    main()
