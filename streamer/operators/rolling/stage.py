"""window: keyed windows advance with the batch, and the user's function turns them into features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.features.call import add_features
from streamer.operators.aggregates import column_of
from streamer.operators.operator import Inputs
from streamer.operators.rolling.store import RollingSpec, RollingStore
from streamer.operators.samples import Results
from streamer.operators.stores import PerPartition
from streamer.operators.ticks import NO_TICKS, Tick, Ticks, segments, ticking_rows
from streamer.rows.batch import Batch
from streamer.state.delta import Delta, merge
from streamer.telemetry.metrics import Metrics
from streamer.topology.steps import FeatureFunction
from streamer.topology.view import Requested, Window, WindowView


@dataclass(slots=True, kw_only=True)
class WindowStage(PerPartition[RollingStore]):
    """Holds one store per assigned partition; without a store spec it only computes features of single events.

    Attributes:
        spec: shape of the stores, or None for a flow without windows.
        needs: what the feature function reads.
        features: the user's function.
        keys_max: live keys of each store; beyond, the key seen longest ago is forgotten.
    """

    spec: RollingSpec | None
    needs: Requested
    features: FeatureFunction
    keys_max: int

    def _new(self) -> RollingStore | None:
        return None if self.spec is None else self.spec.open(self.keys_max)

    def releasing(self, inputs: Inputs, clock: Clock, metrics: Metrics) -> None:
        """Time alone brings nothing about."""

    def __call__(self, batch: Batch, ticks: Ticks = NO_TICKS) -> None:
        """Advance the windows by the rows of the batch and compute their features."""
        results = self._advance(batch, ticks) if self.spec else None
        batch.counts = results.count[self.spec.window.widest] if self.spec and results else np.zeros(len(batch), np.int64)
        if len(batch):
            add_features(self.features, self._view(batch, results), batch)

    def _advance(self, batch: Batch, ticks: Ticks) -> Results:
        assert self.spec is not None
        results = Results.empty(self.spec, len(batch))
        fields = self.spec.fields
        values = np.array([batch.columns[name] for name in fields], np.float64).reshape(len(fields), len(batch))
        for partition, rows in ticking_rows(batch.partitions, ticks):
            store = self.stores[partition]
            evicted = store.keys.evicted
            if partition in ticks:
                delta, truncated = _ticking(store, batch, ticks[partition], rows, values, results=results)
            elif len(rows) == len(batch):
                delta, truncated = store.advance(batch.keys, batch.times_us, values, rows, results)
            else:
                keys = list(map(batch.keys.__getitem__, rows.tolist()))
                # Rows picked from a matrix come back column by column; the kernels take them row by row.
                picked = np.ascontiguousarray(values[:, rows])
                delta, truncated = store.advance(keys, batch.times_us[rows], picked, rows, results)
            batch.deltas[partition] = delta
            self.truncated += truncated
            self.evicted += store.keys.evicted - evicted
        return results

    def _view(self, batch: Batch, results: Results | None) -> Window:
        events = {name: batch.columns[name] for name in self.needs.events}
        if results is None or self.spec is None:
            return Window({0: WindowView(np.ones(len(batch)), {}, {}, {})}, events)
        looks = (self.needs, *self.needs.further)
        names = self.spec.window.names
        return Window({name: self._look(place, batch, results, looks[place]) for place, name in enumerate(names)}, events)

    def _look(self, look: int, batch: Batch, results: Results, needs: Requested) -> WindowView:
        assert self.spec is not None
        spec = self.spec
        at = {name: spec.column(look, name) for name in spec.fields}
        width = spec.window.samples if spec.window.by_time else spec.window.looks[look]
        return WindowView(
            results.count[look].astype(np.float64),
            {
                (name, aggregate): column_of(
                    aggregate,
                    results.aggregates[at[name]],
                    batch.columns[name],
                    results.span_us[look],
                    gaps=name in needs.nullable,
                )
                for name, aggregate in needs.aggregates
            },
            {name: results.matrix[spec.matrices[at[name]]][:, -width:] for name in needs.matrices},
            {(name, q): results.aggregates[at[name], spec.quantile_row(at[name], q)] for name, q in needs.quantiles},
        )


def _ticking(
    store: RollingStore, batch: Batch, ticks: Sequence[Tick],
    rows: NDArray[np.int64], values: NDArray[np.float64], *, results: Results,
) -> tuple[Delta, int]:  # fmt: skip
    """Advance a store by rows and the ticks among them."""
    deltas, truncated = list[Delta](), 0
    for part in segments(rows, ticks):
        if isinstance(part, int):
            deltas.append(store.tick(part))
            continue
        keys = list(map(batch.keys.__getitem__, part.tolist()))
        delta, lost = store.advance(keys, batch.times_us[part], np.ascontiguousarray(values[:, part]), part, results)
        deltas.append(delta)
        truncated += lost
    return merge(deltas, len(store.spec.fields)), truncated
