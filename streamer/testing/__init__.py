"""Tests without a broker: the production worker over an in-memory log, on a clock that the test moves.

Example::

    with TopologyTest(sensor, models="topologies/models") as test:
        test.send(Reading(sensor_id="s1", ts=test.now, value=95.0), times=70, step="1s")
        assert test.read("sensor.predictions")[-1]["window_n"] == 70
"""

from streamer.kafka.memory_log import Record
from streamer.testing.stand_in import ScoreFunction, constant, stand_in
from streamer.testing.topology import TopologyTest, values

__all__ = ["Record", "ScoreFunction", "TopologyTest", "constant", "stand_in", "values"]
