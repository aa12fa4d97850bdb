"""The exactly-once checker: a process of its own that trusts nothing but the topics and the model file.

`watch` records what a read_committed reader sees while faults happen; `verify` reads everything again after
the run, recomputes it and prints one JSON verdict. Exit status 1: violations; 2: the run cannot be judged.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults import invariants
from tests.faults.log import LogReader, Position, Record, committed_offsets
from tests.faults.names import FLOWS, Names
from tests.faults.oracle import AmbiguousInputError, Scorer, Truth, expect
from tests.faults.oracle_closing import expect_closing
from tests.faults.oracle_joined import expect_joined
from tests.faults.oracle_missing import expect_missing
from tests.faults.oracle_raw import expect_raw
from tests.faults.oracle_rekeyed import expect_rekeyed
from tests.faults.oracle_stateless import expect_stateless

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

Watched = tuple[Position, int, str]


@dataclass(frozen=True, slots=True)
class Logs:
    """Everything one run left behind, each list in log order per partition; the state may not have been asked for.

    `ends` are those of all inputs, also the internal one. Only the joined flow has a second input, and only the re-keyed one
    has records forwarded, only the one of windows that close has late ones.
    """

    inputs: Sequence[Record]
    ends: dict[Position, int]
    predictions: Sequence[Record]
    anomalies: Sequence[Record]
    dead_letters: Sequence[Record]
    committed: dict[Position, int]
    watched: Sequence[Watched]
    state: Sequence[Mapping[str, Any]] | None = None
    seconds: Sequence[Record] = ()
    second_dead_letters: Sequence[Record] = ()
    forwarded: Sequence[Record] = ()
    late: Sequence[Record] = ()


@dataclass(slots=True)
class Verdict:
    """What the checker says: how much it looked at, how many results only an aborted transaction held, and what was wrong."""

    inputs: int
    good: int
    bad: int
    late: int
    predictions: int
    anomalies: int
    dead_letters: int
    watched: int
    windows: int
    aborted: int
    violations: int
    kinds: dict[str, int]
    first: list[str]


def check(truth: Truth, logs: Logs, names: Names) -> invariants.Violations:
    """Every invariant over the logs of one run."""
    bad = invariants.Violations()
    predictions = invariants.parse_outputs(logs.predictions, names, bad)
    anomalies = invariants.parse_outputs(logs.anomalies, names, bad)
    invariants.check_predictions(truth, predictions, bad)
    invariants.check_dead_letters(truth.dead_letters, truth.predictions, logs.dead_letters, names.input, bad)
    if names.flow == "joined":
        invariants.check_dead_letters(truth.second_letters, (), logs.second_dead_letters, names.second, bad)
    if names.flow == "closing":
        invariants.check_dead_letters(truth.late, (), logs.late, names.input, bad)
        invariants.check_watermarks(truth.missed, logs.late, bad)
    for kind, detail in truth.wrong:
        bad.add(kind, detail)
    invariants.check_order(predictions, truth.ranks, bad)
    invariants.check_order(anomalies, truth.ranks, bad)
    invariants.check_anomalies(predictions, anomalies, bad)
    invariants.check_offsets([*logs.inputs, *logs.seconds, *logs.forwarded], logs.ends, logs.committed, bad)
    outputs = [*logs.predictions, *logs.anomalies, *logs.dead_letters, *logs.second_dead_letters, *logs.late]
    invariants.check_prefix(logs.watched, outputs, bad)
    if logs.state is not None:
        invariants.check_state(truth, logs.state, bad)
    return bad


def read_logs(bootstrap: str, names: Names, watched: Path | None, state: Path | None = None) -> Logs:
    """Read every topic of the run to its committed end."""
    reader = LogReader(bootstrap, [topic for topics in names.readers.values() for topic in topics])
    records, ends = reader.read_to_end(), reader.ends
    reader.close()
    by_topic = {topic: read_topic(bootstrap, topic) for topic in names.outputs}
    seen = _lines(watched) if watched else []
    return Logs(
        [record for record in records if record.topic == names.input],
        ends,
        by_topic[names.predictions],
        by_topic[names.anomalies],
        by_topic[names.dead_letters],
        committed_offsets(bootstrap, names),
        [((topic, partition), offset, digest) for topic, partition, offset, digest in seen],
        _lines(state) if state else None,
        [record for record in records if record.topic == names.second],
        by_topic.get(names.second_dead_letters, ()),
        [record for record in records if record.topic == names.forwarded],
        by_topic.get(names.late, ()),
    )


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_topic(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[Record]:
    reader = LogReader(bootstrap, [topic], isolation)
    try:
        return reader.read_to_end()
    finally:
        reader.close()


def recompute(names: Names, logs: Logs, scorer: Scorer) -> Truth:
    """What the flow of this run should have said."""
    if names.flow == "joined":
        return expect_joined(logs.inputs, logs.seconds, scorer)
    if names.flow == "rekeyed":
        return expect_rekeyed(logs.inputs, logs.forwarded, scorer)
    return _OF_INPUTS[names.flow](logs.inputs, scorer)


_OF_INPUTS = {
    "rolling": expect, "closing": expect_closing, "stateless": expect_stateless, "raw": expect_raw, "missing": expect_missing,
}  # fmt: skip


def verify(bootstrap: str, names: Names, model: Path, watched: Path | None, state: Path | None = None) -> Verdict:
    """Read, recompute, compare."""
    logs = read_logs(bootstrap, names, watched, state)
    scorer = Scorer(model)
    truth = recompute(names, logs, scorer)
    bad = check(truth, logs, names)
    if not truth.predictions or not truth.dead_letters:
        bad.add("nothing_checked", "the input holds no good records or no bad ones: the run proves nothing")
    uncommitted = sum(len(read_topic(bootstrap, topic, "read_uncommitted")) for topic in names.outputs)
    committed = sum(map(len, (logs.predictions, logs.anomalies, logs.dead_letters, logs.second_dead_letters, logs.late)))
    return Verdict(
        inputs=len(logs.inputs) + len(logs.seconds),
        good=len(truth.predictions),
        bad=len(truth.dead_letters) + len(truth.second_letters),
        late=len(truth.late),
        predictions=len(logs.predictions),
        anomalies=len(logs.anomalies),
        dead_letters=len(logs.dead_letters) + len(logs.second_dead_letters),
        watched=len(logs.watched),
        windows=len(logs.state or ()),
        aborted=uncommitted - committed,
        violations=bad.counts.total(),
        kinds=dict(bad.counts),
        first=bad.first,
    )


def watch(bootstrap: str, names: Names, path: Path) -> None:
    """Write what a read_committed reader of the outputs sees, until SIGTERM; then on to the end and stop."""
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    reader = LogReader(bootstrap, names.outputs)
    quiet = 0
    with path.open("w") as out:
        while not stopping or quiet < 3:
            records = reader.poll()
            quiet = 0 if records else quiet + 1
            for record in records:
                line = [record.topic, record.partition, record.offset, invariants.fingerprint(record)]
                out.write(json.dumps(line) + "\n")
    reader.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Check one torture run, independently of the service.")
    parser.add_argument("command", choices=["watch", "verify"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--flow", choices=FLOWS, default="rolling")
    parser.add_argument("--model", type=Path, help="verify: the model file the run used")
    parser.add_argument("--state", type=Path, help="verify: the windows that final_state.py printed")
    parser.add_argument("--watched", type=Path, help="watch: where to write; verify: what a watcher wrote")
    args = parser.parse_args()
    names = Names(args.prefix, flow=args.flow)
    if args.command == "watch":
        watch(args.bootstrap, names, args.watched)
        return 0
    try:
        verdict = verify(args.bootstrap, names, args.model, args.watched, args.state)
    except AmbiguousInputError as error:
        sys.stderr.write(f"checker: the run cannot be judged: {error}\n")
        return 2
    sys.stdout.write(json.dumps(asdict(verdict), indent=1) + "\n")
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
