"""Streaming inference on Kafka: windows, models and anomaly flags, exactly once, in one Python process.

A row's way, through `streamer/stages` and `streamer/operators`:

    consume -> decode -> window -> infer -> flag -> produce -> commit

A name is imported when it is first asked for: a worker must answer signals before what takes a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.errors import (
        FencedError,
        LostOffsetsError,
        MissingExtraError,
        ModelError,
        SettingsError,
        StateError,
        StreamerError,
        TopicError,
        TopologyError,
    )
    from streamer.topology.closing import hopping, session, tumbling
    from streamer.topology.event import Event
    from streamer.topology.joins import as_of, interval, lagged
    from streamer.topology.label_match import LabelMatch
    from streamer.topology.rolling import rolling
    from streamer.topology.steps import Model
    from streamer.topology.topology import Topology
    from streamer.topology.view import Column, Events, Window, WindowView

__all__ = [
    "Column",
    "Event",
    "Events",
    "FencedError",
    "LabelMatch",
    "LostOffsetsError",
    "MissingExtraError",
    "Model",
    "ModelError",
    "SettingsError",
    "StateError",
    "StreamerError",
    "TopicError",
    "Topology",
    "TopologyError",
    "Window",
    "WindowView",
    "as_of",
    "hopping",
    "interval",
    "lagged",
    "rolling",
    "session",
    "tumbling",
]

_HOMES = {
    "Column": "streamer.topology.view",
    "Event": "streamer.topology.event",
    "Events": "streamer.topology.view",
    "FencedError": "streamer.errors",
    "LabelMatch": "streamer.topology.label_match",
    "WindowView": "streamer.topology.view",
    "LostOffsetsError": "streamer.errors",
    "MissingExtraError": "streamer.errors",
    "Model": "streamer.topology.steps",
    "ModelError": "streamer.errors",
    "SettingsError": "streamer.errors",
    "StateError": "streamer.errors",
    "StreamerError": "streamer.errors",
    "TopicError": "streamer.errors",
    "Topology": "streamer.topology.topology",
    "TopologyError": "streamer.errors",
    "Window": "streamer.topology.view",
    "as_of": "streamer.topology.joins",
    "hopping": "streamer.topology.closing",
    "interval": "streamer.topology.joins",
    "lagged": "streamer.topology.joins",
    "rolling": "streamer.topology.rolling",
    "session": "streamer.topology.closing",
    "tumbling": "streamer.topology.closing",
}


if not TYPE_CHECKING:  # to a type checker every name would exist

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            import_module("streamer.renamed").refuse_function(name)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(_HOMES[name]), name)
        return value
