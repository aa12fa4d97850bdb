"""The flow under a script of faults, and how often it recovered."""

from tests.kit import flows
from tests.kit.faulty import FaultTest, Script


def flow(script: Script | None = None, **settings: object) -> FaultTest:
    return FaultTest(flows.topology(), models=flows.score, partitions=1, script=script, settings=settings)


def recovered(test: FaultTest, cause: str) -> float:
    return test.worker.metrics.value("streamer_recoveries_total", cause)
