"""Metrics, ledger and `streamer plan` call the steps of a flow by the same names, whichever flow it is."""

import pytest

from streamer.telemetry.ledger import parts_of
from streamer.telemetry.metrics import TABLE
from tests.kit import rekeyed
from tests.kit.inside import InsideTest
from tests.kit.stateful import FILTERED, FLOWS, any_score

LABELLED = [metric for metric in TABLE if "step" in metric.labels and metric.kind != "histogram"]
EVERY = FLOWS | {"filtered": FILTERED}


@pytest.mark.parametrize("name", EVERY)
def test_names_are_those_of_the_plan(name: str) -> None:
    topology, feed = EVERY[name]
    with InsideTest(topology, models=any_score, partitions=2) as test:
        for number in range(4):
            feed(test, number)
        test.clock.advance(3600)
        test.run()
        test.clock.advance(2)
        test.run()
        for worker in test.workers:
            steps, metrics = worker.plan.steps, worker.metrics
            told = [step for step, _ in worker.plan.explain().steps]
            assert [step for step in told if step not in ("decode", "features")] == [
                step for step in steps.way if step.rpartition("-")[2].isdigit()
            ]
            found = {labels[metric.labels.index("step")] for metric in LABELLED for labels in metrics.by_label(metric.name)}
            assert found <= set(steps.way)
            assert {"consume", "decode", *steps.stateless, steps.window, "produce", "commit"} <= found
            assert list(metrics.ledger.parts) == list(parts_of(steps))
        ledger = test.worker.metrics.ledger
    assert ledger.end_to_end["event"].rows > 0
    assert {part.rows for part in ledger.parts.values()} == {ledger.end_to_end["event"].rows}
    assert sum(part.total_s for part in ledger.parts.values()) == pytest.approx(ledger.end_to_end["event"].total_s, rel=1e-9)


def test_a_dead_letter_counts_at_the_step_that_refused_it_and_for_the_topic_of_its_record() -> None:
    def failing(columns: object) -> object:
        raise ValueError("no")

    with InsideTest(rekeyed.topology(), models=failing, partitions=1) as test:  # type: ignore[arg-type] # it gives no scores
        test.send_bytes(rekeyed.SOURCE, b"c", b"{")
        test.send_bytes(rekeyed.SOURCE, b"c", rekeyed.payment("t", 1.0, test.now))
        test.send_bytes(rekeyed.INTERNAL, b"c", b"{")
        test.run()
        first, second = (worker.metrics.by_label("streamer_dead_letters_total") for worker in test.workers)
    assert first == {(rekeyed.SOURCE, "decode", "invalid_json"): 1}
    assert second == {(rekeyed.SOURCE, "infer-1", "model_failed"): 1, (rekeyed.INTERNAL, "decode", "not_rekeyed"): 1}
