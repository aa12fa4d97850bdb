"""Which rule put the keys of an input on their partitions: inputs that meet by key must have the same, or they never meet.

Java's clients and we use murmur2, clients that are built on librdkafka (confluent-kafka, kcat) crc32 unless told otherwise. Which
of them explains where records lie is counted over the first keys of an input, and over a few of them a second from then on.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from zlib import crc32

from streamer.clock import Clock
from streamer.errors import TopicError
from streamer.rows.records import Records
from streamer.state.murmur2 import partitions as by_murmur2
from streamer.telemetry.logs import get_logger
from streamer.telemetry.metrics import Metrics

_log = get_logger(__name__)

MURMUR2, CRC32, ANOTHER = "murmur2", "crc32", "another"
RECORDS = 1000
"""Records with a key that are looked at for one verdict."""
_ROWS_AT_A_TIME, _EVERY_S = 64, 1.0
# So many keys that another rule explains all of them by chance once in a million times.
_CERTAIN = math.log(1e6)
# A few keys may come from somewhere else.
_SHARE = 0.95


@dataclass(slots=True)
class Tally:
    """Keys of one topic, and how many of them each rule explains.

    Attributes:
        count: partitions of the topic.
        seen: key and partition of each, once.
        records: how many were looked at.
    """

    count: int
    seen: set[tuple[bytes, int]] = field(default_factory=set)
    records: int = 0

    def add(self, keys: Iterable[bytes | None], partitions: Iterable[int]) -> None:
        """Look at records; those without a key, or an empty one, lie anywhere."""
        for key, partition in zip(keys, partitions, strict=True):
            if key:
                self.seen.add((key, partition))
                self.records += 1

    @property
    def verdict(self) -> str | None:
        """The rule that explains them; None while that may be chance."""
        if self.count < 2 or len(self.seen) * math.log(self.count) < _CERTAIN:
            return None
        keys, places = [key for key, _ in self.seen], [place for _, place in self.seen]
        right = {
            MURMUR2: sum(map(int.__eq__, by_murmur2(keys, self.count).tolist(), places)),
            CRC32: sum(crc32(key) % self.count == place for key, place in self.seen),
        }
        best = max(right, key=lambda rule: right[rule])
        return best if right[best] >= _SHARE * len(self.seen) else ANOTHER


def difference(rules: dict[str, str | None]) -> str | None:
    """What to tell of inputs whose rules differ, with the way out; None where they do not, as far as is known."""
    known = {topic: rule for topic, rule in rules.items() if rule is not None}
    if len(set(known.values())) < 2:
        return None
    others = [topic for topic, rule in known.items() if rule != MURMUR2]
    found = ", ".join(f"{topic} by {rule}" for topic, rule in sorted(known.items()))
    return (
        f"keys are put on partitions by different rules ({found}), so events of one key never meet. Set "
        f"partitioner=murmur2_random in the producer of {' and '.join(sorted(others))} (kcat: -X partitioner=murmur2_random) "
        "and write those records again"
    )


class Partitioners:
    """Looks at polled records of the inputs that meet.

    Args:
        topics: the inputs.
        partitions_of: how many partitions a topic has.
        clock: spaces the later looks.
        metrics: holds the gauge.
        stop: whether a difference ends the service.
    """

    def __init__(
        self, topics: Iterable[str], partitions_of: Callable[[str], int], clock: Clock, metrics: Metrics, *, stop: bool
    ) -> None:  # fmt: skip
        self._partitions_of, self._clock, self._metrics, self._stop = partitions_of, clock, metrics, stop
        self._tallies = {topic: Tally(0) for topic in topics}
        self._rules: dict[str, str | None] = dict.fromkeys(self._tallies)
        self._first = dict.fromkeys(self._tallies, RECORDS)
        self._due = dict.fromkeys(self._tallies, 0.0)
        self._told: str | None = None

    def __call__(self, records: Records) -> None:
        """Look at the first records of a topic, and at some once a second from then on.

        Raises:
            TopicError: the rules of two inputs differ, and the settings say to stop then.
        """
        topic, tally, rows = records.topic, self._tallies[records.topic], self._first[records.topic]
        if rows <= 0:
            now, rows = self._clock.monotonic(), _ROWS_AT_A_TIME
            if now < self._due[topic]:
                return
            self._due[topic] = now + _EVERY_S
        tally.count = self._partitions_of(topic)
        tally.add(records.keys[:rows], records.partitions[:rows].tolist())
        self._first[topic] -= len(records)
        if (rule := tally.verdict) is not None:
            self._rules[topic] = rule
        if tally.records >= RECORDS:
            self._tallies[topic] = Tally(tally.count)
        self._judge()

    def _judge(self) -> None:
        told, self._told = self._told, difference(self._rules)
        if self._told == told:
            return
        self._metrics.set("streamer_partitioner_mismatch", int(self._told is not None))
        if self._told is None:
            _log.info("partitioner_mismatch_over", inputs=self._rules)
            return
        if self._stop:
            raise TopicError(self._told)
        _log.warning("partitioner_mismatch", detail=self._told)
