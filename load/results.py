"""The file of results: rows by workload, each workload with the circumstances of its own last run.

A full run takes long, so a run of some workloads replaces their rows and leaves the others.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Results = dict[str, Any]


def read(path: Path) -> Results:
    """What the file holds; empty if there is none."""
    if not path.exists():
        return {"headers": {}, "rows": []}
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def replaced(results: Results, workload: str, header: Row, rows: list[Row], order: Sequence[str]) -> Results:
    """The results with header and rows of one workload exchanged, workloads in `order`, unknown ones last."""
    places = {name: place for place, name in enumerate(order)}
    headers = {**results["headers"], workload: header}
    kept = [row for row in results["rows"] if row["workload"] != workload]
    return {
        "headers": dict(sorted(headers.items(), key=lambda item: places.get(item[0], len(places)))),
        "rows": sorted([*kept, *rows], key=lambda row: places.get(row["workload"], len(places))),
    }


def write(path: Path, results: Results) -> None:
    """Write the file anew, beside it first: an interrupted run leaves a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    beside.replace(path)


def widest(rows: list[Row]) -> float:
    """The largest spread of any row: what a difference must exceed to mean something."""
    return max((row["spread"] for row in rows if row["spread"] is not None), default=0.0)
