"""What a user writes: one flow, declared as a chain in the order of the data. Nothing here opens a connection."""

import math
from dataclasses import dataclass
from typing import ClassVar

from streamer.errors import TopologyError, line_of_caller
from streamer.renamed import knows_old_names
from streamer.topology.closing import EMISSIONS, Closing, Emission
from streamer.topology.event import Event, Format
from streamer.topology.inputs import is_event, known_format, topic_of
from streamer.topology.joins import Join
from streamer.topology.rolling import Rolling
from streamer.topology.steps import (
    Declaration,
    FeatureFunction,
    Features,
    Filter,
    FilterFunction,
    Flag,
    Infer,
    Joined,
    Model,
    Publish,
    Rekey,
    Source,
    Step,
    Windowed,
)
from streamer.units import Duration, parse_duration_s, parse_duration_us

_WINDOWS = "rolling(...), tumbling(...), hopping(...) or session(...)"


@dataclass(frozen=True, slots=True)
class Topology(Declaration):
    """One flow from a source topic to predictions. Each step returns a new topology; the first is `.source`.

    Example::

        sensor = (
            Topology("sensor-anomaly")
            .source(Reading, dead_letters="sensor.dead")
            .window(rolling(count=64))
            .features(lambda w: {"mean": w.mean("value"), "std": w.std("value")})
            .infer(Model("sensor-anomaly"))
            .flag(above="model.threshold")
            .publish(predictions="sensor.predictions", anomalies="sensor.anomalies")
        )
    """

    order: ClassVar[tuple[type[Step], ...]] = (Source, Filter, Rekey, Joined, Windowed, Features, Infer, Flag, Publish)

    @knows_old_names
    def source(
        self, event: type[Event], *, dead_letters: str, topic: str | None = None,
        format: Format = "json",  # noqa: A002 - the field's word
    ) -> "Topology":  # fmt: skip
        """Read events from a topic; records that cannot be used go to the topic `dead_letters` with the reason.

        Args:
            event: their class.
            dead_letters: a topic.
            topic: where they are; by default the topic that the class names.
            format: "json", or "raw": fields `value`, `key` and `headers` as they are in the record; see docs/topologies.md.

        Raises:
            TopologyError: it is no class of events, or nothing names a topic; the message starts with the line.
        """
        where = line_of_caller()
        if not is_event(event):
            raise TopologyError(f"{where}: .source() takes an Event class with a topic, such as class R(Event, topic='t')")
        found = topic_of(event, topic, f"{where}: .source()")
        known = known_format(format, where)
        return self._add(Source(event=event, topic=found, format=known, dead_letters=dead_letters, where=where))

    def filter(self, function: FilterFunction) -> "Topology":
        """Let only events go on for which the function gives True: a columnar numpy function `(Events) -> bools`, one a row.

        The others have no prediction and are in no window; they are counted as `filtered`. Null is NaN, and what is compared
        with it is False. There may be several, one behind the other.

        Raises:
            TopologyError: it is no function; the message starts with the line.
        """
        where = line_of_caller()
        if not callable(function):
            raise TopologyError(f"{where}: .filter() takes a function of events, not {function!r}")
        self._apart("filter", where, Rekey, Joined)
        return self._add(Filter(function=function, where=where))

    @knows_old_names
    def rekey(self, field: str, *, max_drift: Duration = "1m") -> "Topology":
        """Give the events another key: all that follows is kept per value of `field`, whatever their record key is.

        They pass through an internal topic, exactly once; see docs/topologies.md.

        Args:
            field: of the event, text or a whole number.
            max_drift: a partition of the source whose event times run further ahead of the slowest one waits, as "1m".
        """
        where = line_of_caller()
        if not isinstance(field, str):
            raise TopologyError(f"{where}: .rekey() takes the name of a field, not {field!r}")
        if (source := self.first(Source)) is not None and source.format == "raw":
            raise TopologyError(f"{where}: .rekey() takes a field, text or a whole number, and an event in format='raw' has none")
        try:
            drift_us = parse_duration_us(max_drift)
        except ValueError as error:
            raise TopologyError(f"{where}: max_drift: {error}") from error
        self._apart("rekey", where, Filter)
        return self._add(Rekey(field=field, max_drift_us=drift_us, where=where))

    @knows_old_names
    def join(
        self, join: Join, *, dead_letters: str, topic: str | None = None,
        format: Format = "json",  # noqa: A002 - as at `.source`
        out_of_order: Duration = "0s", idle_timeout: Duration = "100ms",
    ) -> "Topology":  # fmt: skip
        """Let events see those of another stream with the same key: `interval`, `as_of` or `lagged`.

        The topic must have as many partitions as the source's, its records the same keys, and the same partitioner. Events
        leave in the order of event time, once both streams have passed what they may see.

        Args:
            join: which stream, and how near to an event.
            dead_letters: topic of its records that cannot be used.
            topic: where its events are; by default the topic that their class names.
            format: of its records, as at `.source`.
            out_of_order: how far out of order records of either stream may be; with several joins the largest holds for all.
            idle_timeout: how long an event waits for a stream that had no record for so long and has none unread.
        """
        where = line_of_caller()
        if not isinstance(join, Join):
            raise TopologyError(f"{where}: .join() takes interval(...), as_of(...) or lagged(...), not {join!r}")
        try:
            disorder_us, idle_s = parse_duration_us(out_of_order), parse_duration_s(idle_timeout)
        except ValueError as error:
            raise TopologyError(f"{where}: .join(): {error}") from error
        joined = Joined(
            join=join, topic=topic_of(join.event, topic, f"{where}: .join()"), format=known_format(format, where),
            dead_letters=dead_letters, out_of_order_us=disorder_us, idle_timeout_s=idle_s, where=where,
        )  # fmt: skip
        self._apart("join", where, Filter)
        return self._add(joined)

    def _apart(self, said: str, where: str, *others: type[Step]) -> None:
        for step in self.steps:
            if isinstance(step, others):
                raise TopologyError(
                    f"{where}: .{said}() does not go with .{step.said}() ({step.where}) yet: event time does not pass with rows "
                    "that leave, and others wait for it there; filter the events where they are produced"
                )

    def window(self, window: Rolling | Closing, *, emit: Emission | None = None) -> "Topology":
        """Keep samples per key.

        Args:
            window: `rolling`, which moves with every event, or one that closes: `tumbling`, `hopping`, `session`.
            emit: of a window that closes: its result "on_close" (the default), one for "each" event, or "both": early results
                for events, then the final one.
        """
        where = line_of_caller()
        if not isinstance(window, Rolling | Closing):
            raise TopologyError(f"{where}: .window() takes {_WINDOWS}, not {window!r}")
        if emit is not None and emit not in EMISSIONS:
            raise TopologyError(f"{where}: emit={emit!r} is not one of {', '.join(EMISSIONS)}")
        if isinstance(window, Rolling) and emit is not None:
            raise TopologyError(f"{where}: rolling() gives a result for each event and never closes; leave emit={emit!r} out")
        # Behind another key silence closes nothing: a partition that is silent holds the windows back no more.
        rekeyed = self.first(Rekey) is not None
        if isinstance(window, Closing) and emit == "each" and window.idle_timeout_us and not rekeyed:
            raise TopologyError(f"{where}: emit='each' sends nothing when windows close; leave idle_timeout= out")
        return self._add(Windowed(window=window, emit=emit or "on_close", where=where))

    def features(self, function: FeatureFunction) -> "Topology":
        """Turn the windows of a batch into model inputs: a columnar numpy function `(Window) -> {name: column}`."""
        where = line_of_caller()
        if not callable(function):
            raise TopologyError(f"{where}: .features() takes a function of a window, not {function!r}")
        return self._add(Features(function=function, where=where))

    def infer(self, model: Model, *, deadline: Duration | None = None, max_batch: int = 512) -> "Topology":
        """Run the model on the features.

        Args:
            model: which one.
            deadline: latency aimed for, from record timestamp to prediction, as "250ms"; predictions beyond it are
                counted in `streamer_deadline_missed_total`, none is dropped.
            max_batch: most rows in one run of the model.
        """
        where = line_of_caller()
        if not isinstance(model, Model):
            raise TopologyError(f"{where}: .infer() takes Model('name'), not {model!r}")
        if not isinstance(max_batch, int) or max_batch < 1:
            raise TopologyError(f"{where}: max_batch={max_batch!r} must be a whole number, at least 1")
        try:
            deadline_s = None if deadline is None else parse_duration_s(deadline)
        except ValueError as error:
            raise TopologyError(f"{where}: deadline: {error}") from error
        return self._add(Infer(model=model, deadline_s=deadline_s, max_batch=max_batch, where=where))

    def flag(self, *, above: float | str) -> "Topology":
        """Flag scores greater than `above`: a number, or "model.threshold" for the one that travels with the model."""
        where = line_of_caller()
        if above != "model.threshold" and not (isinstance(above, int | float) and math.isfinite(above)):
            raise TopologyError(f"{where}: above={above!r} is neither a number nor 'model.threshold'")
        return self._add(Flag(above=above, where=where))

    @knows_old_names
    def publish(
        self, *, predictions: str, anomalies: str | None = None, features: bool = False, late_events: str | None = None
    ) -> "Topology":
        """Name the output topics; with `features` every prediction carries the model's inputs, whole numbers exactly.

        Args:
            predictions: topic of all results.
            anomalies: topic of those that are flagged, with what drove them.
            features: whether predictions carry the model's inputs.
            late_events: for windows that close: where events go for which all their windows have closed.
        """
        where = line_of_caller()
        return self._add(
            Publish(predictions=predictions, anomalies=anomalies, features=features, late_events=late_events, where=where)
        )
