"""Whether the windows that a changelog keeps are those of the topology: the check of a restore, without restoring."""

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streamer.changelog.blocks import decode
from streamer.changelog.snapshot import CHUNK, MANIFEST
from streamer.clock import Clock

# Records looked at from the end of a partition: at least one block lies among the markers of so many commits. A base snapshot
# may hide them, so that each further look goes back farther.
_BACK, _FARTHER = 32, 16
_MESSAGES = 500


def check_kept(consumer: Consumer, topic: str, partitions: int, fingerprint: str, *, clock: Clock, timeout_s: float) -> int:
    """Read the last block of each partition of a changelog.

    Args:
        consumer: a reader of committed records that tells the end of partitions, see `kafka.reader_config`.
        topic: the changelog.
        partitions: how many it has.
        fingerprint: of the store that is to be restored.
        clock: for the time-out.
        timeout_s: without a record, or the end of a partition.

    Returns:
        Partitions that hold windows.

    Raises:
        StateError: a block was written for other windows, or cannot be read.
        KafkaException: the broker refuses.
        TimeoutError: it does not answer.
    """
    bounds = {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s, cached=False)
        for partition in range(partitions)
    }
    left, back, held = {partition for partition, (low, high) in bounds.items() if low < high}, _BACK, 0
    while left:
        starts = {partition: max(bounds[partition][0], bounds[partition][1] - back) for partition in left}
        found = _last(consumer, topic, starts, clock, timeout_s)
        for partition, (offset, value) in sorted(found.items()):
            decode(value, fingerprint, f"{topic}/{partition}/{offset}")
        held += len(found)
        left = {partition for partition in left - found.keys() if starts[partition] > bounds[partition][0]}
        back *= _FARTHER
    return held


def _last(consumer: Consumer, topic: str, starts: dict[int, int], clock: Clock, timeout_s: float) -> dict[int, tuple[int, bytes]]:
    """Partition -> offset and value of the last block between a place and its end."""
    found: dict[int, tuple[int, bytes]] = {}
    reading, until = set(starts), clock.monotonic() + timeout_s
    places = [TopicPartition(topic, partition, start) for partition, start in starts.items()]
    consumer.incremental_assign(places)
    while reading:
        for message in consumer.consume(_MESSAGES, 0.1):
            until = clock.monotonic() + timeout_s
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None and error.code() == error._PARTITION_EOF:  # noqa: SLF001 - the name the binding gives it
                reading.discard(-1 if partition is None else partition)
            elif error is not None and not error.retriable():
                raise KafkaException(error)
            elif error is None and partition is not None and offset is not None and message.key() not in (CHUNK, MANIFEST):
                found[partition] = offset, message.value() or b""
        if reading and clock.monotonic() > until:
            raise TimeoutError(f"no answer for {timeout_s:g} s from {topic}/{min(reading)}")
    consumer.incremental_unassign(places)
    return found
