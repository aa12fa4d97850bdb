"""The doctor's look at the keys of inputs that meet: were they put on their partitions by the same rule?"""

from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamer.cli.check import TIMEOUT_S, Check
from streamer.clock import SystemClock
from streamer.kafka.clients import KafkaClients
from streamer.kafka.config import reader_config
from streamer.stages.consume.partitioners import RECORDS, Tally, difference

if TYPE_CHECKING:
    from streamer.settings.settings import Settings


def same_partitioner(settings: "Settings", counts: dict[str, int]) -> Check:
    """Read the newest keys of each input; `counts` are the partitions of each."""
    what = f"partitioner of {' and '.join(counts)}"
    config = reader_config(settings, committed=True) | {"enable.partition.eof": True, "log_level": 0}
    consumer = KafkaClients().consumer(config)
    try:
        rules = {topic: _tally(consumer, topic, count).verdict for topic, count in counts.items()}
    except KafkaException as error:
        return Check(ok=True, warning=True, what=f"{what} cannot be found out ({error.args[0].str()})")
    finally:
        consumer.close()
    if (told := difference(rules)) is not None:
        return Check(ok=False, what=what, fix=told)
    found = ", ".join(f"{topic}: {rule or 'too few keys to tell'}" for topic, rule in rules.items())
    return Check(ok=True, what=f"{what} ({found})")


def _tally(consumer: "Consumer", topic: str, count: int) -> "Tally":
    places = []
    for partition in range(count):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
        places.append(TopicPartition(topic, partition, max(low, high - max(1, RECORDS // count))))
    consumer.assign(places)
    clock, tally, ended = SystemClock(), Tally(count), 0
    deadline = clock.monotonic() + TIMEOUT_S
    while ended < count and tally.records < RECORDS and clock.monotonic() < deadline:
        messages = consumer.consume(RECORDS, 0.2)
        ended += sum(1 for message in messages if (error := message.error()) and error.code() == KafkaError._PARTITION_EOF)  # noqa: SLF001
        good = [message for message in messages if message.error() is None]
        tally.add([message.key() for message in good], [message.partition() or 0 for message in good])
    return tally
