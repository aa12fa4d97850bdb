"""Committed records of a topic, for those who look and change nothing."""

from collections.abc import Callable, Iterator

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Message, TopicPartition

from streamer.errors import TopicError
from streamer.kafka.clients import KafkaClients
from streamer.kafka.config import create_command, partitions_of, reader_config
from streamer.settings.settings import Settings

_WAIT_S = 0.2
_ROWS_AT_ONCE = 500


def read_committed(
    settings: Settings, *topics: str, latest: bool, stopped: Callable[[], bool] = lambda: False
) -> Iterator[list[Message]]:
    """Committed records of all partitions of these topics as they come, without end.

    Raises:
        TopicError: there is no such topic, or it may not be read.
    """
    partitions = partitions_of(settings, list(topics))
    if missing := [topic for topic, count in partitions.items() if count is None]:
        raise TopicError(f"missing on {settings.bootstrap}: {', '.join(missing)}. Create it with {create_command(settings)}")
    config = reader_config(settings, committed=True) | {"enable.partition.eof": False}
    consumer = KafkaClients().consumer(config)
    offset = OFFSET_END if latest else OFFSET_BEGINNING
    consumer.assign(
        [TopicPartition(topic, partition, offset) for topic, count in partitions.items() for partition in range(count or 0)]
    )
    try:
        while not stopped():
            messages = consumer.consume(1, _WAIT_S)
            messages += consumer.consume(_ROWS_AT_ONCE, 0) if messages else []
            for error in filter(None, (message.error() for message in messages)):
                if not error.retriable():
                    raise TopicError(f"cannot read {', '.join(topics)}: {error.str()}")
            if good := [message for message in messages if message.error() is None]:
                yield good
    finally:
        consumer.close()
