"""All flows of a topology in one process: each has a worker on a thread of its own, and they start and end together."""

import threading
from collections.abc import Callable, Sequence

from prometheus_client.registry import Collector

from streamer.clock import Clock
from streamer.kafka.clients import Clients
from streamer.operators.match.plan import MatchPlan
from streamer.planning.plan import Plan
from streamer.settings.settings import Settings
from streamer.telemetry.metrics import Together
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker


def service_of(
    plan: Plan | MatchPlan, settings: Settings, *, clients: Clients | None = None, clock: Clock | None = None
) -> "Service":
    """The service of a topology, with a worker for each of its flows; takes and raises what `parts_of` does."""
    return Service([Worker(parts_of(flow, settings, clients=clients, clock=clock)) for flow in plan.flows])


class Service:
    """Runs a topology.

    Args:
        workers: of its flows, in the order of the data.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = tuple(workers)
        self._failures: list[BaseException] = []

    def open(self) -> None:
        """Open every worker; before `run`.

        Raises:
            StreamerError: transactions are refused.
        """
        for worker in self.workers:
            worker.open()

    @property
    def metrics(self) -> Collector:
        """The numbers of all flows together."""
        return Together([worker.metrics for worker in self.workers])

    def run(self) -> None:
        """Run every flow until `stop`; a flow that fails ends the others in order.

        Raises:
            StreamerError: the first failure.
        """
        if len(self.workers) == 1:
            self.workers[0].run()
            return
        threads = [
            threading.Thread(target=self._guarded, args=(worker.run,), name=f"streamer-{worker.plan.group}", daemon=True)
            for worker in self.workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - it is raised again on the thread that waits
            self._failures.append(error)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ask all flows to end; safe from a signal handler or another thread."""
        for worker in self.workers:
            worker.stop()

    def live(self) -> str | None:
        """None while every loop turns; otherwise why this process should be restarted."""
        return next(filter(None, (worker.live() for worker in self.workers)), None)

    def ready(self) -> str | None:
        """None when rows can flow all the way; otherwise what is waited for."""
        return next(filter(None, (worker.ready() for worker in self.workers)), None)
