"""What must come of a flow, recomputed record by record in plain Python from the log of its inputs."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from streamer.kafka.memory_log import MemoryLog
from streamer.topology.closing import Closing, hopping, session, tumbling
from tests.kit import flows, joined, labelled, rekeyed
from tests.kit.window_oracle import Oracle
from tests.laws.run import Run
from tests.laws.table import LATE

Row = dict[str, Any]
SECOND = 1_000_000


def rows(log: MemoryLog, topic: str) -> Iterator[tuple[str, Row]]:
    """Id and content of the good records of a topic, partition by partition."""
    for partition in range(log.count(topic)):
        for offset in range(log.end(topic, partition)):
            value = log.record(topic, partition, offset).value
            if value is not None and value != b"{":
                yield f"{topic}/{partition}/{offset}", json.loads(value)


def read(log: MemoryLog, topic: str) -> list[Row]:
    """Committed records of an output."""
    return [json.loads(record.value or b"") for record in log.committed_records(topic)]


def by_id(log: MemoryLog, topic: str) -> dict[str, Row]:
    """The same by id, of which none comes twice."""
    found = read(log, topic)
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


def near(found: Row, wanted: Row) -> bool:
    """Whether features are those, as near as the sum of some numbers is."""
    return found.keys() == wanted.keys() and all(math.isclose(found[name], wanted[name], rel_tol=1e-9) for name in wanted)


def stateless(run: Run) -> None:
    """Each reading alone."""
    found = by_id(run.log, flows.PREDICTIONS)
    wanted = {place: {"value": row["value"], "load": row["load"]} for place, row in rows(run.log, flows.SOURCE)}
    assert {place: row["features"] for place, row in found.items()} == wanted


def count(run: Run) -> None:
    """The last three readings of each sensor."""
    last_three(run, list(rows(run.log, flows.SOURCE)))


def filtered(run: Run) -> None:
    """The same of the readings that come through, and the others counted."""
    every = list(rows(run.log, flows.SOURCE))
    some = [(place, row) for place, row in every if row["load"] != 2 and row["value"] % 5 != 1]
    assert 0 < len(some) < len(every)
    last_three(run, some)
    (worker,) = run.workers
    assert worker.metrics.value("streamer_records_total", "filtered") == len(every) - len(some)


def last_three(run: Run, readings: list[tuple[str, Row]]) -> None:
    """Each of these readings with the two before it of its sensor, and none but these."""
    found, samples, wanted = by_id(run.log, flows.PREDICTIONS), defaultdict[str, list[Row]](list), dict[str, Row]()
    for place, row in readings:
        window = samples[row["sensor"]] = [*samples[row["sensor"]], row][-3:]
        values = [one["value"] for one in window]
        low = min(one["load"] for one in window)
        wanted[place] = {"n": len(window), "total": sum(values), "first": values[0], "last": values[-1], "low": low}
    assert {place: row["features"] for place, row in found.items()} == wanted


NO_LOADS = dict.fromkeys(("low", "first", "last", "total"), -1)


def gaps(run: Run) -> None:
    """The last two readings of each sensor, and those of them with a load."""
    found, samples, wanted = by_id(run.log, flows.PREDICTIONS), defaultdict[str, list[Row]](list), dict[str, Row]()
    for place, row in rows(run.log, flows.SOURCE):
        window = samples[row["sensor"]] = [*samples[row["sensor"]], row][-2:]
        loads = [one["load"] for one in window if one["load"] is not None]
        shown = {"low": min(loads), "first": loads[0], "last": loads[-1], "total": sum(loads)} if loads else NO_LOADS
        wanted[place] = {"n": len(window), "loads": len(loads)} | shown
    assert {place: row["features"] for place, row in found.items()} == wanted
    assert {0, 1, 2} == {row["loads"] for row in wanted.values()}


def closing(window: Closing, *, early: bool, final: bool) -> Callable[[Run], None]:
    """The windows of each key that close, with early results or without, and who came late."""

    def check(run: Run) -> None:
        wanted, late = [], 0
        for partition in range(run.flow.partitions):
            oracle = Oracle(window.size_us, window.hop_us, window.gap_us, window.grace_us)
            found = []
            for place, row in rows(run.log, flows.SOURCE):
                if place.split("/")[1] == str(partition):
                    found += oracle.row(row["sensor"], round(row["ts"] * SECOND), row["value"])
            found += oracle.move(2**60) if final else []
            late += sum(kind == "late" for kind, *_ in found)
            kinds = [kind for kind, asked in (("each", early), ("final", final)) if asked]
            wanted += [
                (key, start / SECOND, end / SECOND, kind == "final", len(values), sum(values))
                for kind, key, start, end, values in found
                if kind in kinds
            ]
        seen = [
            (row["key"], row["window_start"], row["window_end"], row["final"], row["window_n"], row["features"]["total"])
            for row in read(run.log, flows.PREDICTIONS)
        ]
        assert sorted(seen) == sorted(wanted)
        assert len(run.log.committed_records(LATE)) == late

    return check


def interval(run: Run) -> None:
    """What a user has spent within the hour, with the logins from ten minutes before to half a minute after."""
    payments, logins = list(rows(run.log, joined.PAID)), [row for _, row in rows(run.log, joined.LOGINS)]
    found = by_id(run.log, joined.SCORED)
    assert found.keys() == {place for place, _ in payments}
    for at, (place, row) in enumerate(payments):
        own = [
            other["amount"]
            for n, (_, other) in enumerate(payments)
            if other["user"] == row["user"] and (other["ts"], n) <= (row["ts"], at) and other["ts"] > row["ts"] - 3_600
        ]
        seen = [one["risk"] for one in logins if one["user"] == row["user"] and -600 <= one["ts"] - row["ts"] <= 30]
        wanted = {"spent": sum(own), "n": len(own), "logins": len(seen), "risk": math.fsum(seen)}
        assert near(found[place]["features"], wanted), (place, found[place]["features"], wanted)


def match(run: Run) -> None:
    """Each prediction with the first label, as the log has them, that is of its key and in its time."""
    labels = [row for _, row in rows(run.log, labelled.LABELS)]
    matched, unmatched = by_id(run.log, labelled.MATCHED), by_id(run.log, labelled.UNMATCHED)
    wanted: dict[str, str | None] = {}
    for _, row in rows(run.log, labelled.SCORED):
        fitting = [one["reason"] for one in labels if one["payment"] == row["key"] and 0 <= one["at"] - row["time"] <= 30]
        wanted[row["id"]] = fitting[0] if fitting else None
    assert unmatched.keys() == {name for name, reason in wanted.items() if reason is None}
    assert {name: row["label"]["reason"] for name, row in matched.items()} == {
        name: reason for name, reason in wanted.items() if reason is not None
    }


def rekeyed_(run: Run) -> None:
    """What the internal topic says, and one outcome for each record of the source."""
    assert rekeyed.judge(run.log) == []


ORACLES: dict[str, Callable[[Run], None]] = {
    "stateless": stateless,
    "count": count,
    "filtered": filtered,
    "gaps": gaps,
    "tumbling": closing(tumbling("10s", grace="5s"), early=False, final=True),
    "hopping": closing(hopping("20s", hop="5s", grace="5s"), early=True, final=True),
    "session": closing(session(gap="7s", grace="5s"), early=True, final=True),
    "early": closing(tumbling("10s", grace="5s"), early=True, final=False),
    "interval": interval,
    "match": match,
    "rekeyed": rekeyed_,
    "rekeyed apart": rekeyed_,
}
