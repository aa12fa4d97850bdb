"""The windows that the next worker would begin with, restored by a worker of its own that joins when all others are gone.

Writes one JSON line per key. The checker compares them with the windows it recomputed from the input.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from streamer.planning.plan import bind
from streamer.settings.settings import Settings
from streamer.topology.loading import load_topology
from streamer.worker.parts import parts_of
from streamer.worker.worker import Worker
from tests.faults.names import FLOWS, PARTITIONS, Flow, Names
from tests.faults.processes import TOPOLOGIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamer.operators.rolling.store import RollingStore

RESTORE_S = 60.0


def restored(settings: Settings, models: Path, flow: Flow) -> dict[int, RollingStore]:
    """The store of every partition, up to what the group committed."""
    topology, _ = load_topology(TOPOLOGIES[flow])
    worker = Worker(parts_of(bind(topology, settings, models), settings))
    worker.start()
    deadline = time.monotonic() + RESTORE_S
    while worker.ready() is not None or len(worker.pipeline.window.stores) < PARTITIONS:
        if time.monotonic() > deadline:
            raise SystemExit(f"after {RESTORE_S:.0f} s {worker.ready()}")
        worker.turn()
    stores = {partition: cast("RollingStore", store) for partition, store in worker.pipeline.window.stores.items()}
    worker.abandon()
    return stores


def rows(stores: dict[int, RollingStore]) -> Iterator[dict[str, Any]]:
    """One row per live key: partition, key, event times in microseconds and samples, oldest first."""
    for partition, store in stores.items():
        for key in filter(None, store.dump().keys):
            held = store.samples(key)
            assert held is not None
            times, values = held
            yield {"partition": partition, "key": key.decode(), "times": times.tolist(), "values": values[0].tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the windows that the changelog of a torture run comes to.")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--flow", choices=FLOWS, default="rolling")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings = Settings.load(None, bootstrap=args.bootstrap, group=Names(args.prefix).group)
    stores = restored(settings, args.models, args.flow)
    args.out.write_text("".join(json.dumps(row) + "\n" for row in rows(stores)))


if __name__ == "__main__":
    main()
