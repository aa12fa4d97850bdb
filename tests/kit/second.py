"""Another worker of the group, for partitions that change hands."""

from tests.kit.faulty import FaultTest, FaultyConsumer


class Second:
    """Another worker of the group, on the same log; it starts without partitions.

    Args:
        test: has the first one.
        flow: which flow of the topology; the last one ends in predictions.
    """

    def __init__(self, test: FaultTest, flow: int = -1) -> None:
        self._test, first, clients, held, known = test, test.workers[flow], test.clients, test.held_commits, dict(test.clients_of)
        self.worker = test._new_worker(first.plan)
        self.consumer: FaultyConsumer = test.group_consumer
        self.consumer._rebalance = None
        test.clients, test.held_commits, test.clients_of = clients, held, known

    def __enter__(self) -> "Second":
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()

    def run_both(self) -> None:
        """Turn both until everything is committed."""
        for _ in range(500):
            self._test.turns(1)
            self.worker.turn()
            if self._test._caught_up(self.worker.plan) and self.worker.idle:
                return
        raise AssertionError("the two workers do not come to rest")
