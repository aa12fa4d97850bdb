"""The dead-letter alarm: a flood of bad records is told once, loudly, and does not stop the service unless asked to."""

from collections import deque

from streamer.errors import DeadLetterFloodError
from streamer.telemetry.logs import get_logger
from streamer.telemetry.metrics import Metrics

_WINDOW_S = 60.0
_SHARE = 0.1
_ROWS_MIN = 50

_log = get_logger(__name__)


class DeadLetterAlarm:
    """Watches the share of dead letters among the input of the last minute.

    Args:
        metrics: holds the gauge.
        stop_share: share at which the service stops, None to go on whatever comes.
    """

    def __init__(self, metrics: Metrics, stop_share: float | None) -> None:
        self._metrics, self._stop_share = metrics, stop_share
        self._seen: deque[tuple[float, int, int]] = deque()
        self._rows = self._dead = 0
        self._raised = False

    def note(self, now: float, rows: int, dead: int) -> None:
        """Enter one commit: input rows and dead letters among them.

        Raises:
            DeadLetterFloodError: the share passed `stop_share`.
        """
        self._seen.append((now, rows, dead))
        self._rows += rows
        self._dead += dead
        while self._seen and self._seen[0][0] < now - _WINDOW_S:
            _, old_rows, old_dead = self._seen.popleft()
            self._rows -= old_rows
            self._dead -= old_dead
        share = self._dead / max(1, self._rows)
        raised = self._dead >= _ROWS_MIN and share > _SHARE
        if raised != self._raised:
            self._raised = raised
            self._metrics.set("streamer_dead_letter_alarm", int(raised))
            if raised:
                _log.warning("dead_letter_flood", share=round(share, 3), dead=self._dead, rows=self._rows, seconds=_WINDOW_S)
            else:
                _log.info("dead_letter_flood_over")
        if self._stop_share is not None and self._dead >= _ROWS_MIN and share >= self._stop_share:
            raise DeadLetterFloodError(
                f"{share:.0%} of the last minute's {self._rows:,} records were dead letters, dead_letters_stop is "
                f"{self._stop_share:.0%}; look at the reasons with streamer tail, then start again"
            )
