"""Labels for predictions: a declaration of its own, without a model."""

from dataclasses import dataclass
from typing import ClassVar

from streamer.errors import TopologyError, line_of_caller
from streamer.topology.event import Event
from streamer.topology.inputs import is_event, topic_of
from streamer.topology.steps import Declaration, Labels, Predictions, PublishMatched, Step
from streamer.units import Duration, parse_duration_s, parse_duration_us


@dataclass(frozen=True, slots=True)
class LabelMatch(Declaration):
    """Each prediction waits for its label: the first of its key with a time from that of the prediction until `within` later.

    Both topics need as many partitions, the same keys, and the same partitioner.

    Example::

        outcomes = (
            LabelMatch("card-labels")
            .predictions(Scored, dead_letters="payments.scored.dead")
            .labels(Chargeback, within="14d", dead_letters="chargebacks.dead")
            .publish(matched="payments.labelled", unmatched="payments.unlabelled")
        )
    """

    order: ClassVar[tuple[type[Step], ...]] = (Predictions, Labels, PublishMatched)

    def predictions(self, event: type[Event], *, dead_letters: str, topic: str | None = None) -> "LabelMatch":
        """Read predictions, as JSON; those that cannot be used go to the topic `dead_letters` with the reason.

        Args:
            event: their class.
            dead_letters: a topic.
            topic: where they are; by default the topic that the class names.

        Raises:
            TopologyError: it is no class of events, or nothing names a topic; the message starts with the line.
        """
        where = line_of_caller()
        if not is_event(event):
            raise TopologyError(f"{where}: .predictions() takes an Event class with a topic, class P(Event, topic='t', key='k')")
        found = topic_of(event, topic, f"{where}: .predictions()")
        return self._add(Predictions(event=event, topic=found, format="json", dead_letters=dead_letters, where=where))

    def labels(
        self, event: type[Event], *, within: Duration, dead_letters: str, topic: str | None = None, on: str | None = None,
        out_of_order: Duration = "0s", idle_timeout: Duration = "100ms",
    ) -> "LabelMatch":  # fmt: skip
        """Which labels are waited for.

        Args:
            event: class of the labels; its key is the one of the predictions.
            within: how long a label may take, as "14d".
            dead_letters: topic of labels that cannot be used.
            topic: where labels are; by default the topic that their class names.
            on: a field of both classes, text or a whole number, that must be equal too.
            out_of_order: how far out of order records of either topic may be.
            idle_timeout: how long a prediction waits for a topic that had no record for so long and has none unread.

        Raises:
            TopologyError: a duration is none, or nothing names a topic; the message starts with the line.
        """
        where = line_of_caller()
        if not is_event(event):
            raise TopologyError(f"{where}: .labels() takes an Event class with a topic, class L(Event, topic='t', key='k')")
        try:
            within_us, disorder_us = parse_duration_us(within), parse_duration_us(out_of_order)
            idle_s = parse_duration_s(idle_timeout)
        except ValueError as error:
            raise TopologyError(f"{where}: .labels(): {error}") from error
        step = Labels(
            event=event, topic=topic_of(event, topic, f"{where}: .labels()"), within_us=within_us, on=on,
            dead_letters=dead_letters, out_of_order_us=disorder_us, idle_timeout_s=idle_s, where=where,
        )  # fmt: skip
        return self._add(step)

    def publish(self, *, matched: str, unmatched: str) -> "LabelMatch":
        """Topics of predictions with their label, and of those whose time was over."""
        return self._add(PublishMatched(matched=matched, unmatched=unmatched, where=line_of_caller()))
