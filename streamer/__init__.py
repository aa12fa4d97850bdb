"""Streaming inference on Kafka: windows, models and anomaly flags, exactly once, in one Python process.

A row's way, in the order of the files in `streamer/stages`:

    consume -> decode -> window -> infer -> flag -> produce -> commit
"""

from streamer.closing import hopping, session, tumbling
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
from streamer.event import Event
from streamer.joins import delayed, interval, latest
from streamer.topology import Model, Topology
from streamer.windows import Window, rolling

__all__ = [
    "Event",
    "FencedError",
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
    "delayed",
    "hopping",
    "interval",
    "latest",
    "rolling",
    "session",
    "tumbling",
]
