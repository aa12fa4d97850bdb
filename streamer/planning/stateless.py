"""Steps that keep nothing, bound to the events they look at: one line here for each kind."""

from collections.abc import Callable
from typing import Any

from streamer.operators.filter.plan import bind_filter
from streamer.operators.operator import Stateless
from streamer.topology.event import Event
from streamer.topology.steps import Declaration, Filter, Step

BOUND: dict[type[Step], Callable[[Any, type[Event]], Stateless]] = {Filter: bind_filter}


def stateless_of(topology: Declaration, event: type[Event]) -> tuple[Stateless, ...]:
    """Those of a topology, in their order.

    Raises:
        TopologyError: the declaration is wrong; the message starts with the line.
    """
    return tuple(BOUND[type(step)](step, event) for step in topology.steps if type(step) in BOUND)
