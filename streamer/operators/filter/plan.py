"""A filter: its function tried, before there is an event."""

from streamer.errors import TopologyError
from streamer.features.call import kept
from streamer.features.trace import TracingEvents, trial_reason
from streamer.operators.filter.stage import FilterStage
from streamer.topology.event import Event
from streamer.topology.steps import Filter


def bind_filter(step: Filter, event: type[Event]) -> FilterStage:
    """Call the function on two events, and note which fields it reads.

    Raises:
        TopologyError: it failed, or gave something else than a bool for each; the message starts with the line.
    """
    events = TracingEvents(event)
    try:
        kept(step.function, events, 2)
    except Exception as error:
        raise TopologyError(f"{step.where}: the filter failed on two trial events: {trial_reason(error)}") from error
    return FilterStage(step.function, events.asked)
