"""The last words of the demo: counts, latencies, reasons of dead letters, and which sensor was flagged when."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from streamer.demo.run import Outcome
from streamer.live.numbers import END_TO_END, overall
from streamer.live.view import duration, moment
from streamer.telemetry.metrics import Metrics

# Flags of one sensor closer than this belong to one spell.
_SPELL_GAP_S = 6 * 3600.0
_SPELLS_SHOWN = 3


@dataclass(slots=True)
class Spell:
    """Neighbouring flags of one key: first and last event time in seconds, how many, highest score."""

    first: float
    last: float
    flags: int
    score: float

    def __str__(self) -> str:
        when = moment(self.first) if self.flags == 1 else f"{moment(self.first)} to {moment(self.last)}"
        return f"{when:<26}{self.flags:>4} flag{'s' if self.flags > 1 else ' '}  score {self.score:.2f}"


def spells(anomalies: list[dict[str, Any]]) -> dict[str, list[Spell]]:
    """Key -> its spells in order of time."""
    found: dict[str, list[Spell]] = {}
    for anomaly in sorted(anomalies, key=lambda anomaly: (str(anomaly["key"]), anomaly["time"])):
        of_key = found.setdefault(str(anomaly["key"]), [])
        if of_key and anomaly["time"] - of_key[-1].last <= _SPELL_GAP_S:
            spell = of_key[-1]
            spell.last, spell.flags, spell.score = anomaly["time"], spell.flags + 1, max(spell.score, anomaly["score"])
        else:
            of_key.append(Spell(anomaly["time"], anomaly["time"], 1, anomaly["score"]))
    return found


def lines(outcome: Outcome, metrics: Metrics) -> Iterator[str]:
    """The summary, line by line."""
    p50, p99 = overall(metrics.ledger)[END_TO_END]
    yield f"events in     {outcome.fed:,}"
    yield f"predictions   {outcome.predicted:,}"
    yield f"flags         {outcome.flagged:,}"
    yield f"dead letters  {outcome.dead:,}"
    yield from _reasons(metrics)
    if outcome.rolled_back:
        yield f"rolled back   {outcome.rolled_back:,}"
        yield "              a pause (a stopped process, a busy machine) cost a transaction; this broker cannot take back"
        yield "              what it had written, so that stays in its topic and counts as no outcome: --broker real can"
    yield f"end to end    p50 {duration(p50)}, p99 {duration(p99)} (from record to commit)"
    for key, of_key in spells(outcome.anomalies).items():
        best = sorted(of_key, key=lambda spell: -spell.score)[:_SPELLS_SHOWN]
        more = f" ({len(best)} of {len(of_key)} spells)" if len(of_key) > len(best) else ""
        yield f"flagged       {key}{more}"
        yield from (f"                {spell}" for spell in sorted(best, key=lambda spell: spell.first))
    if outcome.known:
        yield _against_known(outcome)


def _reasons(metrics: Metrics) -> Iterator[str]:
    for (*_, reason), count in sorted(metrics.by_label("streamer_dead_letters_total").items()):
        yield f"                {reason:<26}{count:>4g}"


def _against_known(outcome: Outcome) -> str:
    """How the flags lie to the anomalies that people found in this data."""
    hit: set[tuple[str, int]] = set()
    outside = 0
    for anomaly in outcome.anomalies:
        key = str(anomaly["key"])
        spans = outcome.known.get(key, [])
        inside = {(key, place) for place, (first, last) in enumerate(spans) if first <= anomaly["time"] <= last}
        hit |= inside
        outside += not inside
    known = sum(map(len, outcome.known.values()))
    return (
        f"known         {len(hit)} of {known} anomalies labelled in this data were flagged, {outside} flags lie elsewhere "
        "(the model was trained on it)"
    )
