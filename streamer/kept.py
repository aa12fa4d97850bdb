"""Whether the windows that a changelog keeps are those of the topology: the check of a restore, without restoring."""

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streamer.clock import Clock
from streamer.errors import StateError
from streamer.state.changelog import decode
from streamer.state.snapshot import CHUNK, MANIFEST

# Records looked at from the end of a partition: at least one block lies among the markers of so many commits. A base snapshot
# may hide them, so that each further look goes back farther.
_BACK, _FARTHER = 32, 16
_MESSAGES = 500


def check_kept(consumer: Consumer, topic: str, partitions: int, fingerprint: str, clock: Clock, timeout_s: float) -> int:
    """Read the last block of each partition of a changelog.

    Args:
        consumer: a reader of committed records that tells the end of partitions, see `kafka.reader_config`.
        topic: the changelog.
        partitions: how many it has.
        fingerprint: of the store that is to be restored.
        clock: for the time-out.
        timeout_s: of everything.

    Returns:
        Partitions that hold windows.

    Raises:
        StateError: a block was written for other windows, or cannot be read.
        KafkaException: the broker does not answer, or refuses.
    """
    until, held = clock.monotonic() + timeout_s, 0
    for partition in range(partitions):
        place, back = TopicPartition(topic, partition), _BACK
        low, high = consumer.get_watermark_offsets(place, timeout=timeout_s, cached=False)
        while low < high:
            start = max(low, high - back)
            if (last := _last(consumer, TopicPartition(topic, partition, start), clock, until)) is not None:
                offset, value = last
                decode(value, fingerprint, f"{topic}/{partition}/{offset}")
                held += 1
                break
            if start == low:
                break
            back *= _FARTHER
    return held


def _last(consumer: Consumer, place: TopicPartition, clock: Clock, until: float) -> tuple[int, bytes] | None:
    """Offset and value of the last block between a place and the end of its partition."""
    found = None
    consumer.assign([place])
    while clock.monotonic() < until:
        for message in consumer.consume(_MESSAGES, 0.1):
            error, offset = message.error(), message.offset()
            if error is not None and error.code() == error._PARTITION_EOF:  # noqa: SLF001 - the name the binding gives it
                return found
            if error is not None and not error.retriable():
                raise KafkaException(error)
            if error is None and offset is not None and message.key() not in (CHUNK, MANIFEST):
                found = offset, message.value() or b""
    raise StateError(f"{place.topic}/{place.partition} cannot be read to its end: a transaction is open, or the broker is slow")
