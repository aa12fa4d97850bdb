"""What the worker tells the metrics: what it polled, how full it is, and everything else once per commit."""

from typing import TYPE_CHECKING, Any, Protocol

from streamer.clock import Clock
from streamer.operators.match.plan import MatchPlan
from streamer.operators.rekey.plan import RekeyPlan
from streamer.planning.plan import Plan
from streamer.rows.pairs import Pairs
from streamer.rows.records import Records
from streamer.stages.commit.transaction import Committed
from streamer.telemetry.alarm import DeadLetterAlarm
from streamer.telemetry.lag import Lag
from streamer.telemetry.laps import Laps
from streamer.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

_GAUGES_EVERY_S = 1.0


class _Input(Protocol):
    @property
    def paused(self) -> bool: ...

    def lag(self) -> dict[tuple[str, int], int]: ...


class _State(Protocol):
    """What the gauges tell of the windows; read only."""

    @property
    def keys(self) -> int: ...

    @property
    def truncated(self) -> int: ...

    @property
    def evicted(self) -> int: ...


class Bookkeeper:
    """Books the turns and commits of one worker.

    Args:
        metrics: where numbers go.
        plan: names steps and deadline.
        alarm: is told of dead letters.
        laps: time per step.
        clock: for the gauges.
    """

    def __init__(
        self, metrics: Metrics, plan: Plan | RekeyPlan | MatchPlan, alarm: DeadLetterAlarm, laps: Laps, clock: Clock
    ) -> None:
        self._metrics, self._alarm, self._laps, self._clock = metrics, alarm, laps, clock
        self._plan: Any = plan  # of the kind that `outcomes` finds
        self._steps = plan.steps
        outcomes: dict[type, Callable[..., None]] = {
            Plan: self._scored, MatchPlan: self._matched, RekeyPlan: self._rekeyed,
        }  # fmt: skip
        self._enter = outcomes[type(plan)]
        self._gauges_at = 0.0
        self._lag = Lag(metrics, clock)

    def polled(self, records: list[Records], *, waited: bool) -> float:
        """Book a poll, on no stage where it waited for records; returns now, monotonic seconds."""
        self._lag.read(records)
        return self._laps.lap(None if waited else "consume")

    def committed(self, done: Committed) -> None:
        """Enter a commit: outcomes, latencies, dead letters.

        Raises:
            DeadLetterFloodError: dead letters passed the share at which the service was asked to stop.
        """
        metrics = self._metrics
        # Closed windows are rows and no input; one that the model refused is a dead letter and no input.
        payloads = [batch.payload for batch in done.batches]
        closed, refused = sum(payload.closed for payload in payloads), sum(payload.refused for payload in payloads)
        rows, dead = sum(map(len, done.batches)), sum(len(batch.dead) for batch in done.batches) - refused
        metrics.add("streamer_commits_total")
        metrics.add("streamer_records_total", dead, "dead")
        self._enter(done, rows, closed)
        # This one works on a thread of its own, so the worker's laps do not see it.
        metrics.add("streamer_stage_busy_seconds_total", done.took_s, "commit")
        for batch in done.batches if dead + refused else ():
            for letter in batch.dead:
                step = self._steps.at(letter.stage) or letter.stage
                metrics.add("streamer_dead_letters_total", 1, letter.topic, step, letter.reason)
        self._alarm.note(self._clock.monotonic(), rows + dead + _filtered(done), dead)

    def _rekeyed(self, _done: Committed, rows: int, _closed: int) -> None:
        """Latency is booked where the row ends, as the part `rekey`."""
        self._metrics.add("streamer_records_total", rows, "rekeyed")

    def _scored(self, done: Committed, rows: int, closed: int) -> None:
        plan: Plan = self._plan
        metrics, steps = self._metrics, self._steps
        metrics.ledger.record(done.batches, done.at, plan.deadline_s)
        metrics.add("streamer_records_total", rows - closed, "predicted")
        metrics.add("streamer_records_total", _filtered(done), "filtered")
        metrics.add("streamer_records_total", sum(batch.tally.folded for batch in done.batches), "folded")
        metrics.add("streamer_records_total", sum(len(batch.payload.late) for batch in done.batches), "late")
        if plan.closes:
            metrics.add("streamer_windows_closed_total", closed, steps.window)
        metrics.add("streamer_records_total", sum(batch.tally.joined for batch in done.batches), "joined")
        for batch in done.batches:
            for step, served in batch.served.items():
                for by, scored in served.rows():
                    metrics.add("streamer_inference_rows_total", scored, step, by.model, str(by.version))
                    metrics.add("streamer_inference_batches_total", 1, step, by.model, str(by.version))
        flagged = sum(int(batch.flags.sum()) for batch in done.batches)
        metrics.add("streamer_anomalies_total", flagged, steps.flag)
        # The model runs on threads of its own, so the worker's laps do not see it.
        scoring = sum(batch.stamps.run_ended - batch.stamps.run_started for batch in done.batches)
        metrics.add("streamer_stage_busy_seconds_total", scoring, steps.infer)

    def _matched(self, done: Committed, *_: int) -> None:
        """A prediction counts when it leaves, and its latency from the record that made it leave."""
        metrics, pairs = self._metrics, [batch.payload for batch in done.batches if isinstance(batch.payload, Pairs)]
        metrics.ledger.record(done.batches, done.at, None)
        found = sum(each.found for each in pairs)
        metrics.add("streamer_records_total", found, "matched")
        metrics.add("streamer_records_total", sum(len(each.labels) for each in pairs) - found, "unmatched")
        metrics.add("streamer_records_total", sum(batch.tally.joined for batch in done.batches), "joined")
        metrics.add("streamer_labels_unused_total", sum(each.unused for each in pairs), self._steps.window)

    def gauges(self, source: _Input, window: _State, unscored: int, uncommitted: int) -> None:
        """Refresh the gauges, once a second."""
        now = self._clock.monotonic()
        if now < self._gauges_at:
            return
        metrics, self._gauges_at = self._metrics, now + _GAUGES_EVERY_S
        metrics.set("streamer_rows_in_flight", unscored, "unscored")
        metrics.set("streamer_rows_in_flight", uncommitted, "uncommitted")
        step = self._steps.window
        metrics.set("streamer_live_keys", window.keys, step)
        metrics.set("streamer_window_truncated_total", window.truncated, step)
        metrics.set("streamer_keys_evicted_total", window.evicted, step)
        metrics.set("streamer_paused", int(source.paused))
        metrics.set("streamer_deadline_missed_total", metrics.ledger.deadline_missed)
        metrics.set("streamer_timestamps_unusable_total", metrics.ledger.unbelieved)
        self._lag.show(source.lag())


def _filtered(done: Committed) -> int:
    return sum(batch.tally.filtered for batch in done.batches)
