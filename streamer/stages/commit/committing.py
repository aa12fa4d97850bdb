"""The committing thread: carries commits out, one after the other, while the worker goes on with the next rows.

What it touches comes with each job, and nothing of that changes any more: a thread that was left to itself must find nothing
of what came after.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TopicPartition

from streamer.changelog.snapshots import SnapshotSlice
from streamer.clock import Clock
from streamer.rows.batch import Batch
from streamer.stages.commit.requests import as_failure
from streamer.stages.commit.transaction import Advance


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A commit that is to be carried out.

    Attributes:
        batches: what it covers.
        rows: in all batches, dead letters included.
        steps: partition -> its places before and after. Places change hands in a rebalance, and a commit under way must say
            what it set out to say: the group decides whether that still counts.
        offsets: of its inputs, with sequence numbers as metadata.
        member: the group's member and generation, read when the commit started.
        share: of a base snapshot, that goes with it.
        work: how to carry it out; keeps to the producers that its outputs went to, also when these are replaced meanwhile.
    """

    batches: tuple[Batch, ...]
    rows: int
    steps: Mapping[int, Advance]
    offsets: tuple[TopicPartition, ...]
    member: Any
    share: SnapshotSlice | None
    work: "Work"

    def run(self, passable: threading.Event) -> dict[int, int]:
        """Carry it out; returns partition -> bytes of its blocks in the changelog. See `Work`."""
        return self.work(self, passable)


# Carries a job out, and returns partition -> bytes of its blocks in the changelog. It sets the event as soon as outputs may be
# sent beside the rest of it.
Work = Callable[[Job, threading.Event], dict[int, int]]


@dataclass(slots=True, kw_only=True)
class Ending:
    """What comes of a job. The committing thread writes it, the worker reads it once it is finished.

    Attributes:
        passable: whether outputs may be sent beside the rest of the commit.
        finished: whether it has ended, either way.
        blocks: partition -> bytes of its blocks in the changelog.
        at: monotonic seconds of the end.
        took_s: how long it took.
        error: why it failed.
    """

    passable: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    blocks: dict[int, int] = field(default_factory=dict)
    at: float = 0.0
    took_s: float = 0.0
    error: Exception | None = None


_Jobs = queue.SimpleQueue[tuple[Job, Ending] | None]


class Committing:
    """A thread that carries out jobs.

    Args:
        clock: for how long they took.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs, self._thread = self._begun()

    def submit(self, job: Job) -> Ending:
        """Hand a job over; what comes of it is told there."""
        ending = Ending()
        self._jobs.put((job, ending))
        return ending

    def replace(self) -> None:
        """Leave the thread to itself, which has an abandoned commit, and go on with another."""
        self._jobs.put(None)  # should it come back, it ends
        self._jobs, self._thread = self._begun()

    def close(self) -> None:
        """End the thread; nothing may be open."""
        self._jobs.put(None)
        self._thread.join(timeout=5.0)

    def _begun(self) -> tuple[_Jobs, threading.Thread]:
        jobs: _Jobs = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, args=(jobs,), name="streamer-commit", daemon=True)
        thread.start()
        return jobs, thread

    def _work(self, jobs: _Jobs) -> None:
        while (next_ := jobs.get()) is not None:
            job, ending = next_
            started = self._clock.monotonic()
            try:
                ending.blocks = job.run(ending.passable)
            except Exception as error:  # noqa: BLE001 - it is raised again where the worker reaps it
                ending.error = as_failure(error)
            ending.at = self._clock.monotonic()
            ending.took_s = ending.at - started
            ending.finished.set()
            # The traceback of an error leads here: what this knew would keep itself alive in a circle, a producer that was
            # replaced included, where nobody asks for the error of an abandoned commit.
            del next_, job, ending
