"""Partitions that have nothing to say but that they are silent."""

from tests.kit import rekeyed
from tests.kit.faulty import FaultTest


def silent_partitions_go(turns: int) -> bool:
    """One partition of the source has spoken and both say now that they are silent; so many turns later they go, and come back.

    Returns:
        Whether something was open when they went.
    """
    with FaultTest(rekeyed.topology(ttl="1h"), models=rekeyed.score, partitions=2) as test:
        test.log.append(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, test.now), 0)
        test.run()
        front = test.workers[0]
        test.clock.advance(3600.0)
        for _ in range(turns):
            front.turn()
        busy = not front.idle
        test.move("on_revoke", [0, 1], front.plan.group)
        for _ in range(5):
            front.turn()
            test.clock.advance(0.2)
        assert front.idle
        assert front.metrics.value("streamer_recoveries_total") == 0
        test.move("on_assign", [0, 1], front.plan.group)
        test.run()
        test.crash()
        test.run()
        assert rekeyed.judge(test.log) == []
        return busy
