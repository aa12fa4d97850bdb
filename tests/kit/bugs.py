"""Bugs that more than one set of checks must notice."""

from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from streamer.kafka.memory_clients import MemoryProducer
from streamer.kafka.refusals import DeliveryReport
from streamer.operators.closing.idle import Idle
from streamer.operators.closing.store import ClosingStore
from streamer.rows.batch import Batch
from streamer.rows.outgoing import Outgoing
from streamer.stages.commit.commit import Commit
from streamer.stages.consume.consume import Consume
from streamer.stages.produce import produce
from streamer.stages.produce.produce import Produce

Patch = pytest.MonkeyPatch


def no_rewind_after_abort(patch: Patch) -> None:
    """After a rollback, reading goes on where the consumer stands."""
    seek = Consume.seek

    def keep_going(self: Consume, partition: int, offsets: dict[str, int]) -> None:
        consumer: Any = self._consumer
        here = {topic: consumer._position.get((topic, partition), 0) for topic in offsets}
        seek(self, partition, {topic: max(here[topic], offset) for topic, offset in offsets.items()})

    patch.setattr(Consume, "seek", keep_going)


def outputs_outside_the_transaction(patch: Patch) -> None:
    """Outputs are visible whatever becomes of their transaction."""
    send = Produce.send

    def send_plainly(self: Produce, producer: Producer) -> Batch | None:
        memory: Any = producer
        plain: Any = MemoryProducer(memory._log, {})
        return send(self, plain)

    patch.setattr(Produce, "send", send_plainly)


def half_accepted_batches_sent_again(patch: Patch) -> None:
    """After a full queue the whole batch goes out once more."""
    send = produce._send_rows

    def again(producer: Producer, outgoing: Outgoing, report: DeliveryReport | None) -> bool:
        before = [(topic, list(messages)) for topic, messages in outgoing.rows]
        done = send(producer, outgoing, report)
        if not done:
            outgoing.rows.clear()
            outgoing.rows.extend(before)
        return done

    patch.setattr(produce, "_send_rows", again)


def a_tick_lost_at_a_revoke(patch: Patch) -> None:
    """What holds no row is nothing to commit before partitions go."""
    patch.setattr(Commit, "pending", property(lambda self: self.rows > 0 or self.busy))


def deadlines_not_rebuilt(patch: Patch) -> None:
    """A store that was loaded has forgotten when its windows close."""
    rebuild = ClosingStore._rebuild

    def forgetful(self: ClosingStore) -> None:
        used, self.arrays["seen"] = self.arrays["seen"], np.zeros_like(self.arrays["seen"])
        rebuild(self)
        self.arrays["seen"] = used

    patch.setattr(ClosingStore, "_rebuild", forgetful)


def deaf(patch: Patch) -> None:
    """Silence closes nothing."""
    patch.setattr(Idle, "released", lambda *_: iter(()))
