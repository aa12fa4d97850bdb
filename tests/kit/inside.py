"""A `TopologyTest` whose inside lies open: for tests of what is in there, and not of a topology."""

from streamer.clock import ManualClock
from streamer.kafka.memory_log import MemoryLog
from streamer.settings.settings import Settings
from streamer.testing import TopologyTest
from streamer.worker.worker import Worker


class InsideTest(TopologyTest):
    """Shows settings, log, clock and workers, which tests of topologies have no business with."""

    @property
    def settings(self) -> Settings:
        """What the workers were given."""
        return self._settings

    @property
    def log(self) -> MemoryLog:
        """Where all records lie."""
        return self._log

    @property
    def clock(self) -> ManualClock:
        """The clock; it moves, and no worker turns."""
        return self._clock

    @property
    def workers(self) -> list[Worker]:
        """One for each flow."""
        return self._workers

    @property
    def worker(self) -> Worker:
        """The one of the flow that ends in predictions."""
        return self._workers[-1]
