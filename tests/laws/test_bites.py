"""The laws bite: each bug seeded here, one for each law, must be noticed by it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from numpy.typing import NDArray

from streamer.errors import StreamerError
from streamer.features.call import kept_of
from streamer.kafka.refusals import DeliveryReport
from streamer.operators.closing.store import ClosingStore
from streamer.operators.rolling.stage import WindowStage
from streamer.rows.batch import Batch
from streamer.rows.outgoing import Outgoing
from streamer.stages.produce import produce
from streamer.state.delta import Delta
from streamer.topology.steps import FilterFunction
from streamer.topology.view import Events
from streamer.worker.worker import Worker
from tests.kit.bugs import (
    a_tick_lost_at_a_revoke,
    deadlines_not_rebuilt,
    deaf,
    half_accepted_batches_sent_again,
    no_rewind_after_abort,
    outputs_outside_the_transaction,
)
from tests.kit.faulty import short_waits
from tests.laws import laws, run
from tests.laws.run import undisturbed

__all__ = ["short_waits"]
pytestmark = pytest.mark.usefixtures("short_waits")
Patch = pytest.MonkeyPatch
Bug = Callable[[Patch], None]
Law = Callable[[str, int], None]


def the_last_row_stands_for_its_batch(patch: Patch) -> None:
    """All rows of a batch have the features of the last one."""
    advance = WindowStage.__call__

    def blurred(self: WindowStage, batch: Batch) -> None:
        advance(self, batch)
        batch.features = {name: np.full_like(column, column[-1]) for name, column in batch.features.items() if len(column)}

    patch.setattr(WindowStage, "__call__", blurred)


def the_first_row_speaks_for_its_batch(patch: Patch) -> None:
    """A filter asks of the first row of a batch only, and takes its answer for all."""

    def asked_once(function: FilterFunction, events: Events, batch: Batch) -> NDArray[np.bool_]:
        return np.full(len(batch), kept_of(function, events, batch)[0])

    patch.setattr("streamer.operators.filter.stage.kept_of", asked_once)


def ticks_not_logged(patch: Patch) -> None:
    """A close by silence is nowhere written down."""
    close = ClosingStore.close_until

    def silent(self: ClosingStore, time_us: int, *, final: bool) -> Any:
        advanced = close(self, time_us, final=final)
        advanced.delta = Delta.empty(len(self.spec.fields))
        return advanced

    patch.setattr(ClosingStore, "close_until", silent)


def partitions_go_at_once(patch: Patch) -> None:
    """What is in flight when a partition is revoked is not finished before it goes."""
    patch.setattr(Worker, "idle", property(lambda _: True))


def lost_partitions_are_committed(patch: Patch) -> None:
    """What was open for partitions that are somebody else's by now goes on."""

    def shrug(self: Worker, partitions: list[int]) -> None:
        self._assignment.lost(partitions)

    patch.setattr(Worker, "lost", shrug)


def written_backwards(patch: Patch) -> None:
    """Rows leave in any order."""
    send = produce._send_rows

    def backwards(producer: Producer, outgoing: Outgoing, report: DeliveryReport | None) -> bool:
        for _, messages in outgoing.rows:
            messages.reverse()
        return send(producer, outgoing, report)

    patch.setattr(produce, "_send_rows", backwards)


def revoke(name: str, seed: int) -> None:
    laws.moved(name, seed, "on_revoke")


def lose(name: str, seed: int) -> None:
    laws.moved(name, seed, "on_lost")


def silence(name: str, seed: int) -> None:
    laws.tick(name, seed, "nothing")


def silence_at_a_revoke(name: str, seed: int) -> None:
    laws.tick(name, seed, "on_revoke")


BITES: list[tuple[Law, Bug, str]] = [
    (laws.cut, the_last_row_stands_for_its_batch, "count"),
    (laws.cut, the_first_row_speaks_for_its_batch, "filtered"),
    (laws.dump_and_load, deadlines_not_rebuilt, "tumbling"),
    (laws.replay, ticks_not_logged, "tumbling"),
    (laws.crash, outputs_outside_the_transaction, "stateless"),
    (revoke, partitions_go_at_once, "count"),
    (lose, lost_partitions_are_committed, "count"),
    (laws.failing, no_rewind_after_abort, "interval"),
    (laws.full, half_accepted_batches_sent_again, "stateless"),
    (laws.at_least_once, no_rewind_after_abort, "count"),
    (silence, deaf, "session"),
    (silence_at_a_revoke, a_tick_lost_at_a_revoke, "rekeyed closing"),
    (laws.order, written_backwards, "match"),
]
SEEDS = range(1, 9)


@pytest.mark.parametrize(("law", "bug", "name"), BITES, ids=[f"{law.__name__}: {bug.__name__}" for law, bug, _ in BITES])
def test_each_bug_is_caught(law: Law, bug: Bug, name: str, monkeypatch: Patch) -> None:
    for seed in SEEDS:
        undisturbed(name, seed)  # what is right is worked out before the bug is there
    monkeypatch.setattr(run, "TURNS_MAX", 100)
    bug(monkeypatch)
    with pytest.raises((AssertionError, StreamerError, LookupError)) as caught:  # noqa: PT012 - of some seeds, one meets it
        for seed in SEEDS:
            law(name, seed)
    assert str(caught.value)


def test_each_law_bites() -> None:
    told = {law for law, _, _ in BITES}
    every = {laws.cut, laws.dump_and_load, laws.replay, laws.crash, laws.failing, laws.full, laws.at_least_once, laws.order}
    assert every | {revoke, lose, silence} <= told
