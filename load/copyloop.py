"""The limit: records copied from topic to topic with their offsets, no decode, no state, no model.

One process and confluent-kafka only. A service on the same client, broker and preloaded topic cannot be
faster than this, so its rate is stated as a share of this one. The clock runs from the first record in hand
to the last commit.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

# partition -> newest offset copied (the client's types allow None, which only unsent messages have)
Ends = dict[Any, Any]

WAIT_FOR_FIRST_S = 30.0
WAIT_FOR_MORE_S = 1.0


@dataclass(frozen=True)
class Job:
    """What to copy and how often to commit it."""

    bootstrap: str
    source: str
    sink: str
    events: int
    commit_ms: float = 100.0
    rows: int = 500
    exactly_once: bool = True
    tag: str = field(default_factory=lambda: f"limit-{time.time_ns()}")

    @property
    def guarantee(self) -> str:
        """The word the results use."""
        return "exactly-once" if self.exactly_once else "at-least-once"


def open_consumer(job: Job) -> Consumer:
    """A fresh group at the beginning of the topic, with room to prefetch far ahead."""
    return Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.tag,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.max.bytes": 50 * 2**20,
            "queued.min.messages": 200_000,
            "queued.max.messages.kbytes": 256 * 1024,
            "fetch.queue.backoff.ms": 20,
        }
    )


def open_producer(job: Job) -> Producer:
    """A producer whose queue never becomes the bottleneck; transactional if asked to."""
    config: dict[str, Any] = {
        "bootstrap.servers": job.bootstrap,
        "compression.type": "lz4",
        "linger.ms": 5,
        "batch.num.messages": 10_000,
        "queue.buffering.max.messages": 2_000_000,
        "queue.buffering.max.kbytes": 2**31 // 1024 - 1,
    }
    if not job.exactly_once:
        return Producer(config)
    producer = Producer(config | {"transactional.id": job.tag})
    producer.init_transactions()
    producer.begin_transaction()
    return producer


def commit(job: Job, consumer: Consumer, producer: Producer, ends: Ends) -> None:
    """Make everything produced so far and the offsets behind it durable."""
    offsets = [TopicPartition(job.source, partition, newest + 1) for partition, newest in ends.items()]
    if job.exactly_once:
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
    else:
        producer.flush()
        consumer.commit(offsets=offsets, asynchronous=False)


def next_batch(job: Job, consumer: Consumer) -> list[Message]:
    """Wait for one record, then take what is already there: consume(n, t) alone may wait for all n."""
    batch = consumer.consume(1, WAIT_FOR_MORE_S)
    if batch:
        batch += consumer.consume(job.rows - 1, 0)
    for message in batch:
        if message.error() is not None:
            raise SystemExit(f"copy loop: {message.error()}; this run is void, start it again")
    return batch


def copy(job: Job) -> dict[str, Any]:
    """Copy `job.events` records; returns the row for the results."""
    consumer, producer = open_consumer(job), open_producer(job)
    consumer.subscribe([job.source])
    batch = consumer.consume(1, WAIT_FOR_FIRST_S)
    if not batch or batch[0].error():
        raise SystemExit(f"copy loop: nothing to read in {job.source!r} on {job.bootstrap}; preload it first")
    cpu, start = time.process_time(), time.perf_counter()
    last_commit, done = start, 0
    ends: Ends = {}
    while True:
        if batch:
            producer.produce_batch(job.sink, [{"key": m.key(), "value": m.value()} for m in batch])
            producer.poll(0)
            ends.update([(m.partition(), m.offset()) for m in batch])
            done += len(batch)
        if done >= job.events:
            break
        if (time.perf_counter() - last_commit) * 1e3 >= job.commit_ms:
            commit(job, consumer, producer, ends)
            last_commit = time.perf_counter()
            if job.exactly_once:
                producer.begin_transaction()
        batch = next_batch(job, consumer)
    commit(job, consumer, producer, ends)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    consumer.close()
    return {
        "system": "copyloop",
        "guarantee": job.guarantee,
        "events": done,
        "events_per_s": round(done / wall),
        "cpu_us_per_event": round(cpu / done * 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap", help="HOST:PORT of the broker")
    parser.add_argument("source", help="preloaded topic")
    parser.add_argument("sink", help="topic to copy to, with as many partitions")
    parser.add_argument("events", type=int, help="records to copy")
    parser.add_argument("--commit-ms", type=float, default=Job.commit_ms)
    parser.add_argument("--rows", type=int, default=Job.rows, help="records per batch")
    parser.add_argument("--at-least-once", action="store_true", help="no transactions: flush, then commit")
    options = vars(parser.parse_args())
    print(json.dumps(copy(Job(exactly_once=not options.pop("at_least_once"), **options))))


if __name__ == "__main__":
    main()
