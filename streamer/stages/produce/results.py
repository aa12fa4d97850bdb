"""What a batch becomes: records by topic, as bytes. Nothing here knows of Kafka but the names and sizes of its topics."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from streamer.rows.batch import Batch
from streamer.rows.oversize import refuse
from streamer.rows.pairs import Pairs
from streamer.rows.trace import attach
from streamer.stages.produce.encode import Encoder
from streamer.topology.topics import Topics


class Sizes(Protocol):
    """What topics take."""

    def record(self, topic: str) -> int:
        """Bytes that key, value and headers of a record may have together."""

    def too_large(self, what: str, topic: str, messages: Iterable[dict[str, Any]]) -> dict[int, str]:
        """Place and fault, in words, of each message that the topic would not take."""


class Sink(Protocol):
    """Turns batches into records."""

    def records(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:
        """Records by topic, in the order in which they are to be sent; `now_us` is wall time.

        Either all records of a list have `headers` or none has, see `rows.trace.attach`.
        """


@dataclass(slots=True)
class Results:
    """Predictions, and the anomalies among them.

    Attributes:
        encoder: writes them.
        topics: where they go.
        sizes: what these take.
    """

    encoder: Encoder
    topics: Topics
    sizes: Sizes

    def records(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:
        """Records by topic. A row one of whose records is too large becomes a dead letter."""
        values = self.encoder.predictions(batch, now_us)
        predictions = [{"key": key, "value": value} for key, value in zip(batch.keys, values, strict=True)]
        flagged = batch.flags.nonzero()[0].tolist() if self.topics.anomalies else []
        anomalies = [{"key": batch.keys[row], "value": self.encoder.anomaly(batch, row, values[row])} for row in flagged]
        if batch.traces:
            self._attach(batch, predictions, flagged, anomalies)
        if large := self._too_large(batch, predictions, flagged, anomalies):
            predictions = [message for row, message in enumerate(predictions) if row not in large]
            anomalies = [message for row, message in zip(flagged, anomalies, strict=True) if row not in large]
            refuse(batch, large)
        found = [(self.topics.predictions, predictions)]
        return [*found, (self.topics.anomalies, anomalies)] if self.topics.anomalies and anomalies else found

    def _attach(
        self, batch: Batch, predictions: list[dict[str, Any]], flagged: list[int], anomalies: list[dict[str, Any]]
    ) -> None:  # fmt: skip
        attach(predictions, batch.traces, self.sizes.record(self.topics.predictions))
        if self.topics.anomalies:
            attach(anomalies, [batch.traces[row] for row in flagged], self.sizes.record(self.topics.anomalies))

    def _too_large(
        self, batch: Batch, predictions: list[dict[str, Any]], flagged: list[int], anomalies: list[dict[str, Any]]
    ) -> dict[int, str]:
        """Row -> what is wrong; predictions are only looked at where one could be."""
        large = dict[int, str]()
        if anomalies and self.topics.anomalies:
            found = self.sizes.too_large("the anomaly", self.topics.anomalies, anomalies)
            large = {flagged[place]: fault for place, fault in found.items()}
        if self.encoder.record_bytes_max(batch) > self.sizes.record(self.topics.predictions):
            large |= self.sizes.too_large("the prediction", self.topics.predictions, predictions)
        return large


@dataclass(slots=True)
class Matches:
    """Predictions with their labels, and those that got none, `schemas/matched.v1.json`.

    Attributes:
        topics: where they go.
        sizes: what these take.
    """

    topics: Topics
    sizes: Sizes

    def records(self, batch: Batch, now_us: int) -> list[tuple[str, list[dict[str, Any]]]]:  # noqa: ARG002 - nothing counts from now
        """Records by topic. One that is too large becomes a dead letter with the prediction in it."""
        if not len(batch):
            return []
        assert self.topics.unmatched is not None, "labels that are waited for have such a topic"
        pairs = Pairs.of(batch)
        rows = zip(batch.keys, pairs.bodies, pairs.labels, pairs.delays_us, strict=True)
        messages = [{"key": key, "value": _pair(body, label, delay_us)} for key, body, label, delay_us in rows]
        matched = [row for row, label in enumerate(pairs.labels) if label is not None]
        unmatched = [row for row, label in enumerate(pairs.labels) if label is None]
        found = list[tuple[str, list[dict[str, Any]]]]()
        large = dict[int, str]()
        for topic, places in ((self.topics.predictions, matched), (self.topics.unmatched, unmatched)):
            records = [messages[row] for row in places]
            if batch.traces:
                attach(records, [batch.traces[row] for row in places], self.sizes.record(topic))
            faults = self.sizes.too_large("the prediction with its label", topic, records)
            large |= {places[place]: fault for place, fault in faults.items()}
            found.append((topic, [record for place, record in enumerate(records) if place not in faults]))
        if large:
            self._refuse(batch, large)
        return [(topic, records) for topic, records in found if records]

    def _refuse(self, batch: Batch, large: dict[int, str]) -> None:
        """The place in a dead letter is that of the record which made the prediction leave; its value names its own."""
        batch.topic, topic = self.topics.source, batch.topic
        batch.values = list(Pairs.of(batch).bodies)
        refuse(batch, large)
        batch.topic = topic


def _pair(body: bytes, label: bytes | None, delay_us: int) -> bytes:
    """A prediction with its label, or as it is."""
    return body if label is None else b'%b,"label":%b,"delay_s":%b}' % (body[:-1], label, orjson.dumps(delay_us / 1e6))
