"""How far behind the end of its log a partition is: in records, in seconds, and how long it takes to catch up."""

from collections import deque
from collections.abc import Iterable, Mapping

from streamer.clock import Clock
from streamer.rows.records import Records, TopicAndPartition
from streamer.telemetry.metrics import Metrics

# The pace is that of the last seconds, as in the live view.
_PACE_OVER_S = 10.0


class Lag:
    """Keeps the lag gauges of a worker.

    Args:
        metrics: holds them.
        clock: what the timestamps of records are held against.
    """

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._newest_ms: dict[TopicAndPartition, int] = {}
        self._seen: deque[tuple[float, Mapping[TopicAndPartition, int]]] = deque()

    def read(self, polled: Iterable[Records]) -> None:
        """Take note of what was polled: of each poll the last record, so that a batch costs nothing.

        A partition that lags fills whole polls, so the last record is often one of its own.
        """
        for records in polled:
            if len(records):
                self._newest_ms[records.topic, int(records.partitions[-1])] = int(records.timestamps_ms[-1])

    def show(self, lag: Mapping[TopicAndPartition, int]) -> None:
        """Set the gauges; `lag` is in records, per topic and partition."""
        now = self._clock.monotonic()
        self._seen.append((now, lag))
        while now - self._seen[0][0] > _PACE_OVER_S:
            self._seen.popleft()
        for name in ("streamer_consumer_lag_records", "streamer_consumer_lag_seconds", "streamer_catch_up_seconds"):
            self._metrics.clear(name)
        for (topic, partition), records in lag.items():
            place, number = (topic, partition), str(partition)
            self._metrics.set("streamer_consumer_lag_records", records, topic, number)
            self._metrics.set("streamer_catch_up_seconds", self._catch_up(place, records, now), topic, number)
            if (seconds := self._seconds(place, records)) is not None:
                self._metrics.set("streamer_consumer_lag_seconds", seconds, topic, number)

    def _seconds(self, place: TopicAndPartition, records: int) -> float | None:
        """How old the newest record read is while there are newer ones; None while none of the partition is known."""
        if records == 0:
            return 0.0
        newest_ms = self._newest_ms.get(place, 0)
        return max(0.0, self._clock.wall_us() / 1e6 - newest_ms / 1e3) if newest_ms > 0 else None

    def _catch_up(self, place: TopicAndPartition, records: int, now: float) -> float:
        if records == 0:
            return 0.0
        then, before = next(((at, seen[place]) for at, seen in self._seen if place in seen), (now, records))
        return records * (now - then) / (before - records) if before > records else float("inf")
