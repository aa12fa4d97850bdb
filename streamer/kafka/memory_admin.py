"""An admin client of the in-memory log: tells of topics, their ids, sizes and limits, and deletes records."""

from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Node, TopicCollection, TopicPartition, TopicPartitionInfo
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import EarliestSpec, ListOffsetsResultInfo, OffsetSpec
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.admin._topic import TopicDescription

from streamer.kafka.memory_log import MemoryLog

_Result = TypeVar("_Result")


class MemoryAdmin:
    """Deletes records and tells of topics and their limits; the answer is there at once."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def delete_records(self, offsets: list[TopicPartition]) -> "dict[TopicPartition, Future[None]]":
        for tp in offsets:
            self._log.delete_records(tp.topic, tp.partition, tp.offset)
        return {tp: _answer(None) for tp in offsets}

    def list_offsets(
        self, asked: dict[TopicPartition, OffsetSpec], request_timeout: float = 0
    ) -> "dict[TopicPartition, Future[ListOffsetsResultInfo]]":  # fmt: skip
        return {tp: _answer(ListOffsetsResultInfo(self._end(tp, spec), -1, -1)) for tp, spec in asked.items()}

    def _end(self, tp: TopicPartition, spec: OffsetSpec) -> int:
        end = self._log.low if isinstance(spec, EarliestSpec) else self._log.end
        return end(tp.topic, tp.partition)

    def list_topics(self, timeout: float = 0) -> ClusterMetadata:
        return ClusterMetadata()

    def describe_topics(self, topics: TopicCollection, request_timeout: float = 0) -> "dict[str, Future[TopicDescription]]":
        return {topic: self._description(topic) for topic in topics.topic_names}

    def _description(self, topic: str) -> "Future[TopicDescription]":
        if topic in self._log.deleted:
            answer = Future[TopicDescription]()
            answer.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
            return answer
        partitions = [TopicPartitionInfo(number, Node(1, "memory", 0), [], []) for number in range(self._log.count(topic))]
        return _answer(TopicDescription(topic, self._log.topic_id(topic), is_internal=False, partitions=partitions))

    def describe_configs(
        self, resources: list[ConfigResource], request_timeout: float = 0
    ) -> dict[ConfigResource, Future[dict[str, ConfigEntry]]]:  # fmt: skip
        answers = {}
        for resource in resources:
            answers[resource] = Future[dict[str, ConfigEntry]]()
            if resource.name in self._log.undescribed:
                answers[resource].set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
                continue
            takes = ConfigEntry("max.message.bytes", str(self._log.takes(resource.name)))
            answers[resource].set_result({takes.name: takes})
        return answers


def _answer(result: _Result) -> "Future[_Result]":
    future = Future[_Result]()
    future.set_result(result)
    return future
